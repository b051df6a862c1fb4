"""Weights & Biases and MLflow, as copies of what the run's own files hold. Optional extras.

A work directory is one run there: its id is kept in `trackers.json`, and a run that goes on after a
kill goes on in it. Steps that are trained again after a kill are sent again. A tracker that fails,
as when the network is down, is told once and left out for the rest of the stage; the next stage or
start tries it again. The run itself never stops for it, and its files lose nothing.

How long it takes to fail is the package's own affair: W&B tries a server that refuses connections
for a minute and three quarters (measured), in which the run waits. MLflow would try for longer than
anyone waited; unless its own settings say otherwise it is told to try twice more.
"""

import importlib
import importlib.util
import json
import os
import pathlib
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jssd import places

IDS_FILE = "trackers.json"


def check(names: Sequence[str]) -> None:
    """Raises ValueError with the pip command where the package of a tracker is missing."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"trackers={tuple(names)!r} needs {', '.join(missing)}. Install with: pip install "
            f"'jssd[{','.join(missing)}]', or leave it out of trackers."
        )


class Trackers:
    """Those of one work directory, each opened when there is something to send."""

    def __init__(
        self,
        names: Sequence[str],
        workdir: str | os.PathLike,
        *,
        project: str,
        settings: Mapping[str, Any],
        tell: Callable[[str], None],
    ):
        """
        Args:
          names: of `config.TRACKERS`.
          workdir: holds the ids; its name is that of the run.
          project: W&B's project, MLflow's experiment.
          settings: the whole config, shown beside the run.
          tell: takes the line that says what failed.
        """
        self._names, self._workdir = tuple(names), places.path(workdir)
        self._project, self._settings, self._tell = project, dict(settings), tell
        self._open: dict[str, Any] = {}
        self._failed: set[str] = set()

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Sends finite numbers of one step, as `stage/name`."""
        self._each(lambda tracker: tracker.scalars(stage, step, values))

    def summary(self, values: Mapping[str, float]) -> None:
        """Sends results that belong to no step. The last one of a name counts."""
        self._each(lambda tracker: tracker.summary(values))

    def close(self) -> None:
        """Ends the connections; later calls open them again."""
        self._each(lambda tracker: tracker.close(), only_open=True)
        self._open, self._failed = {}, set()

    def _each(self, do: Callable[[Any], None], *, only_open: bool = False) -> None:
        for name in self._names:
            if name in self._failed or (only_open and name not in self._open):
                continue
            try:
                if name not in self._open:
                    self._open[name] = _KINDS[name](self)
                do(self._open[name])
            except Exception as error:  # Of other people's packages and of the network: any.
                self._failed.add(name)
                text = " ".join(str(error).split()) or type(error).__name__
                self._tell(
                    f"tracker {name} failed and is left out for now: {text}. The run goes on; its "
                    "own files hold everything."
                )

    def id_of(self, name: str) -> str | None:
        """The run's id there, if it was begun."""
        return self._ids().get(name)

    def keep_id(self, name: str, value: str) -> None:
        """Stores it in a file that appears whole."""
        text = json.dumps(self._ids() | {name: value}, indent=1) + "\n"
        places.write_text(self._workdir / IDS_FILE, text)

    def _ids(self) -> dict[str, str]:
        path = self._workdir / IDS_FILE
        return json.loads(path.read_text()) if path.exists() else {}

    @property
    def about(self) -> tuple[str, str, dict[str, Any], pathlib.Path]:
        """Project, name of the run, settings and work directory."""
        return self._project, self._workdir.name, self._settings, self._workdir


class _Wandb:
    """https://docs.wandb.ai: a mode, key or server of one's own are set as W&B itself has it."""

    def __init__(self, owner: Trackers):
        wandb: Any = importlib.import_module("wandb")
        project, name, settings, workdir = owner.about
        if (run_id := owner.id_of("wandb")) is None:
            run_id = uuid.uuid4().hex[:12]
            owner.keep_id("wandb", run_id)
        self._run = wandb.init(
            project=project, name=name, id=run_id, resume="allow", config=settings, dir=str(workdir)
        )
        self._stages: set[str] = set()

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        # W&B's own step only grows; after a kill ours goes back to the checkpoint.
        if stage not in self._stages:
            self._run.define_metric(f"{stage}/step")
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            self._stages.add(stage)
        sent = {f"{stage}/{key}": value for key, value in values.items()}
        self._run.log({f"{stage}/step": step, **sent})

    def summary(self, values: Mapping[str, float]) -> None:
        self._run.summary.update(dict(values))

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    """https://mlflow.org: MLFLOW_TRACKING_URI says where, as MLflow itself has it."""

    def __init__(self, owner: Trackers):
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")  # Seconds.
        mlflow: Any = importlib.import_module("mlflow")
        self._metric = mlflow.entities.Metric
        self._client = mlflow.MlflowClient()
        project, name, settings, _ = owner.about
        self._id = owner.id_of("mlflow")
        if self._id is None:
            found = self._client.get_experiment_by_name(project)
            place = found.experiment_id if found else self._client.create_experiment(project)
            self._id = self._client.create_run(place, run_name=name).info.run_id
            owner.keep_id("mlflow", self._id)
            self._client.log_dict(self._id, settings, "config.json")
        self._client.update_run(self._id, status="RUNNING")

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        self._send({f"{stage}/{key}": value for key, value in values.items()}, step)

    def summary(self, values: Mapping[str, float]) -> None:
        self._send(values, 0)

    def _send(self, values: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        # MLflow refuses other characters in names.
        names = {re.sub(r"[^\w\-. :/]", "_", key): value for key, value in values.items()}
        metrics = [self._metric(key, float(value), now, step) for key, value in names.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self) -> None:
        self._client.update_run(self._id, status="FINISHED")


_KINDS: dict[str, Callable[[Trackers], Any]] = {"wandb": _Wandb, "mlflow": _Mlflow}
