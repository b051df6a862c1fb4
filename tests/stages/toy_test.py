"""The toy against every number the paper publishes of it (section 5.4), in percent.

A published number is rounded, and was read on a grid of temperatures that is not known: hence half
a unit of the last digit, and what half a unit of the published temperatures, 0.0005, moves.
"""

import importlib.util
import json
import pathlib
import re

import pytest

from jssd.main import run_stages
from jssd.stages import pages, toy
from tests import formats

ROOT = pathlib.Path(__file__).parents[2]
GRID = 0.006  # Points, at the teacher's optimum, where the curve is steepest.


@pytest.fixture(scope="module")
def config():
    spec = importlib.util.spec_from_file_location("toy", ROOT / "configs" / "toy.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


@pytest.fixture(scope="module")
def found(config):
    return toy.simulate(config)


def near(published, digits=1):
    return pytest.approx(published, abs=0.5 * 10**-digits + GRID)


def percents(law):
    return [100 * p for p in law if p > 0]


def ranked(law):
    return sorted(percents(law), reverse=True)


def test_the_states_of_the_teacher(found):
    assert found["entropy_bits"]["lock"] == pytest.approx(1.61, abs=0.005)
    assert found["entropy_bits"]["fork"] == pytest.approx(2.81, abs=0.005)
    for state, head in {
        "root": [20.0, 19.0, 32.9, 12.6],
        "fork": [14.8, 28.0, 14.0, 14.4],
        "lock": [75.0, 5.5, 5.0, 3.7],
    }.items():
        law = found["laws"]["teacher"][state]
        assert percents(law)[:4] == pytest.approx(head) and len(law) == 16
        assert sum(law) == pytest.approx(1)


def test_what_the_student_keeps(found):
    student = found["laws"]["student"]
    assert percents(student["lock"]) == near([94.8, 5.2])
    assert len(percents(student["fork"])) == 5
    right, likeliest, *others = percents(student["fork"])
    assert [likeliest, right] == near([34.4, 16.9])
    assert others == pytest.approx([16] * 3, abs=0.5)  # "Three about 16".
    assert len(percents(student["root"])) == 4
    assert [100 * student["root"][2]] == near([40.6])


@pytest.mark.parametrize(
    ("model", "temperature", "success", "fork", "places"),
    [
        ("teacher", 0.639, 8.32, [48.2, 17.8, 17.0, 17.0], [6.4, 6.4, 0.3]),
        ("student", 2.091, 13.77, [32.1, 22.9, 22.5, 22.5], [5.5, 10.6, 13.8]),
    ],
)
def test_one_temperature_for_all(found, model, temperature, success, fork, places):
    curve = found["curves"][model]
    assert curve["best"]["temperature"] == pytest.approx(temperature, abs=0.0005)
    assert [100 * curve["best"]["success"]] == near([success], digits=2)
    assert ranked(curve["fork_at_best"]) == near(fork)
    assert [row["temperature"] for row in curve["at"][:2]] == [0.5, 1.0]
    assert [100 * row["success"] for row in curve["at"]] == near(places)


def test_the_gap_is_positive_at_every_top_p(found):
    gaps = {row["top_p"]: 100 * row["gap"] for row in found["gaps"]}
    assert list(gaps) == [0.65, 0.7, 0.75, 0.8, 0.85, 0.9]
    assert min(gaps, key=gaps.__getitem__) == 0.9 and max(gaps, key=gaps.__getitem__) == 0.8
    assert [gaps[0.9], gaps[0.8]] == near([1.4, 5.4])
    assert min(gaps.values()) > 0


def test_the_stage_needs_no_model(config, tmp_path, capsys):
    run_stages(config, tmp_path, list(config.stages))
    for name in ("toy.png", "laws.png"):
        assert (tmp_path / "toy" / name).read_bytes().startswith(b"\x89PNG")
    assert formats.compare(tmp_path) == ({"toy/toy.json"}, [])
    found = json.loads((tmp_path / "toy" / toy.FILE).read_text())
    printed = capsys.readouterr().out
    for curve in found["curves"].values():
        best = curve["best"]
        assert f"{100 * best['success']:.2f} at T {best['temperature']:.3f}" in printed
    assert not list(tmp_path.glob(f"**/{pages.PAGE}"))


def test_other_stages_do(config, tmp_path):
    with pytest.raises(ValueError, match=r"model\.path='' must name"):
        run_stages(config, tmp_path, ["toy", "sample"])


def test_the_table_of_the_concepts_page_is_what_is_computed(found):
    page = (ROOT / "docs" / "concepts.md").read_text()
    rows = re.findall(r"^\| (0\.\d\d) \| ([\d.]+) \| ([\d.]+) \|$", page, re.M)
    best = [(row["top_p"], row["teacher"]["success"], row["student"]["success"])
            for row in found["gaps"]]  # fmt: skip
    assert rows == [(f"{p:.2f}", f"{100 * t:.2f}", f"{100 * s:.2f}") for p, t, s in best]
