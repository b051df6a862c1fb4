"""A sweep of a tiny model: one command, nothing drawn twice, one set of programs."""

import json
import pathlib

import jax
import pytest

from jssd import main, sharding
from jssd.config import MeshConfig, TruncationConfig
from jssd.stages import context, drawing, evaluate, grids, predict, sft, students
from jssd.stages import sweep as sweep_stage
from jssd.weights.fingerprint import fingerprint
from tests import formats
from tests.e2e import conftest

pytestmark = pytest.mark.usefixtures("one_device")


BASE_ALONE = {"train_temperatures": (), "checkpoints": ()}


def load(root: pathlib.Path, **fields):
    config = conftest.load_config(root)
    config.train.num_steps, config.prompts.limit = 4, 8
    config.sweep.train_temperatures = (0.7, 1.3)
    config.sweep.checkpoints = (2, 4)
    config.sweep.eval_temperatures = (0.0, 0.8, 1.0)
    config.sweep.eval_truncations = [TruncationConfig()]
    config.sweep.predict_temperatures = (0.9,)
    for name, value in fields.items():
        setattr(config.sweep, name, value)
    return config


@pytest.fixture(scope="module")
def swept(tiny, one_device, tmp_path_factory):
    """(work directory, engines that decoded it, steps that trained its students)."""
    workdir = tmp_path_factory.mktemp("sweep") / "run"
    made: dict[str, list] = {"Engine": [], "make_train_step": []}
    with pytest.MonkeyPatch.context() as patch:
        for holder, name in ((drawing, "Engine"), (sft, "make_train_step")):
            patch.setattr(holder, name, keeping(getattr(holder, name), made[name]))
        main.run_stages(load(tiny), workdir, ["sweep"])
    return workdir, *made.values()


def keeping(make, made: list):
    """`make`, whose results are kept in `made`."""

    def wrapped(*args, **kwargs):
        made.append(make(*args, **kwargs))
        return made[-1]

    return wrapped


def files(workdir: pathlib.Path, pattern: str) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(workdir)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted((workdir / "sweep").glob(pattern))
    }


def summary_of(workdir: pathlib.Path) -> dict:
    return json.loads((workdir / "sweep" / "summary.json").read_text())


def test_every_cell_is_decoded_and_summed_up(swept):
    workdir, *_ = swept
    found = summary_of(workdir)
    models = ["base", *(f"train-t{t}-k20-p0.9@{step}" for t in (0.7, 1.3) for step in (2, 4))]
    assert [row["model"] for row in found["cells"]] == [m for m in models for _ in range(3)]
    assert {row["n"] for row in found["cells"] if row["law"]["temperature"] > 0} == {2}
    assert [row["n"] for row in found["cells"] if row["law"]["temperature"] == 0] == [1] * 5
    assert {(row["of"], row["k"]) for row in found["best"]} == {
        (of, k) for of in ("base", "students") for k in (1, 2)
    }
    for row in found["best"]:  # The base's own decoding, greedy, draws one: no pass@2 to compare.
        assert (row["baseline"] is not None) == (row["k"] == 1)
        assert row["held_out"] and row["simultaneous"] and len(row["choices"]) == 2
    assert [row["k"] for row in found["tuned"]] == [1, 2]
    assert (workdir / "sweep" / "base-tasks-pass1.png").exists()
    assert len(list((workdir / "sweep").glob("heat-*.png"))) == 4  # Two k, two steps.


def test_files_are_as_the_page_of_formats_says(swept):
    seen, wrong = formats.compare(swept[0])
    assert wrong == []
    assert {p for p in formats.promised() if p.startswith("sweep/")} <= seen


def test_students_differ_by_temperature_and_step(swept):
    workdir, *_ = swept
    prints = {
        path.parts[-3]: json.loads(path.read_text())["fingerprint"]
        for path in (workdir / "sweep").glob("cells/tasks/*/t0.8/scores.json")
    }
    assert len(prints) == len(set(prints.values())) == 5
    settings = [
        json.loads(path.read_text().splitlines()[0])["sampling"]["temperature"]
        for path in sorted((workdir / "sweep").glob("students/*/samples/part-00000.jsonl"))
    ]
    assert settings == [0.7, 1.3]


def test_a_students_checkpoint_can_be_named(swept, tiny):
    workdir, *_ = swept
    run = context.Run(load(tiny), workdir / "other", sharding.make_mesh(MeshConfig()))
    place = workdir / "sweep/students/train-t0.7-k20-p0.9/checkpoints/2"
    found = students.checkpoint(run, str(place), "mechanism/student")
    assert found is not None and found.step == 2
    with jax.set_mesh(run.mesh):
        cfg, params = found.load()
        name = fingerprint(params, cfg.vocab_size)
    scores = workdir / "sweep/cells/tasks/train-t0.7-k20-p0.9@2/t1.0/scores.json"
    assert name == json.loads(scores.read_text())["fingerprint"]


def test_temperatures_checkpoints_and_students_share_one_program(swept):
    _, engines, _ = swept
    assert len(engines) == 2  # Of all students' samples, and of the whole grid.
    for engine in engines:
        assert engine._generate._cache_size() == 1


def test_students_of_all_temperatures_are_trained_by_one_program(swept):
    workdir, _, (step,) = swept
    assert (step.add._cache_size(), step.update._cache_size()) == (1, 1)
    widths = [
        json.loads(path.read_text())["batches"]["support_width"]
        for path in (workdir / "sweep").glob("students/*/data/stats.json")
    ]
    assert widths == [20, 20]  # The law's top_k, of which less was seen at the lower temperature.


def test_a_finished_sweep_is_left_alone_and_a_larger_grid_keeps_what_is_there(tiny, swept):
    workdir, *_ = swept
    before = files(workdir, "cells/**/*.json*")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "Drawer", None)  # Nothing may be drawn.
        main.run_stages(load(tiny), workdir, ["sweep"])
    assert files(workdir, "cells/**/*.json*") == before
    small = summary_of(workdir)
    wider = load(tiny, eval_temperatures=(0.8, 1.2), predict_temperatures=(), **BASE_ALONE)
    main.run_stages(wider, workdir, ["sweep"])
    after = files(workdir, "cells/**/*.json*")
    assert {name: after[name] for name in before} == before
    assert not list((workdir / "sweep").glob("heat-*.png"))  # No students, no heat-map.
    assert set(after) - set(before) == {
        f"sweep/cells/tasks/base/t1.2/{name}"
        for name in (
            "part-00000.jsonl",
            "completions.jsonl",
            "samples.jsonl",
            "custom_outputs.json",
            "scores.json",
        )
    }
    main.run_stages(load(tiny), workdir, ["sweep"])  # And back.
    assert summary_of(workdir)["cells"] == small["cells"]


def killed(config, workdir: pathlib.Path, holder, name: str, at: int) -> None:
    """Runs the sweep until call `at` of a function, which ends it."""
    calls, function = iter(range(1, 1000)), getattr(holder, name)

    def wrapped(*args, **kwargs):
        if next(calls) == at:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(holder, name, wrapped)
        with pytest.raises(KeyboardInterrupt):
            main.run_stages(config, workdir, ["sweep"])


def same_bytes(workdir: pathlib.Path, other: pathlib.Path, *patterns: str) -> None:
    for pattern in patterns:
        one, two = (
            {name: data for name, (_, data) in files(folder, pattern).items()}
            for folder in (workdir, other)
        )
        assert one and one == two


def test_killed_again_and_again_it_goes_on_to_the_same_bytes(tiny, swept, tmp_path):
    straight, *_ = swept
    config = load(tiny, **BASE_ALONE)
    for holder, name, at in (
        (drawing.Drawer, "_record", 7),
        (evaluate.grading, "grade_programs", 2),
        (predict, "score", 1),
        (sweep_stage.sweep_summary, "sum_up", 1),
    ):
        killed(config, tmp_path, holder, name, at)
    main.run_stages(config, tmp_path, ["sweep"])
    same_bytes(tmp_path, straight, "cells/tasks/base/t[01].[08]/*.json*", "predictions/base.json")


def test_killed_while_a_student_is_made_it_goes_on_to_the_same_weights(tiny, swept, tmp_path):
    straight, *_ = swept
    config = load(tiny, base=False, eval_temperatures=(1.0,), predict_temperatures=())
    killed(config, tmp_path, drawing.Drawer, "_record", 11)  # In the samples of the second.
    begun = tmp_path / "sweep/students/train-t1.3-k20-p0.9"
    assert conftest.count_lines(begun / "samples/part-00000.jsonl.partial") == 2
    killed(config, tmp_path, sft.loop, "place_batch", 4 + 4)  # After its step 3, with 2 saved.
    killed(config, tmp_path, sft.loop, "place_batch", 1)
    assert sorted(path.name for path in (begun / "checkpoints").iterdir()) == ["2"]
    main.run_stages(config, tmp_path, ["sweep"])
    same_bytes(
        tmp_path,
        straight,
        "students/*/samples/part-00000.jsonl",
        "cells/tasks/train-*/t1.0/*.json*",  # With the fingerprints of the weights.
    )


def test_stored_completions_are_scored_as_they_were_drawn(swept, tiny):
    workdir, *_ = swept
    rows = json.loads((workdir / "sweep" / "predictions" / "base.json").read_text())["rows"]
    by_law = {row["law"]["temperature"]: row for row in rows}
    assert list(by_law) == [0.9, 0.8, 1.0]
    assert [by_law[t]["decoded"] for t in by_law] == [False, True, True]
    assert [by_law[t]["as_wide"] for t in by_law] == [True, True, False]
    # Of two drawn laws' completions for 0.9, of one for a law that is checked against the other.
    assert [by_law[t]["drawn"] for t in by_law] == [4, 2, 2]
    assert not by_law[1.0]["trusted"]
    found = summary_of(workdir)["predictions"]
    assert [row["measured"] is not None for row in found[:3]] == [False, True, True]
    greedy = grids.Cell(grids.Model(), "tasks", grids.Sampling(0.0)).place(workdir)
    assert greedy.exists()


def test_changed_settings_and_an_empty_grid_are_refused(swept, tiny):
    workdir, *_ = swept
    config = load(tiny)
    config.evaluate.max_new_tokens = 17
    with pytest.raises(ValueError, match="begun with other settings: evaluate"):
        main.run_stages(config, workdir, ["sweep"])
    config = load(tiny)
    config.train.learning_rate = 1e-5
    config.train.final_learning_rate = 1e-6
    with pytest.raises(
        ValueError, match=r"train-t0\.7-k20-p0\.9 was begun with other settings: train"
    ):
        main.run_stages(config, workdir, ["sweep"])
    config = load(
        tiny, eval_temperatures=(), eval_truncations=[], predict_temperatures=(), **BASE_ALONE
    )
    with pytest.raises(ValueError, match=r"sweep\.eval_temperatures=\(\) must hold"):
        main.run_stages(config, workdir, ["sweep"])
