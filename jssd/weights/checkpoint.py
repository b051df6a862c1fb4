"""Checkpoints of a training run: saved while training goes on, restored on any mesh.

Arrays are stored as they lie, with the vocabulary padded as the mesh had it. Restoring cuts or adds
zeros to what the mesh of then asks for; the recorded shapes, which must agree, are without padding.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from jssd.weights import names
from jssd.weights.files import shorten


@runtime_checkable
class State(Protocol):
    """A dataclass with what a run goes on from, such as `TrainState`."""

    @property
    def params(self) -> Any:
        """Weights."""
        ...

    @property
    def opt_state(self) -> Any:
        """The optimizer's moments and counters."""
        ...

    @property
    def step(self) -> Any:
        """Updates applied so far."""
        ...


StateT = TypeVar("StateT", bound=State)


class Checkpointer:
    """Saves states in `<folder>/<step>/` and keeps the newest few and the one of lowest loss.

    Saving goes on in the background after `save` returns; a step appears under its name only when
    it is whole. Leave it as a context manager, or call `wait`, before the process ends. On many
    hosts all processes make the same calls.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        keep_last: int,
        meta: Mapping[str, Any] | None = None,
        vocab_size: int | None = None,
        read_only: bool = False,
    ):
        """Opens or creates the folder. What killed saves left there is gone by the next save.

        Args:
          folder: a path, or a gs:// address.
          keep_last: newest checkpoints kept, besides the best.
          meta: facts stored with every checkpoint and given back on restoring; must be JSON.
          vocab_size: of the model; what embedding and head have beyond it is padding. None is no
            padding.
          read_only: the folder may be another job's, which saves to it: nothing in it is touched.
        """
        self._folder = str(folder) if "://" in str(folder) else str(pathlib.Path(folder).absolute())
        self._meta = dict(meta or {})
        self._vocab_size = vocab_size
        policies = preservation_policy
        keep = policies.AnyPreservationPolicy(
            [
                policies.LatestN(n=keep_last),
                # Sorted with the highest loss first; the last one stays.
                policies.BestN(get_metric_fn=_loss, reverse=True, n=1),
            ]
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=keep,
            best_fn=_loss,  # Stores the metrics with each checkpoint; the policy needs them.
            best_mode="min",
            cleanup_tmp_directories=not read_only,
            create=not read_only,
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def save(self, step: int, state: State, data_state: Any, metrics: Mapping[str, float]) -> None:
        """Starts to save. When it returns the arrays of `state` are copied and may be donated.

        Args:
          step: its name; above every step saved before.
          data_state: position in the data, JSON.
          metrics: of the step; `loss` decides which checkpoint is the best.

        Raises:
          ValueError: `step` is not above the latest.
          OSError: the disk has no room for it, or an earlier save in the background failed.
        """
        with self._told():
            self._manager.check_for_errors()
        self._check_room(step, state)
        rest = {"opt_state": state.opt_state, "step": state.step}
        leaves, others = self._leaves(state.params), self._leaves(rest)
        meta = {"meta": self._meta, "leaves": leaves, "rest": others}
        saved = self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(state.params),
                opt_state=ocp.args.StandardSave(rest),
                data=ocp.args.JsonSave({"state": data_state}),
                meta=ocp.args.JsonSave(meta),
            ),
            metrics={name: float(value) for name, value in metrics.items()},
        )
        if not saved:
            raise ValueError(
                f"step {step} must be above the latest checkpoint {self.latest_step()} in "
                f"{self._folder}."
            )

    def latest_step(self) -> int | None:
        """The newest whole checkpoint, or None."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The checkpoint of lowest loss among those kept, or None."""
        return self._manager.best_step()

    def restore_latest(self, abstract_state: StateT) -> tuple[StateT, Any, dict] | None:
        """(state, data_state, meta) of the newest checkpoint, or None if there is none.

        Args:
          abstract_state: a State of ShapeDtypeStructs; their shardings, if any, say where arrays
            go.

        Raises:
          ValueError: the checkpoint is damaged, or its arrays are not those of `abstract_state`.
        """
        step = self.latest_step()
        if step is None:
            return None
        rest = {"opt_state": abstract_state.opt_state, "step": abstract_state.step}
        stored = self._meta_of(step)
        self._compare(step, stored, abstract_state.params, rest)
        found = self._restore(
            step,
            params=_placed(abstract_state.params),
            opt_state=_placed(rest),
            data=ocp.args.JsonRestore(),
        )
        state = dataclasses.replace(abstract_state, params=found["params"], **found["opt_state"])  # pyright: ignore
        return state, found["data"]["state"], stored["meta"]

    def restore_params(self, step: int | str, abstract_params: dict) -> dict:
        """The weights of one checkpoint.

        Args:
          step: its number, "latest" or "best".
          abstract_params: tree of ShapeDtypeStructs; their shardings, if any, say where arrays go.

        Raises:
          FileNotFoundError: no such checkpoint.
          ValueError: it is damaged, or its weights are not those of `abstract_params`.
        """
        number = self._number(step)
        self._compare(number, self._meta_of(number), abstract_params)
        return self._restore(number, params=_placed(abstract_params))["params"]

    def meta(self, step: int | str) -> dict:
        """The facts stored with one checkpoint.

        Args:
          step: its number, "latest" or "best".

        Raises:
          FileNotFoundError: no such checkpoint.
          ValueError: it is damaged.
        """
        return self._meta_of(self._number(step))["meta"]

    def wait(self) -> None:
        """Returns when the save in the background is whole; raises OSError if it failed."""
        with self._told():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def close(self) -> None:
        """Waits, then lets go of the folder."""
        try:
            self.wait()
        finally:
            self._manager.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turns whatever a save in the background failed with into one line."""
        try:
            yield
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise OSError(
                f"{self._folder}: saving a checkpoint failed: {reason} The checkpoints before it "
                "are whole."
            ) from error

    def _check_room(self, step: int, state: State) -> None:
        """Refuses a save that the disk cannot hold, before anything of it is written."""
        if "://" in self._folder:
            return
        leaves = jax.tree.leaves((state.params, state.opt_state))
        shards = [shard.data for leaf in leaves for shard in leaf.addressable_shards]
        needed = sum(data.nbytes for data in shards)
        free = shutil.disk_usage(self._folder).free
        if free < needed:
            raise OSError(
                f"{self._name(step)} needs up to {needed / 2**30:.2f} GiB, but the disk has "
                f"{free / 2**30:.2f} GiB left. The checkpoints before it are whole."
            )

    def _number(self, step: int | str) -> int:
        names = {"latest": self.latest_step, "best": self.best_step}
        number = names[step]() if isinstance(step, str) else step
        steps = self._manager.all_steps()
        if number is None or number not in steps:
            there = ", ".join(str(s) for s in sorted(steps)) or "none"
            raise FileNotFoundError(f"{self._folder} has no checkpoint {step}; there: {there}.")
        return number

    def _name(self, step: int) -> str:
        return f"{self._folder}/{step}"

    def _meta_of(self, step: int) -> dict:
        return self._restore(step, meta=ocp.args.JsonRestore())["meta"]

    def _leaves(self, tree: Any) -> dict[str, str]:
        """Path of each array -> its dtype and shape without padding, such as "float32[3,4]"."""
        told = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            name = str(getattr(path[-1], "key", ""))
            shape = names.unpadded(name, leaf.shape, self._vocab_size)
            told[jax.tree_util.keystr(path)] = f"{leaf.dtype.name}[{','.join(map(str, shape))}]"
        return told

    def _compare(self, step: int, stored: dict, params: Any, rest: Any = None) -> None:
        """Refuses a checkpoint whose arrays are others than expected. Orbax would cast a dtype, or
        cut an array, without a word.
        """
        found, expected = stored["leaves"], self._leaves(params)
        if rest is not None:
            found, expected = found | stored["rest"], expected | self._leaves(rest)
        wrong = [
            f"{name} is {found.get(name, 'missing')}, expected {expected.get(name, 'nothing')}"
            for name in sorted(found.keys() | expected.keys())
            if found.get(name) != expected.get(name)
        ]
        if wrong:
            raise ValueError(
                f"checkpoint {self._name(step)} was made with another model or optimizer: "
                f"{shorten(wrong, 6)}. Give this run another workdir, or the settings that the "
                "checkpoint was made with."
            )

    def _restore(self, step: int, **items) -> Any:
        """Reads items of one checkpoint. Any trouble with one becomes a line that names it."""
        found = {}
        for item, args in items.items():
            try:
                # One by one, so that an error belongs to an item.
                found[item] = self._manager.restore(step, args=ocp.args.Composite(**{item: args}))[
                    item
                ]
            except Exception as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
                raise ValueError(
                    f"checkpoint {self._name(step)}: its {item} cannot be read ({reason}). Delete "
                    "that folder to go on "
                    "from the checkpoint before it."
                ) from error
        return found


def _loss(metrics: Any) -> float:
    return metrics["loss"]


def _placed(tree: Any) -> Any:
    """What to restore of the abstract tree. Leaves without a sharding go to the default device.

    Not strict: where padding differs, arrays are cut or filled up with zeros.
    """
    default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    placed = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or default
        ),
        tree,
    )
    return ocp.args.StandardRestore(placed, strict=False)
