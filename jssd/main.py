"""The command: flags, config, mesh, then the named stages in order.

    python -m jssd.main --config=configs/demo.py --workdir=runs/demo --stages=sample,sft

A user's mistake ends in one line and exit code 2; a run that cannot go on (a loss that is not
finite, a full disk) in one line and exit code 1. `survival.py` has the other codes.
"""

import contextlib
import copy
import dataclasses
import importlib
import importlib.util
import os
import pathlib
import re
import sys
import traceback
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from jssd import owner, phases, places, processes, survival
from jssd.config import STAGES, Config, to_dict
from jssd.rules import validate

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file in configs/, e.g. configs/demo.py or configs/demo.py:smoke."
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run, also in a bucket (gs://...), else runs/ and the config's name. The same "
    "command goes on where it was stopped.",
)
_STAGES = flags.DEFINE_list(
    "stages", None, f"Which stages to run, of {','.join(STAGES)}; else those of the config."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Join the other processes of a TPU pod, SLURM step or Kubernetes job."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0, to join processes started by hand."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "With --coordinator: how many.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "With --coordinator: which this is, from 0.")

_SEEDS_A_ROUND = 1_000_000  # More than anyone repeats a run: no two runs share a seed.
_ROOT = pathlib.Path("/")
# What XLA says of a collective whose other end is gone may come as a ValueError. It is no mistake.
_OF_THE_RUNTIME = re.compile(
    "(ABORTED|CANCELLED|DATA_LOSS|DEADLINE_EXCEEDED|FAILED_PRECONDITION|INTERNAL|INVALID_ARGUMENT|"
    "RESOURCE_EXHAUSTED|UNAVAILABLE|UNKNOWN): "
)


def main(argv: list[str]) -> None:
    """Runs the stages; turns expected errors into one line."""
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # JAX and Orbax tell every step they take.
    guard = survival.start()
    try:
        if len(argv) > 1:
            raise ValueError(
                f"unexpected argument {argv[1]!r}. Flags are --config, --workdir and --stages."
            )
        if _CONFIG.value is None:
            raise ValueError("give --config=configs/NAME.py.")
        stages = _STAGES.value or list(_CONFIG.value.stages)
        if "plan" in stages and (_DISTRIBUTED.value or _COORDINATOR.value):
            raise ValueError(
                "--stages=plan holds no devices and runs in one process: start it alone."
            )
        _leave_absent_hardware_alone()
        joins = bool(_DISTRIBUTED.value or _COORDINATOR.value)
        guard.configure(_CONFIG.value.survival, joins=joins)
        _check_stages(_CONFIG.value, stages)  # A mistake waits for nobody.
        places.check_reach(_workdir())
        if joins:  # Those that do not come are to be named.
            guard.beat_in(_home(_CONFIG.value, _workdir()))
        _join_processes(_CONFIG.value, guard)
        run_stages(_CONFIG.value, _workdir(), stages)
        if guard.count > 1:  # JAX's own end waits for minutes only, and a report may take more.
            processes.wait_for_all("all stages are done")
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        if guard.count > 1 and _OF_THE_RUNTIME.match(str(error)):
            _fail_among_others(guard)
        _leave(error, survival.MISTAKE)
    except (OSError, FloatingPointError) as error:
        _leave(error, survival.FAILED)
    except survival.Stopped:
        guard.stopped()
    except Exception:
        if guard.count == 1:
            raise
        _fail_among_others(guard)
    guard.finish()


def _fail_among_others(guard: survival.Guard) -> NoReturn:
    if guard.stopping() and not phases.current().holds:
        guard.stopped()  # The others were told as well, and may have ended in the middle of a step.
    traceback.print_exc()
    guard.failed()


def _workdir() -> pathlib.Path:
    if not _WORKDIR.value and not _CONFIG.value.name:
        raise ValueError("the config has no name for a folder in runs/. Give --workdir=FOLDER.")
    return places.path(_WORKDIR.value or f"runs/{_CONFIG.value.name}")


def _leave_absent_hardware_alone() -> None:
    """Keeps JAX from looking for TPUs and GPUs where only their compilers are installed.

    Stage plan needs them (extra `plan`). They would find nothing, and complain at length. Only a
    machine without any such device is left to its CPU, and only if nobody chose a platform.
    """
    plugins = importlib.util.find_spec("jax_plugins")
    folders = plugins.submodule_search_locations if plugins else None
    names = {path.name for folder in folders or () for path in pathlib.Path(folder).iterdir()}
    compilers = importlib.util.find_spec("libtpu") or "xla_cuda13" in names
    others = names - {"xla_cuda13", "__pycache__", "__init__.py"}
    if "JAX_PLATFORMS" in os.environ or not compilers or others:
        return
    devices = ("dev/accel*", "dev/vfio/*", "dev/nvidia*", "dev/dxg")
    if any(next(_ROOT.glob(pattern), None) for pattern in devices):
        return
    # On the PCI bus without a device file: a driver is missing, and JAX says so better.
    vendors = {path.read_text().strip() for path in _ROOT.glob("sys/bus/pci/devices/*/vendor")}
    if not vendors & {"0x1ae0", "0x10de"}:  # Google, NVIDIA.
        os.environ["JAX_PLATFORMS"] = "cpu"


def _join_processes(config: Config, guard: survival.Guard) -> None:
    """Joins the other processes, where flags ask for it; before JAX first looks at devices."""
    coordinator, count, index = _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    if (coordinator, count, index) != (None, None, None):
        if coordinator is None or count is None or index is None:
            raise ValueError("--coordinator, --num_processes and --process_id go together.")
        if not 0 <= index < count:
            raise ValueError(f"--process_id={index} must be in [0, {count}).")
    if _DISTRIBUTED.value or coordinator:
        processes.join(guard, config.survival, coordinator, count, index)


def run_stages(config: Config, workdir: pathlib.Path, stages: list[str]) -> None:
    """Runs `stages` in their fixed order; with `config.seeds` above 1, once in each
    `workdir/seed-*`, and with `config.rounds` above 1 so in each `workdir/round-*`.

    Raises:
      ValueError: an unknown stage, a broken config, or a work directory of another experiment.
    """
    _check_stages(config, stages)
    workdir.mkdir(parents=True, exist_ok=True)
    for stage in ("toy", "plan"):  # They hold no devices, and no run of theirs.
        if stage in stages:
            print(f"== {stage} ({workdir})", flush=True)
            # Late: config mistakes answer before anything loads.
            importlib.import_module(f"jssd.stages.{stage}").run(config, workdir)
    stages = [stage for stage in stages if stage not in ("toy", "plan")]
    if not stages:
        return
    if stages == ["report"]:  # Of a run that may be under way.
        _run_stages(config, workdir, stages)
        return
    home = _home(config, workdir)
    home.mkdir(parents=True, exist_ok=True)
    with owner.owned(home) if survival.rank() == 0 else contextlib.nullcontext():
        survival.beat_in(home)
        _run_stages(config, workdir, stages)


def _home(config: Config, workdir: pathlib.Path) -> pathlib.Path:
    """Where a job keeps its lock, heartbeats and ledger: shards share all else of a work directory,
    and each is a job of its own."""
    return workdir / f"shard-{config.shard.partition('/')[0]}" if config.shard else workdir


def _check_stages(config: Config, stages: list[str]) -> None:
    validate(config, stages)
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        raise ValueError(f"--stages={','.join(unknown)} must be of {','.join(STAGES)}.")


def _run_stages(config: Config, workdir: pathlib.Path, stages: list[str]) -> None:
    """Those that need the run's devices, and the report."""
    if config.compile_cache:
        _cache_programs(places.cache(workdir) / ".cache")
    seeds = [f"seed-{i}" for i in range(config.seeds)] if config.seeds > 1 else [""]
    rounds = [f"round-{i}" for i in range(config.rounds)] if config.rounds > 1 else [""]
    once = dataclasses.replace(config, rounds=1)
    runs = {name: _reseeded(once, i) for i, name in enumerate(seeds)}
    for index, name in enumerate(rounds):
        if index:
            last = workdir / rounds[index - 1]
            runs = {
                seed: _next_round(found, last / seed / "export") for seed, found in runs.items()
            }
            if stages != ["report"]:
                _need_exports(runs)
        folders = {workdir / name / seed: found for seed, found in runs.items()}
        _run_seeds(folders, workdir / name, stages)


def _run_seeds(runs: dict[pathlib.Path, Config], workdir: pathlib.Path, stages: list[str]) -> None:
    """The stages of each repetition, by its folder, and one report of them all."""
    for folder, seeded in runs.items():
        _run_once(
            seeded, folder, [stage for stage in STAGES if stage in stages and stage != "report"]
        )
    if "report" in stages:
        from jssd.stages import report  # Late: config mistakes answer before JAX loads.

        report.run(list(runs), workdir / "report")


def _run_once(config: Config, workdir: pathlib.Path, stages: list[str]) -> None:
    from jssd import sharding, trackers
    from jssd.stages import context, evaluate, export, judges, mechanism, sample, sft, sweep

    functions = {
        "sample": sample.run,
        "sft": sft.run,
        "export": export.run,
        "evaluate": evaluate.run,
        "mechanism": mechanism.run,
        "sweep": sweep.run,
    }
    workdir.mkdir(parents=True, exist_ok=True)
    context.write_json(workdir / "config.json", to_dict(config))
    if not stages:  # A report needs no mesh: its run, or plan, may be another machine's.
        return
    trackers.check(config.trackers)
    run = context.Run(config, workdir, sharding.make_mesh(config.mesh))
    if {"evaluate", "sweep"} & set(stages):
        evaluate.check(run)
    if {"sft", "sweep"} & set(stages):
        judges.check(run)
    if config.model.path.endswith(".gguf"):  # One process converts it, and the others find it.
        if survival.rank() == 0:
            run.base_folder()
        processes.wait_for_all("the base model is converted")
    context.check(run, stages)
    with phases.ledger(_home(config, workdir) if survival.rank() == 0 else None):
        for stage in stages:
            survival.check_alone()
            print(f"== {stage} ({workdir})", flush=True)
            functions[stage](run)


def _reseeded(config: Config, index: int) -> Config:
    config = copy.deepcopy(config)
    for section in (config.sampling, config.train, config.evaluate):
        section.seed += index
    return dataclasses.replace(config, seeds=1)


def _next_round(config: Config, export: pathlib.Path) -> Config:
    """The config of the run that starts from what the same run of the last round exports."""
    # The noise of a draw is its address: with the old seed it would favour the same tokens again.
    config = _reseeded(config, _SEEDS_A_ROUND)
    config.model.path, config.model.revision = str(export), "main"
    return config


def _need_exports(runs: dict[str, Config]) -> None:
    for found in runs.values():
        if not places.is_whole(places.path(found.model.path)):
            raise FileNotFoundError(
                f"{found.model.path} does not exist, but the next round starts from it. Run stages "
                "sample, sft and export of all rounds together."
            )


def _cache_programs(folder: pathlib.Path) -> None:
    import jax

    jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _leave(error: Exception, code: int) -> NoReturn:
    if isinstance(error, OSError) and error.filename and error.strerror:
        text = f"{error.filename}: {error.strerror}."
    elif isinstance(error, OSError) and error.errno:
        text = f"{error.strerror} while writing under {_workdir()}."
    else:
        text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, places.Trouble):
        text += " What was finished before is intact: run the same command again."
    elif code == 1 and isinstance(error, OSError):
        text += " What was finished before is intact: make room and run the same command again."
    print(f"jssd: error: {text}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    survival.fail(code, text)
    sys.exit(code)


def _parse(argv: list[str]) -> list[str]:
    """Absl's parsing, with a mistake in one line instead of a traceback or the whole usage text."""
    try:
        return flags.FLAGS(argv)
    except (flags.Error, KeyError, ValueError, TypeError, OSError, SyntaxError) as error:
        # The message of a KeyError is quoted by str; its argument is not.
        _leave(ValueError(error.args[0]) if isinstance(error, KeyError) else error, 2)


if __name__ == "__main__":
    app.run(main, flags_parser=_parse)
