"""Stage mechanism on two tiny models: its files, its page, and going on after a kill."""

import json
import re

import pytest
from safetensors.numpy import load_file, save_file

from jssd.config import Config, ModelSource, PromptsConfig, SamplingConfig
from jssd.main import run_stages
from jssd.stages import coloured, excerpts, mechanism, report
from tests import formats, web_page
from tests.e2e import conftest

TEXTS = ["<script>alert(1)</script>\n", "    return a + b\n"] + ["for i in range(10): pass"] * 8


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("mechanism")
    base, student = (conftest.make_model(root / name) for name in ("base", "student"))
    weights = load_file(student / "model.safetensors")
    save_file(
        {name: 0.8 * array if array.ndim > 1 else array for name, array in weights.items()},
        student / "model.safetensors", metadata={"format": "pt"},
    )  # fmt: skip
    rows = [{"prompt": f"Question {i}\n", "completion": text} for i, text in enumerate(TEXTS)]
    (root / "contexts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = Config(
        name="tiny",
        model=ModelSource(str(base)),
        prompts=PromptsConfig(source="tasks:train"),
        sampling=SamplingConfig(temperature=1.5, top_k=10, top_p=0.8),
        compile_cache=False,
    )
    config.mechanism.student = str(student)
    config.mechanism.contexts = str(root / "contexts.jsonl")
    config.mechanism.fork_entropy, config.mechanism.max_tokens = 2.0, 20
    config.evaluate.bootstrap = 200
    return config


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run_stages(config, folder, ["mechanism"])
    return folder


def test_a_row_for_each_token(config, workdir):
    lines = conftest.read_lines(workdir / "mechanism" / mechanism.TOKENS)
    assert [len(line["tokens"]) for line in lines] == [min(len(text), 20) for text in TEXTS]
    for line in lines:
        for row in line["tokens"]:
            for model in ("base", "student"):
                loss = row[model]["loss"]
                parts = sum(loss.values()) - loss["cross_entropy"]
                assert parts == pytest.approx(loss["cross_entropy"], abs=1e-5, rel=1e-5)
                assert len(row[model]["eval_entropies"]) == len(config.mechanism.temperatures)
            assert row["base"]["entropy"] != row["student"]["entropy"]
    prints = {tuple(line["fingerprints"].values()) for line in lines}
    assert len(prints) == 1 and len(set(*prints)) == 2


def test_files_are_as_the_page_of_formats_says(workdir):
    seen, wrong = formats.compare(workdir)
    assert wrong == []
    assert {p for p in formats.promised() if p.startswith("mechanism/")} <= seen


def test_the_page_shows_tokens_and_trusts_none(workdir):
    page = (workdir / "mechanism" / "index.html").read_text()
    assert web_page.faults(page) == []
    picked = [TEXTS[i][:20] for i in excerpts.spread(len(TEXTS), coloured.SHOWN)]
    assert page.count('class="tip"') == sum(map(len, picked))
    shown = re.findall(r'class="t (lock|fork) \w*" tabindex="0">([^<]*)<', page)
    drawn = "".join(text for _, text in shown).replace("&lt;", "<").replace("&gt;", ">")
    assert drawn == "".join(picked)
    assert {kind for kind, _ in shown} == {"lock", "fork"}
    for name in ("panels.png", "loss.png"):
        assert (workdir / "mechanism" / name).read_bytes().startswith(b"\x89PNG")


def test_the_report_shows_it_and_links_the_page(workdir):
    report.run([workdir], workdir / "report")
    page = (workdir / "report" / "index.html").read_text()
    assert "At forks mass outside S" in page and web_page.faults(page) == []
    picked = [TEXTS[i][:20] for i in excerpts.spread(len(TEXTS), coloured.SHOWN)]
    coloured_here = picked[: report.NUM_COLOURED]
    assert page.count('class="tip"') == sum(map(len, coloured_here))
    (link,) = re.findall(r'<a href="([^"]*)"', page)
    assert (workdir / "report" / link).samefile(workdir / "mechanism" / "index.html")


def test_killed_it_goes_on_with_the_same_bytes(config, workdir, tmp_path):
    folder = tmp_path / "mechanism"
    wanted = (workdir / "mechanism" / mechanism.TOKENS).read_bytes()
    folder.mkdir()
    (folder / "settings.json").write_bytes((workdir / "mechanism/settings.json").read_bytes())
    begun = b"".join(wanted.splitlines(keepends=True)[:9])  # A group of eight, and one of another.
    (folder / f"{mechanism.TOKENS}.partial").write_bytes(begun + b'{"prompt_id"')
    run_stages(config, tmp_path, ["mechanism"])
    assert (folder / mechanism.TOKENS).read_bytes() == wanted


def test_other_weights_are_not_mixed_in(config, workdir, tmp_path):
    folder = tmp_path / "mechanism"
    folder.mkdir()
    rows = conftest.read_lines(workdir / "mechanism" / mechanism.TOKENS)[: mechanism.ROWS]
    other = {"fingerprints": {"base": "x", "student": "y"}}
    lines = "".join(json.dumps(row | other) + "\n" for row in rows)
    (folder / f"{mechanism.TOKENS}.partial").write_text(lines)
    with pytest.raises(ValueError, match=r"begun with weights .*'x'.*Delete"):
        run_stages(config, tmp_path, ["mechanism"])


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("mechanism", "student", "", "export does not exist. Run stages sft and export before"),
        ("mechanism", "temperatures", (0.5, 0.0), "mechanism.temperatures=.* above 0"),
        ("mechanism", "max_tokens", 0, "mechanism.max_tokens=0 must be at least 1"),
        ("sampling", "temperature", 0.0, "sampling.temperature=0.0 must be above 0 in stage"),
    ],
)
def test_mistakes_are_told(config, tmp_path, monkeypatch, section, field, value, message):
    monkeypatch.setattr(getattr(config, section), field, value)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run_stages(config, tmp_path, ["mechanism"])
