"""Hugging Face folders: into sharded parameters, and back into a folder that serves as it is."""

import contextlib
import functools
import os
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np

from jssd import phases, places, processes
from jssd.model import config as model_config
from jssd.model import transformer
from jssd.weights import card, checksums, names, settings
from jssd.weights.files import (
    DTYPES,
    Planned,
    TensorFiles,
    declared_dtype,
    read_json,
    shorten,
    write_json,
    write_tensors,
)

# Buffers that old transformers stored beside the weights. They follow from config.json.
_IGNORED = re.compile(r".*\brotary_emb\.inv_freq")


def read_config(folder: str | os.PathLike) -> dict:
    """The folder's config.json.

    Raises:
      FileNotFoundError, ValueError: it is missing or broken.
    """
    return read_json(pathlib.Path(folder) / "config.json")


def load(
    folder: str | os.PathLike, *, dtype=None, shardings: dict | None = None
) -> tuple[model_config.ModelConfig, dict]:
    """Reads a model: (its configuration, params).

    Each device's part is read on its own and handed over before the next, so the host holds one
    device's part of one parameter at a time. Works in each process of a multi-host run: all read,
    each its own parts.

    Args:
      folder: config.json with model.safetensors, or with shards and their index.
      dtype: of all parameters. None keeps what is stored.
      shardings: tree of shardings like params; by default that of the mesh in force, or the default
        device without one.

    Raises:
      FileNotFoundError: a missing file.
      ValueError: a broken file; an architecture that is not implemented; or tensors that are
        missing, left over, of the wrong shape or type: one message that lists them all.
    """
    folder = pathlib.Path(folder)
    cfg = model_config.from_hf(read_config(folder))
    files = TensorFiles(folder)
    _check(files, cfg)
    like = transformer.abstract_params(cfg)
    leaves = {}
    for row in names.rows(cfg):
        if shardings is None:
            sharding = names.get(like, row.path).sharding
        else:
            sharding = names.get(shardings, row.path)
        shape = names.get(like, row.path).shape
        leaves[row.path] = _load_row(files, row, cfg, dtype, sharding, shape)
        files.release()
        phases.beat()
    return cfg, names.nest(leaves)


def save(
    folder: str | os.PathLike,
    params: dict,
    cfg: model_config.ModelConfig,
    *,
    source_folder: str | os.PathLike,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    eos_token_ids: tuple[int, ...] = (),
    dtype=None,
    shard_bytes: int = 5_000_000_000,
    name: str = "",
    base_model: str = "",
    notes: str = "",
) -> None:
    """Writes `params` as a Hugging Face folder, which appears whole (`places.publishing`).

    Everything but the weights comes from `source_folder`: config.json with only the dtype changed
    and both spellings of the rotary settings, tokenizer and chat template byte for byte; SHA256SUMS
    holds the checksums of all. On many hosts all processes call it, and all must see the same file
    system; process 0 writes.

    Args:
      temperature: with `top_k` and `top_p`, what generation_config.json serves. 0 is greedy; top_k
        0 is off.
      eos_token_ids: by default those of the source.
      dtype: of all tensors. None gives each the dtype it has in the source.
      shard_bytes: size of a file; what fits is one model.safetensors.
      name: title of the model card, by default the folder's name.
      base_model: hub id for the model card.
      notes: Markdown for the end of the model card.

    Raises:
      FileExistsError: `folder` exists and is not empty.
      ValueError: params do not fit `cfg`, or the licence of the source cannot be followed.
    """
    folder, source_folder = places.path(folder), pathlib.Path(source_folder)
    if places.is_whole(folder) and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is there already. Delete it to export again.")
    card.check(source_folder)
    plan = _plan(params, cfg, TensorFiles(source_folder), dtype)
    rows = {name: (row, place) for name, row, place in names.hf_names(cfg)}
    is_writer = jax.process_index() == 0
    # The others only take part in gathering.
    place = places.publishing(folder, phases.beat) if is_writer else contextlib.nullcontext(folder)
    with place as scratch:
        write_tensors(
            scratch,
            plan.values(),
            lambda name: _fetch(params, *rows[name], cfg).astype(plan[name].dtype, copy=False),
            shard_bytes=shard_bytes,
            is_writer=is_writer,
        )
        if is_writer:
            settings.copy_unchanged(source_folder, scratch)
            config = settings.both_spellings(
                read_config(source_folder), declared_dtype(plan.values())
            )
            write_json(scratch / "config.json", config)
            decoding = settings.decoding(temperature, top_k, top_p)
            generation = settings.generation_config(source_folder, decoding, eos_token_ids)
            write_json(scratch / "generation_config.json", generation)
            card.write(
                scratch,
                source_folder,
                name=name or folder.name,
                base_model=base_model,
                decoding=decoding,
                notes=notes,
            )
            checksums.write(scratch)
    processes.wait_for_all(f"exported {folder}")


def _check(files: TensorFiles, cfg: model_config.ModelConfig) -> None:
    """Refuses a folder whose tensors are not exactly those of `cfg`, in one message."""
    wanted = {name: names.hf_shape(row, cfg) for name, row, _ in names.hf_names(cfg)}
    errors, misfits = [], []
    if missing := [name for name in wanted if name not in files.tensors]:
        errors.append(f"missing: {shorten(missing)}")
    extra = []
    for name, stored in files.tensors.items():
        if name in wanted:
            if stored.shape != wanted[name]:
                misfits.append(f"{name} has shape {stored.shape}, config.json asks {wanted[name]}")
            if stored.code not in DTYPES:
                misfits.append(f"{name} is {stored.code}; {', '.join(DTYPES)} are read")
        elif name == "lm_head.weight" and not missing:
            # Some savers store a tied head. It may be left out only if it is the embedding indeed.
            if not np.array_equal(files.read(name), files.read("model.embed_tokens.weight")):
                errors.append(
                    "lm_head.weight differs from the embedding, but config.json says "
                    "tie_word_embeddings"
                )
        elif not _IGNORED.fullmatch(name):
            extra.append(name)
    if misfits:
        errors.append(shorten(misfits))
    if extra:
        errors.append(f"not part of a {cfg.family} model: {shorten(extra)}")
    if errors:
        raise ValueError(f"{files.folder} does not fit its config.json: {'; '.join(errors)}.")


def _load_row(files: TensorFiles, row: names.Row, cfg, dtype, sharding, shape) -> jax.Array:
    """One parameter of `shape` on its devices. Beyond what is stored it is zero: padding."""
    depth = len(row.stacked)
    stored = {files.tensors[row.hf_name(place)].code for place in np.ndindex(shape[:depth])}
    if dtype is None and len(stored) > 1:
        raise ValueError(
            f"{files.folder}: {row.hf} is {' and '.join(sorted(stored))} in different tensors, "
            "which share one array. Set model.dtype."
        )
    dtype = np.dtype(dtype or DTYPES[stored.pop()])

    def read(index: tuple[slice, ...]) -> np.ndarray:
        ranges = [range(*part.indices(size)) for part, size in zip(index, shape)]
        # All padding: safetensors refuses to read nothing.
        if any(along.start >= size for along, size in zip(ranges, names.our_shape(row, cfg))):
            return np.zeros([len(along) for along in ranges], dtype)
        if not depth:  # No stack to fill: what was read is the part, without a second copy.
            part = _read_part(files, row, (), index, cfg).astype(dtype, copy=False)
            lacking = [(0, len(along) - size) for along, size in zip(ranges, part.shape)]
            return np.pad(part, lacking) if any(after for _, after in lacking) else part
        part = np.empty([len(along) for along in ranges], dtype)
        for offset in np.ndindex(part.shape[:depth]):
            place = tuple(along[i] for along, i in zip(ranges, offset))
            part[offset] = _read_part(files, row, place, index[depth:], cfg)
        return part

    if sharding is None:
        return jax.device_put(read(tuple(slice(None) for _ in shape)))
    devices_of: dict[tuple, list] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        bounds = tuple(part.indices(size)[:2] for part, size in zip(index, shape))
        devices_of.setdefault(bounds, []).append(device)
    arrays = []
    for bounds, devices in devices_of.items():
        part = read(tuple(slice(*b) for b in bounds))
        arrays += jax.block_until_ready([jax.device_put(part, device) for device in devices])
    return jax.make_array_from_single_device_arrays(shape, sharding, arrays)


def _read_part(files: TensorFiles, row: names.Row, place, index, cfg) -> np.ndarray:
    """The part `index` of one tensor, as our axes lie."""
    read = functools.partial(files.read, row.hf_name(place))
    return names.from_hf_slice(row, index, cfg, read)


def _plan(params: dict, cfg, source: TensorFiles, dtype) -> dict[str, Planned]:
    """What `save` writes, in order. Refuses params that do not fit `cfg`, listing every reason."""
    leaves = {
        ".".join(str(key.key) for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    wanted = {row.path: names.our_shape(row, cfg) for row in names.rows(cfg)}
    errors = [f"{path} is missing" for path in wanted.keys() - leaves.keys()]
    errors += [f"{path} is not in the name table" for path in leaves.keys() - wanted.keys()]
    errors += [
        f"{path} has shape {leaves[path].shape}, expected {shape}"
        for path, shape in wanted.items()
        if path in leaves and _true_shape(path, leaves[path], cfg) != shape
    ]
    if errors:
        raise ValueError(f"params do not fit the configuration: {'; '.join(sorted(errors))}.")
    plan = {}
    for name, row, _ in names.hf_names(cfg):
        if dtype is None and name not in source.tensors:
            raise ValueError(f"{source.folder} has no {name}: it is not the model of these params.")
        stored = np.dtype(dtype) if dtype else DTYPES[source.tensors[name].code]
        plan[name] = Planned(name, stored, names.hf_shape(row, cfg))
    return plan


def _true_shape(path: str, leaf, cfg) -> tuple[int, ...]:
    """The leaf's shape without padding, where that is no more than its own mesh asks for."""
    shape = names.unpadded(path, leaf.shape, cfg.vocab_size)
    if not isinstance(leaf, jax.Array):
        return leaf.shape
    parts = np.floor_divide(leaf.shape, np.maximum(leaf.sharding.shard_shape(leaf.shape), 1))
    needed = tuple(-(-size // count) * count for size, count in zip(shape, parts))
    return shape if needed == leaf.shape else leaf.shape


def _fetch(params: dict, row: names.Row, place: tuple[int, ...], cfg) -> np.ndarray:
    """One HF tensor on the host, in the dtype of params. On many hosts all must call it."""
    phases.beat()
    leaf = names.get(params, row.path)
    if isinstance(leaf, np.ndarray):
        return names.to_hf(row, leaf[place])
    if place:
        sharding = leaf.sharding
        named = isinstance(sharding, jax.NamedSharding)
        leaf = _take_sharded(leaf, place, sharding) if named else _take(leaf, place)
    real = tuple(slice(size) for size in names.our_shape(row, cfg)[len(place) :])
    return names.to_hf(row, to_host(leaf)[real])


def to_host(leaf: jax.Array) -> np.ndarray:
    """The whole array; on many hosts all call it. Not by `np.asarray`, which would keep a second
    copy alive with the array."""
    if not leaf.is_fully_addressable:
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    host = np.empty(leaf.shape, leaf.dtype)
    for shard in leaf.addressable_shards:
        if shard.replica_id == 0:
            host[shard.index] = np.asarray(shard.data)
    return host


@jax.jit
def _take(stack: jax.Array, place: tuple) -> jax.Array:
    """The array at one place of a stack. The place is traced: all places share one program."""
    for number in place:
        stack = jax.lax.dynamic_index_in_dim(stack, number, keepdims=False)
    return stack


@functools.partial(jax.jit, static_argnames=("sharding",))
def _take_sharded(stack: jax.Array, place: tuple, sharding: jax.NamedSharding) -> jax.Array:
    """`_take` where the stacked axes may be split, such as experts: only one array travels."""
    spec = (*sharding.spec, *[None] * (stack.ndim - len(sharding.spec)))

    def part(stack: jax.Array, place: tuple) -> jax.Array:
        is_here, local = jnp.bool(True), []
        for number, size, axis in zip(place, stack.shape, spec):
            start = jax.lax.axis_index(axis) * size if axis else 0
            is_here &= (number >= start) & (number < start + size)
            local.append(number - start)
        value = _take(stack, tuple(local))  # Elsewhere some other array, which does not count.
        # Added as bits, because a sum of floats would lose the sign of zero.
        bits = jax.lax.bitcast_convert_type(value, f"uint{8 * value.dtype.itemsize}")
        bits = jnp.where(is_here, bits, 0)
        for axis in filter(None, spec[: len(place)]):
            bits = jax.lax.psum(bits, axis)
        return jax.lax.bitcast_convert_type(bits, value.dtype)

    # Unchecked: the check does not know that the sum is the same everywhere.
    return jax.shard_map(
        part,
        mesh=sharding.mesh,
        in_specs=(jax.P(*spec), jax.P()),
        out_specs=jax.P(*spec[len(place) :]),
        check_vma=False,
    )(stack, place)
