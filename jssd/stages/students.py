"""What a run has trained: the weights of one of its checkpoints, adapters merged into the base."""

import copy
import dataclasses
import re

import jax
import jax.numpy as jnp

from jssd import places
from jssd.config import LoraConfig, ModelSource
from jssd.model import lora, transformer
from jssd.model.config import ModelConfig
from jssd.stages import context
from jssd.stages.context import Run, as_dtype
from jssd.weights import hf
from jssd.weights.checkpoint import Checkpointer
from jssd.weights.fingerprint import fingerprint


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """One step of a run's training, named by its folder."""

    run: Run
    step: int

    def load(self) -> tuple[ModelConfig, transformer.Params]:
        """The weights, on the mesh in force, in the dtypes that the run reads its base in.

        Raises ValueError: the checkpoint is damaged, or of another model than the run says.
        """
        cfg, base = self.run.load(self.run.base_folder())
        dtypes = jax.tree.map(lambda leaf: leaf.dtype, base)
        del base
        with Checkpointer(
            self.run.workdir / "checkpoints",
            keep_last=1,
            vocab_size=cfg.vocab_size,
            read_only=True,
        ) as saved:
            params = load(self.run, cfg, saved, self.step)
        return cfg, jax.tree.map(lambda leaf, dtype: leaf.astype(dtype), params, dtypes)


def checkpoint(run: Run, path: str, name: str) -> Checkpoint | None:
    """The checkpoint that `path` names, WORKDIR/checkpoints/STEP, of this run or of another; None
    if it names something else. What the weights belong to is read from that work directory.

    A base in a .gguf file that is not `run`'s own is converted into its folder `name/`.

    Raises:
      FileNotFoundError: there is no such checkpoint.
      ValueError: the work directory does not say which model was trained.
    """
    match = re.fullmatch(r"(.+)/checkpoints/(\d+)/?", path)
    if match is None:
        return None
    workdir, step = places.path(match[1]), int(match[2])
    if not (workdir / "checkpoints" / match[2]).exists():
        steps = [int(p.name) for p in workdir.glob("checkpoints/*") if p.name.isdigit()]
        there = ", ".join(map(str, sorted(steps))) or "none"
        raise FileNotFoundError(f"{path} does not exist. Checkpoints of {workdir}: {there}.")
    # A student of a sweep has no config of its own, and keeps what made it in its settings.
    told = [workdir / "config.json", workdir / "settings.json"]
    tree = next((context.read_json(file) for file in told if file.exists()), {})
    if not {"model", "train"} <= tree.keys():
        raise ValueError(
            f"{workdir} holds neither config.json nor settings.json that says which model was "
            f"trained. Export {path} where it was made, and name the export."
        )
    config = copy.deepcopy(run.config)
    config.model = ModelSource(**tree["model"])
    config.train.param_dtype = tree["train"]["param_dtype"]
    cut = tree["train"].get("lora")
    config.train.lora = LoraConfig(**cut) if cut else LoraConfig()
    own = config.model == run.config.model
    within = run.workdir if own else run.workdir / name
    return Checkpoint(Run(config, workdir, run.mesh, within=within), step)


def load(run: Run, cfg: ModelConfig, saved: Checkpointer, step: int | str, dtype=None):
    """The student after `step`, on the mesh in force.

    Args:
      step: as `Checkpointer.restore_params` takes it.
      dtype: of weights that an adapter was merged into; None is that of the base's file, as all
        others are. Without adapters the weights are those that training computed with, in
        `train.param_dtype`.

    Raises:
      FileNotFoundError, ValueError: as `Checkpointer.restore_params`; or the adapters were trained
        beside other weights than those of model.path.
    """
    config = run.config.train
    if not config.lora.rank:
        like = transformer.abstract_params(cfg, as_dtype(config.param_dtype))
        return saved.restore_params(step, like)
    name = fingerprint(run.load(run.base_folder())[1], cfg.vocab_size)
    if (trained := saved.meta(step)["fingerprint"]) != name:
        raise ValueError(
            f"{run.workdir}/checkpoints holds adapters of the weights {trained}, and model.path "
            f"gives {name}, which they do not belong to. Name the model they were trained with."
        )
    seen = jnp.dtype(config.param_dtype)

    def as_seen(weight: jax.Array) -> jax.Array:
        """Rounded if training computed with fewer bits."""
        if seen.itemsize >= weight.dtype.itemsize:
            return weight
        return weight.astype(seen).astype(weight.dtype)

    base = jax.tree.map(as_seen, hf.load(run.base_folder())[1])
    return lora.merge(base, adapters(run, cfg, saved, step), config.lora, dtype)


def adapters(run: Run, cfg: ModelConfig, saved: Checkpointer, step: int | str) -> lora.Adapters:
    """The adapters after `step`, float32, on the mesh in force."""
    return saved.restore_params(step, lora.abstract_adapters(cfg, run.config.train.lora))
