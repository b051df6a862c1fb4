"""Trackers: what is sent where, one run per work directory, and a failure that costs nothing.

Small stand-ins for the packages show what is called; the real packages run where installed.
"""

import importlib.util
import json
import sys
import types

import pytest

from jssd import metrics, trackers


def open_trackers(workdir, *names, told=None) -> trackers.Trackers:
    return trackers.Trackers(
        names,
        workdir,
        project="demo",
        settings={"name": "demo"},
        tell=print if told is None else told.append,
    )


def writer(workdir, *names, told=None) -> metrics.Writer:
    return metrics.Writer(workdir / "train", trackers=open_trackers(workdir, *names, told=told))


@pytest.fixture
def wandb(monkeypatch):
    """As much of wandb as is used; `calls` are those of the package and of its runs."""
    calls = []

    def init(**settings):
        calls.append(("init", settings))
        return types.SimpleNamespace(
            define_metric=lambda name, **more: calls.append(("define_metric", name, more)),
            log=lambda values: calls.append(("log", values)),
            summary=types.SimpleNamespace(update=lambda v: calls.append(("summary", v))),
            finish=lambda: calls.append(("finish",)),
        )

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    return calls


@pytest.fixture
def mlflow(monkeypatch):
    """Likewise of mlflow: a server whose only experiment is not there yet."""
    calls = []

    class Client:
        def get_experiment_by_name(self, name):
            return None

        def create_experiment(self, name):
            calls.append(("create_experiment", name))
            return "7"

        def create_run(self, experiment, run_name):
            calls.append(("create_run", experiment, run_name))
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id="r1"))

        def log_dict(self, run_id, tree, name):
            calls.append(("log_dict", run_id, tree, name))

        def update_run(self, run_id, status):
            calls.append(("update_run", run_id, status))

        def log_batch(self, run_id, metrics):
            calls.append(("log_batch", run_id, [(m[0], m[1], m[3]) for m in metrics]))

    entities = types.SimpleNamespace(Metric=lambda *values: values)
    fake = types.SimpleNamespace(MlflowClient=Client, entities=entities)
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    return calls


def test_wandb_gets_steps_and_results_and_the_same_run_after_a_kill(tmp_path, wandb):
    log = writer(tmp_path, "wandb")
    assert wandb == []  # Opened when there is something to send.
    log.scalars(3, {"loss": 1.5, "mfu": None, "kept_mass": float("nan")})
    log.summary({"tasks/base/greedy/pass_at_1/value": 0.25})
    run_id = json.loads((tmp_path / trackers.IDS_FILE).read_text())["wandb"]
    (_, settings), *rest = wandb
    assert settings == {
        "project": "demo", "name": tmp_path.name, "id": run_id, "resume": "allow",
        "config": {"name": "demo"}, "dir": str(tmp_path),
    }  # fmt: skip
    assert rest == [
        ("define_metric", "train/step", {}),
        ("define_metric", "train/*", {"step_metric": "train/step"}),
        ("log", {"train/step": 3, "train/loss": 1.5}),
        ("summary", {"tasks/base/greedy/pass_at_1/value": 0.25}),
    ]
    wandb.clear()
    with writer(tmp_path, "wandb") as again:  # The first was killed: not closed.
        again.resume(2)
        again.scalars(3, {"loss": 1.5})
    assert wandb[0][1]["id"] == run_id
    assert wandb[-2:] == [("log", {"train/step": 3, "train/loss": 1.5}), ("finish",)]


def test_mlflow_gets_steps_and_results_and_the_same_run_after_a_kill(tmp_path, mlflow):
    log = writer(tmp_path, "mlflow")
    log.scalars(3, {"loss": 1.5})
    log.summary({"tasks/train-t1.5@250/pass_at_1/value": 0.25})
    assert mlflow == [
        ("create_experiment", "demo"),
        ("create_run", "7", tmp_path.name),
        ("log_dict", "r1", {"name": "demo"}, "config.json"),
        ("update_run", "r1", "RUNNING"),
        ("log_batch", "r1", [("train/loss", 1.5, 3)]),
        ("log_batch", "r1", [("tasks/train-t1.5_250/pass_at_1/value", 0.25, 0)]),
    ]
    mlflow.clear()
    with writer(tmp_path, "mlflow") as again:
        again.scalars(4, {"loss": 1.25})
    assert mlflow == [
        ("update_run", "r1", "RUNNING"),
        ("log_batch", "r1", [("train/loss", 1.25, 4)]),
        ("update_run", "r1", "FINISHED"),
    ]


def test_a_tracker_that_fails_is_told_once_and_costs_nothing(tmp_path, monkeypatch, wandb, mlflow):
    def down(**settings):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(sys.modules["wandb"], "init", down)
    told: list[str] = []
    with writer(tmp_path, "wandb", "mlflow", told=told) as log:
        log.scalars(1, {"loss": 2.0})
        log.scalars(2, {"loss": 1.0})
    assert told == [
        "tracker wandb failed and is left out for now: no route to host. The run goes on; its own "
        "files hold everything."
    ]
    assert [row["step"] for row in metrics.read_scalars(tmp_path / "train")] == [1, 2]
    sent = [call[2][0] for call in mlflow if call[0] == "log_batch"]
    assert sent == [("train/loss", 2.0, 1), ("train/loss", 1.0, 2)]
    log.scalars(3, {"loss": 0.5})  # After the stage it is tried again.
    assert len(told) == 2


def test_only_the_first_process_sends(tmp_path, wandb):
    there = open_trackers(tmp_path, "wandb")
    with metrics.Writer(tmp_path / "train", enabled=False, trackers=there) as log:
        log.scalars(1, {"loss": 1.0})
        log.summary({"a": 1.0})
    assert wandb == [] and not (tmp_path / trackers.IDS_FILE).exists()


def test_a_missing_package_is_one_line_with_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    trackers.check(())
    message = r"needs wandb, mlflow\. Install with: pip install 'jssd\[wandb,mlflow\]'"
    with pytest.raises(ValueError, match=message):
        trackers.check(("wandb", "mlflow"))


@pytest.mark.optin
@pytest.mark.filterwarnings("ignore")  # Of the package and its dependencies.
def test_the_real_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    for step in (1, 2):  # The second writer is a start after a kill.
        log = writer(tmp_path, "mlflow", told=told)
        log.scalars(step, {"loss": 1.0 / step})
        log.summary({"tasks/train-t1.5@250/pass_at_1/value": 0.25})
    log.close()
    assert told == []
    client = mlflow.MlflowClient()
    place = client.get_experiment_by_name("demo").experiment_id
    [run] = client.search_runs([place])
    assert run.info.status == "FINISHED"
    found = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in found] == [(1, 1.0), (2, 0.5)]
    assert run.data.metrics["tasks/train-t1.5_250/pass_at_1/value"] == 0.25


@pytest.mark.optin
@pytest.mark.filterwarnings("ignore")
def test_the_real_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs the extra wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    told: list[str] = []
    for step in (1, 2):
        with writer(tmp_path, "wandb", told=told) as log:
            log.scalars(step, {"loss": 1.0 / step})
            log.summary({"tasks/base/greedy/pass_at_1/value": 0.25})
    assert told == []
    run_id = json.loads((tmp_path / trackers.IDS_FILE).read_text())["wandb"]
    files = list((tmp_path / "wandb").glob(f"offline-run-*-{run_id}/run-{run_id}.wandb"))
    assert len(files) >= 1 and all(path.stat().st_size for path in files)
