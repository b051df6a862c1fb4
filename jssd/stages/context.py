"""What every stage of a run shares: the config, the work directory, the mesh, the base model."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jssd import hosts, phases, places
from jssd.config import Config, digest, to_dict
from jssd.data import samples
from jssd.data.answers import Answers
from jssd.data.tokenizer import Tokenizer
from jssd.metrics import Writer
from jssd.model import transformer
from jssd.model.config import ModelConfig
from jssd.plan import architectures, fit
from jssd.trackers import Trackers
from jssd.weights import checksums, gguf, hf, hub

# Of section train: how a machine does it and what it keeps, but for rounding never what is learned.
# They may change while a run is under way, as when it goes on with more devices or fewer.
MACHINE = (
    "attention",
    "grad_accum",
    "keep_last",
    "log_every",
    "loss_chunk",
    "remat",
    "save_every",
    "unroll",
)


@dataclasses.dataclass(frozen=True)
class Run:
    """One experiment under way in one work directory."""

    config: Config
    workdir: pathlib.Path
    mesh: jax.sharding.Mesh
    within: pathlib.Path | None = None  # Work directory of the run this one is a part of.

    def base_folder(self) -> pathlib.Path:
        """The base model as a Hugging Face folder; a .gguf file becomes one in `base/`.

        Of a hub's model the commit is kept in `model.json`: a branch that moves on under way does
        not change what later stages read.
        """
        model = self.config.model
        asked = {"path": model.path, "revision": model.revision}
        file = (self.within or self.workdir) / "model.json"
        kept = read_json(file) if file.exists() else {}
        known = kept["commit"] if {**kept, **asked} == kept else ""
        folder = self.folder_of(model.path, "base", known or model.revision)
        if (commit := hub.commit(folder)) and not known:
            write_json(file, asked | {"commit": commit})
        return folder

    def folder_of(self, path: str, name: str, revision: str = "main") -> pathlib.Path:
        """Any model that a user names, likewise; a .gguf file becomes `name/`."""
        source = hub.resolve(path, revision)
        if source.suffix != ".gguf":
            return source
        folder = places.cache(self.within or self.workdir) / name
        return gguf.to_hf_folder(source, folder, self.config.model.dtype or None)

    def student_folder(self) -> pathlib.Path:
        """`export/`, whole and on this machine.

        Raises FileNotFoundError where it is not whole.
        """
        folder = self.workdir / "export"
        if not places.is_whole(folder):
            raise FileNotFoundError(f"{folder} does not exist or is not whole.")
        return places.fetch(folder, on_files=phases.beat)

    def verify_samples(self) -> None:
        """Raises ValueError when `samples/` is not as its manifest says. Sample files from
        elsewhere may come without one."""
        manifest = self.workdir / "samples" / samples.MANIFEST
        if manifest.exists():
            samples.verify(manifest.parent, read_json(manifest)["parts"])

    def tokenizer(self) -> Tokenizer:
        """The base model's tokenizer."""
        return Tokenizer(self.base_folder())

    def answers(self) -> Answers | None:
        """What finds the answer of a completion, where the loss is on answers only.

        Raises ValueError for a tokenizer without the marker `train.think_end`.
        """
        config = self.config.train
        if config.loss_on != "answer":
            return None
        return Answers(self.tokenizer(), config.think_end)

    def load(self, folder: pathlib.Path, dtype: str = "") -> tuple[ModelConfig, transformer.Params]:
        """A model from a Hugging Face folder, on the mesh; `dtype` "" follows the config.

        Raises:
          ValueError: a file is not as `weights.checksums` once found it, or see `hf.load`.
        """
        if jax.process_index() == 0:  # Elsewhere a host reads only what its devices hold.
            checksums.verify(folder)
        return hf.load(folder, dtype=as_dtype(dtype or self.config.model.dtype))

    def writer(self, stage: str) -> Writer:
        """The log of one stage; silent on all processes but the first. A shard has its own, and
        no tracker sees it: it only draws."""
        first, names = jax.process_index() == 0, self.config.trackers
        if self.config.shard:
            folder = self.workdir / stage / f"shard-{self.config.shard.partition('/')[0]}"
            return Writer(folder, enabled=first)
        there = Trackers(
            names,
            self.workdir,
            project=self.config.name or "jssd",
            settings=to_dict(self.config),
            tell=functools.partial(print, flush=True),
        )
        return Writer(
            self.workdir / stage, enabled=first, trackers=there if first and names else None
        )


def check(run: Run, stages: Sequence[str]) -> None:
    """Refuses, before anything is loaded, a config that model and mesh can't hold (`plan.fit`), and
    tells where hosts sample with fewer parts than training has."""
    if not set(stages) & {*fit.TRAIN, *fit.DRAW}:
        return
    source = run.config.model
    try:
        cfg, _ = architectures.read(source)
    except FileNotFoundError:  # A hub's model that is not here yet.
        cfg, _ = architectures.read(dataclasses.replace(source, path=str(run.base_folder())))
    fit.check(run.config, cfg, run.mesh, stages)
    if (note := hosts.note(run.mesh)) and set(stages) & set(fit.DRAW) and not jax.process_index():
        print(note, flush=True)


def as_dtype(name: str):
    """The JAX dtype of a config value; None for ""."""
    return jnp.dtype(name) if name else None


def for_decoding(
    params: transformer.Params, cfg: ModelConfig, mesh: jax.sharding.Mesh
) -> transformer.Params:
    """Weights as the sampler wants them: unstacked, resharded once to `hosts.decode_mesh`.

    On several hosts each gets a whole copy on its own devices, and samples without the others.
    """
    with jax.set_mesh(mesh):
        params = jax.jit(transformer.unstack)(params)
    return _to_decode_mesh(params, functools.partial(transformer.abstract_unstacked, cfg), mesh)


def for_scoring(
    params: transformer.Params, cfg: ModelConfig, mesh: jax.sharding.Mesh
) -> transformer.Params:
    """Weights as the scorer wants them: stacked, on `hosts.decode_mesh` like `for_decoding`."""
    return _to_decode_mesh(params, functools.partial(transformer.abstract_params, cfg), mesh)


def _to_decode_mesh(params: Any, abstract: Callable[[], Any], mesh: jax.sharding.Mesh) -> Any:
    everywhere = hosts.decode_mesh(mesh)
    here = hosts.decode_mesh(mesh, jax.process_index())
    with jax.set_mesh(everywhere):
        like = abstract()

    def place(leaf: jax.Array, like: jax.ShapeDtypeStruct) -> jax.Array:
        assert isinstance(like.sharding, jax.NamedSharding)
        leaf = jax.device_put(leaf, like.sharding)
        if jax.process_count() == 1:
            return leaf
        shards = {shard.device: shard.data for shard in leaf.addressable_shards}
        return jax.make_array_from_single_device_arrays(
            leaf.shape,
            jax.NamedSharding(here, like.sharding.spec),
            [shards[device] for device in here.devices.flat],
        )

    return jax.tree.map(place, params, like)


def freeze_settings(folder: pathlib.Path, settings: dict) -> None:
    """Writes the settings a folder is made with, or checks them against those it was begun with.

    Raises:
      ValueError: the folder was begun with other settings; names those that differ.
    """
    path = folder / "settings.json"
    if path.exists():
        found = read_json(path)
        if digest(found) != digest(settings):
            changed = [
                key for key in sorted({*found, *settings}) if found.get(key) != settings.get(key)
            ]
            told = "; ".join(
                f"{key} was {found.get(key)}, now {settings.get(key)}" for key in changed
            )
            raise ValueError(
                f"{folder} was begun with other settings: {told}. "
                "Use a fresh --workdir or restore them."
            )
        return
    write_json(path, settings)


def trained(config: Config) -> dict:
    """What decides the weights that come out: sections filter and train as a plain dict, without
    `MACHINE`, and without adapters where there are none."""
    tree = section(config, "filter", "train")
    without = MACHINE if config.train.lora.rank else (*MACHINE, "lora")
    if config.train.loss_on == "response":  # They say nothing then, and older folders lack them.
        del tree["filter"]["unclosed"]
        without = (*without, "loss_on", "think_end")
    return tree | {"train": {k: v for k, v in tree["train"].items() if k not in without}}


def section(config: Config, *names: str) -> dict:
    """Some sections of the config as a plain dict."""
    tree = to_dict(config)
    return {name: tree[name] for name in names}


def read_json(path: pathlib.Path) -> dict:
    """A JSON file. Raises ValueError naming it when it is broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not valid JSON: {error}. Delete it and run the stage again."
        ) from None


def write_json(path: pathlib.Path, tree) -> None:
    """Writes a JSON file that appears whole. On many hosts the first process writes."""
    write_text(path, json.dumps(tree, indent=1, ensure_ascii=False) + "\n")


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text file that appears whole. On many hosts the first process writes."""
    if jax.process_index() == 0:
        places.write_text(path, text)
