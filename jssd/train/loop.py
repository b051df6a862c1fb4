"""The training run as a story: take a batch, step, log, save, stop on a bad loss."""

import dataclasses
import math
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np

from jssd import phases
from jssd.metrics import Writer
from jssd.model.config import ModelConfig
from jssd.train import flops
from jssd.train.step import Batch, Metrics, TrainState, place_batch


class Batches(Protocol):
    """An endless stream of host batches, as `data/pipeline.py` makes, with a position to save."""

    def __next__(self) -> list[dict[str, np.ndarray]]: ...

    def get_state(self) -> Any:
        """The position after the last batch taken, small and serialisable."""
        ...


class Checkpointer(Protocol):
    """Where states are saved."""

    def save(self, step: int, state: TrainState, data_state: Any, metrics: dict) -> None:
        """Saves all that a resumed run needs. `metrics` are the floats of the step, e.g. `loss`.

        The next step donates the arrays of `state`: they must be read when this returns.
        """
        ...


def train(
    state: TrainState,
    batches: Batches,
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]],
    *,
    cfg: ModelConfig,
    num_steps: int,
    log_every: int,
    save_every: int,
    writer: Writer,
    checkpointer: Checkpointer,
    should_stop: Callable[[int], bool] = lambda step: False,
    adapters: int = 0,
) -> TrainState:
    """Runs `train_step` until `num_steps`, logging and saving on the way. Returns the last state.

    Args:
      state: where to go on from; donated. A restored one gives the run an uninterrupted one gives.
      batches: standing at the batch after `state.step`.
      train_step: of `make_train_step`.
      cfg: the architecture, to count FLOPs.
      num_steps: updates of the whole run, those before `state.step` included.
      log_every: steps between two log lines.
      save_every: steps between two checkpoints; the last step is always saved.
      writer: receives the scalars and events.
      checkpointer: receives the states.
      should_stop: asked after each step; True saves and returns early, with `state.step` short of
        `num_steps`. Every process must answer alike.
      adapters: `flops.adapter_weights`, to count FLOPs; 0 where all weights are trained.

    Raises:
      FloatingPointError: the loss or the gradient norm is not finite. The update was not applied.
      ValueError: the data ended before `num_steps`.
    """
    first = int(state.step) + 1
    saved = first - 1
    meter = _Meter(cfg, adapters)
    compiled: set[tuple[int, ...]] = set()  # Shapes of micro-batches that had their first step.
    with writer.progress(num_steps, "sft", done=saved) as advance:
        for step in range(first, num_steps + 1):
            started = time.perf_counter()
            with phases.phase("data_wait"):
                batch = place_batch(_next(batches, step, num_steps))
            waited = time.perf_counter() - started
            shapes = {micro["inputs"].shape for micro in batch}
            with phases.phase("step" if shapes <= compiled else "compile"):
                state, device_metrics = train_step(state, batch)
                # Waits for the step: a bad loss must stop the run before anything of it is saved.
                metrics = {name: float(x) for name, x in jax.device_get(device_metrics).items()}
                phases.beat(step)
            phases.hold(True)
            seconds = time.perf_counter() - started
            if step == first:
                writer.event("first_step", step=step, seconds=round(seconds, 3))
            if shapes <= compiled:
                meter.add(metrics, seconds, waited)
            compiled |= shapes
            _check_finite(metrics, step, saved, writer)
            last = step == num_steps or should_stop(step)
            if step % log_every == 0 or last:
                writer.scalars(step, _report(metrics, meter))
            advance(1)
            if step % save_every == 0 or last:
                saving = time.perf_counter()
                with phases.phase("save"):
                    checkpointer.save(step, state, batches.get_state(), metrics)
                saved = step
                took = round(time.perf_counter() - saving, 3)
                writer.event("saved", step=step, seconds=took)
            if last:
                break
    return state


def _next(batches: Batches, step: int, num_steps: int) -> list[dict[str, np.ndarray]]:
    try:
        return next(batches)
    except StopIteration:
        raise ValueError(
            f"the data ended before step {step} of train.num_steps={num_steps}. "
            "Give batches that repeat, or fewer steps."
        ) from None


def _check_finite(metrics: dict[str, float], step: int, saved: int, writer: Writer) -> None:
    loss, grad_norm = metrics["loss"], metrics["grad_norm"]
    if math.isfinite(loss) and math.isfinite(grad_norm):
        return
    writer.event("not_finite", step=step, loss=str(loss), grad_norm=str(grad_norm))
    good = f"The last good checkpoint is step {saved}" if saved else "There is no checkpoint yet"
    raise FloatingPointError(
        f"step {step}: loss={loss}, grad_norm={grad_norm} is not finite; the update was not "
        f"applied. {good}. Lower train.learning_rate or train.clip_norm, or compute in float32 "
        "(model.compute_dtype), and run again."
    )


@dataclasses.dataclass
class _Meter:
    """Work and time since the last log line. Steps that compile are left out."""

    cfg: ModelConfig
    adapters: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    steps: int = 0
    tokens: float = 0.0
    work: float = 0.0  # FLOPs.

    def add(self, metrics: dict[str, float], seconds: float, waited: float) -> None:
        self.seconds += seconds
        self.waited += waited
        self.steps += 1
        self.tokens += metrics["tokens"]
        self.work += flops.train_flops(
            self.cfg,
            tokens=metrics["tokens"],
            response_tokens=metrics["response_tokens"],
            attention_pairs=metrics["attention_pairs"],
            adapters=self.adapters,
        )

    def take(self) -> dict[str, float | None]:
        """Speeds since the last call: None where nothing was measured, by fixed keys."""
        rate = lambda amount: amount / self.seconds if self.steps else None
        device = jax.local_devices()[0]  # Others' memory cannot be asked for.
        peak = flops.peak_flops(device.device_kind)
        per_device = rate(self.work / jax.device_count())
        if peak is not None:
            speed = {
                "tflops_per_device": None if per_device is None else per_device / 1e12,
                "mfu": None if per_device is None else per_device / peak,
            }
        else:  # No peak on file: the speed itself, and no share of a made-up number.
            speed = {"gflops_per_device": None if per_device is None else per_device / 1e9}
        taken = {
            "seconds_per_step": self.seconds / self.steps if self.steps else None,
            "data_wait": rate(self.waited),
            "tokens_per_s": rate(self.tokens),
            **speed,
            **_memory(device),
        }
        self.seconds = self.waited = self.tokens = self.work = 0.0
        self.steps = 0
        return taken


def _report(metrics: dict[str, float], meter: _Meter) -> dict[str, float | None]:
    """The log line: the step's own numbers, then speeds since the last line."""
    keys = ["loss", "kept_mass", "compression", "grad_norm", "learning_rate"]
    keys += ["router_aux_loss"] if meter.cfg.is_moe else []
    counts = ("tokens", "response_tokens", "unsupported_tokens")
    return {**{key: metrics[key] for key in (*keys, *counts)}, **meter.take()}


def _memory(device: Any) -> dict[str, float]:
    """Peak memory in GiB: of the device where it keeps count, else of this process."""
    stats = device.memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return {"device_peak_gib": stats["peak_bytes_in_use"] / 2**30}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"process_peak_gib": peak * (1 if sys.platform == "darwin" else 1024) / 2**30}
