"""Matmul FLOPs of a traced function, as it is written: every loop turn, recomputation and shard.

Counted are two FLOPs a multiply-add of matrix products and attention kernels; nothing else, as in
`train/flops.py`. Loops count their turns, `shard_map` its shards, a branch its dearest way.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
from jax.extend import core

from jssd.plan.hlo import assumed_turns

# cuDNN's attention, by a part of the primitive's name: its matmuls over query-key pairs. Forward
# are scores and values; backward scores again and four gradients.
_CUDNN = (("dot_product_attention_fwd", 2), ("dot_product_attention_bwd", 5))


@dataclasses.dataclass
class Work:
    """What a function computes.

    Attributes:
      flops: over all devices.
      device_flops: of one device: what is not split over the mesh is done by each. Axes left to
        the compiler count as not splitting.
      kernels: FLOPs of custom kernels, by name, counted by formula; part of `flops`.
      unread: kernels whose FLOPs are not known and not counted.
      loops: loops whose number of turns depends on data.
    """

    flops: float = 0.0
    device_flops: float = 0.0
    kernels: dict[str, float] = dataclasses.field(default_factory=dict)
    unread: set[str] = dataclasses.field(default_factory=set)
    loops: int = 0


def count(traced: Any, turns: dict[str, int] | None = None) -> Work:
    """The work of a closed jaxpr, or of what `jax.jit(f).trace` gives.

    Args:
      traced: the function.
      turns: by named scope, of loops whose number of turns depends on data.
    """
    work = Work()
    _count(_open(getattr(traced, "jaxpr", traced)), 1, 1, turns or {}, work)
    return work


def largest(traced: Any, number: int = 8) -> list[dict[str, Any]]:
    """The largest arrays a program computes, by their bytes on one device, each shape once.

    They show what a program that does not fit is made of: fused away or not, they are written in
    it; constants are left out. Each entry holds `bytes`, `shape` (of the device's
    share), `dtype` and `where`.
    """
    found: dict[tuple, dict[str, Any]] = {}
    for eqn in _equations(_open(getattr(traced, "jaxpr", traced))):
        for out in eqn.outvars if eqn.primitive.name not in ("broadcast_in_dim", "iota") else ():
            aval = out.aval
            if not hasattr(aval, "shape") or not hasattr(aval.dtype, "itemsize"):
                continue
            shape = _local(aval)
            size = math.prod(shape) * aval.dtype.itemsize
            where = f"{eqn.source_info.name_stack}/{eqn.primitive.name}".strip("/")
            found.setdefault(
                (shape, str(aval.dtype)),
                {"bytes": size, "shape": list(shape), "dtype": str(aval.dtype), "where": where},
            )
    return sorted(found.values(), key=lambda one: -one["bytes"])[:number]


def _open(jaxpr: Any) -> core.Jaxpr:
    """The jaxpr without its constants."""
    while not hasattr(jaxpr, "eqns"):
        jaxpr = jaxpr.jaxpr
    return getattr(jaxpr, "jaxpr", jaxpr)


def _inner(params: dict) -> list[core.Jaxpr]:
    """The jaxprs among an equation's parameters."""
    return [
        _open(value)
        for value in params.values()
        if hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns")
    ]


def _equations(jaxpr: core.Jaxpr) -> Iterator[Any]:
    """All equations, those of inner functions included; not those inside kernels."""
    for eqn in jaxpr.eqns:
        inner = list(_inner(eqn.params)) if eqn.primitive.name != "pallas_call" else []
        inner += [_open(branch) for branch in eqn.params.get("branches", ())]
        if not inner:
            yield eqn
        for part in inner:
            yield from _equations(part)


def _local(aval: Any) -> tuple[int, ...]:
    """Shape of one device's share, as far as the type says how it is split."""
    place = getattr(aval, "sharding", None)
    if not isinstance(place, jax.sharding.NamedSharding):
        return tuple(aval.shape)
    shape = list(aval.shape)
    for dim, axes in enumerate(place.spec):
        names = axes if isinstance(axes, tuple) else (axes,)
        parts = math.prod(place.mesh.shape[name] for name in names if isinstance(name, str))
        shape[dim] = -(-shape[dim] // parts)
    return tuple(shape)


def _count(jaxpr: core.Jaxpr, times: float, shards: int, turns: dict[str, int], work: Work) -> None:
    """Adds `jaxpr`, run `times` times on each of `shards` parts of the mesh."""
    for eqn in jaxpr.eqns:
        name, params = eqn.primitive.name, eqn.params
        if name in ("dot_general", "ragged_dot", "ragged_dot_general"):
            product = _dot if name == "dot_general" else _ragged
            work.flops += times * shards * product(eqn, lambda aval: tuple(aval.shape))
            work.device_flops += times * product(eqn, _local)
        elif name == "scan":
            _count(_open(params["jaxpr"]), times * params["length"], shards, turns, work)
        elif name == "while":
            known = _known_turns(eqn)
            work.loops += known is None
            if known is None:
                known = assumed_turns(str(eqn.source_info.name_stack), turns)
            rounds = times * known
            for part in ("cond_jaxpr", "body_jaxpr"):
                _count(_open(params[part]), rounds, shards, turns, work)
        elif name == "cond":
            ways = [Work() for _ in params["branches"]]
            for way, branch in zip(ways, params["branches"]):
                _count(_open(branch), times, shards, turns, way)
            _add(work, max(ways, key=lambda way: way.flops))
        elif name == "shard_map":
            manual = params.get("manual_axes") or params["mesh"].axis_names
            parts = math.prod(params["mesh"].shape[axis] for axis in manual)
            _count(_open(params["jaxpr"]), times, shards * parts, turns, work)
        elif name == "pallas_call" or any(part in name for part, _ in _CUDNN):
            _kernel(eqn, times, shards, work)
        else:
            for inner in _inner(params):
                _count(inner, times, shards, turns, work)


def _add(work: Work, other: Work) -> None:
    work.flops += other.flops
    work.device_flops += other.device_flops
    work.loops += other.loops
    work.unread |= other.unread
    for name, flops in other.kernels.items():
        work.kernels[name] = work.kernels.get(name, 0.0) + flops


def _dot(eqn: Any, shape) -> float:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = shape(eqn.invars[0].aval)
    return 2.0 * math.prod(shape(eqn.outvars[0].aval)) * math.prod(left[i] for i in contracted)


def _ragged(eqn: Any, shape) -> float:
    """Rows times both widths, however the rows are grouped."""
    left, right, out = (shape(v.aval) for v in (*eqn.invars[:2], eqn.outvars[0]))
    if len(out) == 2:  # Rows by group: [M, K] x [G, K, N] -> [M, N].
        return 2.0 * left[-2] * left[-1] * out[-1]
    return 2.0 * left[0] * left[1] * right[-1]  # [M, K] x [M, N] -> [G, K, N].


def _known_turns(eqn: Any) -> int | None:
    """Turns of a loop that counts from a constant up to a constant; None for any other."""
    cond = _open(eqn.params["cond_jaxpr"])
    if [one.primitive.name for one in cond.eqns] != ["lt"]:
        return None
    counter, limit = cond.eqns[0].invars
    carried = eqn.invars[eqn.params["cond_nconsts"] + eqn.params["body_nconsts"] :]
    if not isinstance(limit, core.Literal) or counter not in cond.invars:
        return None
    start = carried[cond.invars.index(counter) - eqn.params["cond_nconsts"]]
    return int(limit.val - start.val) if isinstance(start, core.Literal) else None


def _kernel(eqn: Any, times: float, shards: int, work: Work) -> None:
    """A kernel: attention by its formula, others by what one program of the grid multiplies."""
    name = eqn.primitive.name
    if name != "pallas_call":
        matmuls = next(number for part, number in _CUDNN if part in name)
        q_BTNH, k_BSKH = (variable.aval.shape for variable in eqn.invars[:2])
        if eqn.params.get("layout") == 1:  # AttentionLayout.BNTH
            q_BTNH, k_BSKH = ((s[0], s[2], s[1], s[3]) for s in (q_BTNH, k_BSKH))
        (B, T, N, H), S = q_BTNH, k_BSKH[1]
        causal = 0.5 if "CAUSAL" in str(eqn.params.get("mask_type", "")).upper() else 1.0
        flops = matmuls * 2.0 * B * N * T * S * H * causal
    else:
        name = str(eqn.params.get("name") or eqn.params.get("name_and_src_info") or name)
        inside = Work()
        _count(_open(eqn.params["jaxpr"]), 1, 1, {}, inside)
        grid = [side for side in eqn.params["grid_mapping"].grid if isinstance(side, int)]
        flops = inside.flops * math.prod(grid)
        if len(grid) < len(eqn.params["grid_mapping"].grid):  # As many turns as data say.
            flops = float(getattr(eqn.params.get("cost_estimate"), "flops", 0))
        if "splash" in name:
            # Blocks above the diagonal are in the grid and are skipped; those on it are whole. The
            # grid is (keys, heads, queries) for gradients of keys, else (heads, queries, keys).
            side = max(grid[-3] if "dkv" in name else grid[-2], grid[-1])
            flops *= (side + 1) / (2 * side)
        if not flops:
            work.unread.add(name.split(" ")[0])
    name = name.split(" ")[0]
    work.flops += times * shards * flops
    work.device_flops += times * flops
    work.kernels[name] = work.kernels.get(name, 0.0) + times * shards * flops
