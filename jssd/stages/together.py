"""What the processes of a training run tell one another after each step: who stops, who is slow."""

import time

import jax
import numpy as np

from jssd import phases, survival
from jssd.metrics import Writer


class Together:
    """Asked after each step by all processes: whether to stop, all with the same answer.

    One small collective a step carries both what each was told and how long it was busy beside the
    device's work, as with data, saving, or a host that swaps. A slow chip does not show: the
    collectives of a step make all of them as slow.
    """

    def __init__(self, writer: Writer, *, every: int):
        """
        Args:
          writer: gets a line that names the slowest host.
          every: steps between two of them.
        """
        self._writer, self._every = writer, every
        self._busy = np.zeros(jax.process_count())
        self._steps = 0
        self._asked, self._worked = time.monotonic(), _device_seconds()

    def should_stop(self, step: int) -> bool:
        """Whether all processes stop after `step`, since one of them received SIGTERM."""
        if jax.process_count() == 1:
            return survival.stopping()
        from jax.experimental import multihost_utils

        now, worked = time.monotonic(), _device_seconds()
        busy = (now - self._asked) - (worked - self._worked)
        told = np.array([survival.stopping(), busy], np.float32)
        told_P2 = np.asarray(multihost_utils.process_allgather(told))
        self._busy += told_P2[:, 1]
        self._steps += 1
        if self._steps == self._every:
            self._tell(step)
        self._asked, self._worked = time.monotonic(), _device_seconds()
        return bool(told_P2[:, 0].any())

    def _tell(self, step: int) -> None:
        seconds = self._busy / self._steps
        slowest, median = int(seconds.argmax()), float(np.median(seconds))
        self._writer.event(
            "slowest_host", step=step, process=slowest,
            seconds=round(float(seconds[slowest]), 4), median=round(median, 4),
        )  # fmt: skip
        self._writer.line(
            f"slowest host: process {slowest}, busy {seconds[slowest]:.3f} s a step beside its "
            f"devices; the median is {median:.3f} s"
        )
        self._busy[:], self._steps = 0.0, 0


def _device_seconds() -> float:
    return phases.total("step") + phases.total("compile")
