"""Low-rank adapters beside frozen weights (LoRA, Hu et al., arXiv 2106.09685).

`adapters` is a nested dict like `params["blocks"]`, with {"a", "b"} in the place of a weight, both
float32 and stacked on the layer axis: a weight W [inputs, outputs] works as W + factor * A B, A
[inputs, rank], B [rank, outputs], factor alpha / rank. (The paper writes B A, for its W is ours
transposed.)
"""

import functools
import math

import jax
import jax.numpy as jnp

from jssd.config import LoraConfig
from jssd.model import transformer
from jssd.model.blocks import adapter_axes
from jssd.model.config import ModelConfig
from jssd.sharding import sharding

Adapters = dict


def factor(config: LoraConfig) -> float:
    """What A B is multiplied with: alpha / rank."""
    return (config.alpha or config.rank) / config.rank


def abstract_adapters(cfg: ModelConfig, config: LoraConfig) -> Adapters:
    """Shapes, dtypes and (under a mesh) shardings of the adapters, with no memory behind them.

    Raises:
      ValueError: a projection that this model cannot have an adapter on.
    """
    if cfg.is_moe and (experts := [p for p in config.projections if p in ("gate", "up", "down")]):
        raise ValueError(
            f"train.lora.projections={tuple(config.projections)}: {', '.join(experts)} of this "
            "model are its experts', which get no adapters: a low rank for each of "
            f"{cfg.num_experts} experts is not built. Set train.lora.projections=('q','k','v','o')."
        )

    def leaf(shape: tuple[int, ...], axes: tuple[str, ...]) -> jax.ShapeDtypeStruct:
        place = sharding("layers", *axes)
        return jax.ShapeDtypeStruct((cfg.num_layers, *shape), jnp.float32, sharding=place)

    def pair(weight) -> dict[str, jax.ShapeDtypeStruct]:
        size = dict(zip(weight.axes, weight.get_value().shape)) | {"rank": config.rank}
        axes = adapter_axes(weight.axes)
        return {part: leaf(tuple(size[axis] for axis in axes[part]), axes[part]) for part in "ab"}

    adapters: Adapters = {}
    block = transformer.block_params(cfg)
    for module in ("attn", "mlp"):
        weights = {
            name: w for name, w in block.get(module, {}).items() if name in config.projections
        }
        if weights:
            adapters[module] = {name: pair(weight) for name, weight in weights.items()}
    return adapters


def init_adapters(cfg: ModelConfig, config: LoraConfig, seed: int) -> Adapters:
    """Adapters that change nothing yet: B is zero, A uniform within 1 / sqrt(inputs), as peft and
    the paper's own code (`microsoft/LoRA`) draw it. The same on every mesh.

    Raises:
      ValueError: as `abstract_adapters`.
    """
    abstract = abstract_adapters(cfg, config)

    def init(key: jax.Array) -> Adapters:
        def leaf(path, like: jax.ShapeDtypeStruct) -> jax.Array:
            number = paths.index(path)
            if path[-1].key == "b":
                return jnp.zeros(like.shape, like.dtype)
            bound = math.prod(like.shape[1:-1]) ** -0.5
            own = jax.random.fold_in(key, number)
            return jax.random.uniform(own, like.shape, like.dtype, -bound, bound)

        return jax.tree_util.tree_map_with_path(leaf, abstract)

    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(abstract)]
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.jit(init, out_shardings=shardings)(jax.random.key(seed))


def scaled(adapters: Adapters, config: LoraConfig) -> Adapters:
    """The adapters as `transformer.forward` adds them: B times the factor."""
    return {
        module: {
            name: {"a": pair["a"], "b": pair["b"] * factor(config)} for name, pair in pairs.items()
        }
        for module, pairs in adapters.items()
    }


def merge(params: transformer.Params, adapters: Adapters, config: LoraConfig, dtype=None):
    """Ordinary params with W + factor * A B in the place of each adapted weight W.

    The sum is float32 and rounded once, to `dtype` or that of the weight. Every other weight is the
    same array as in `params`. One weight at a time: there is never a second copy of the model.
    """
    blocks = dict(params["blocks"])
    for module, pairs in adapters.items():
        blocks[module] = dict(blocks[module])
        for name, pair in pairs.items():
            weight = blocks[module][name]
            place = weight.sharding if isinstance(weight.sharding, jax.NamedSharding) else None
            run = _merged(dtype or weight.dtype, place)
            blocks[module][name] = run(weight, pair["a"], pair["b"], factor(config))
    return {**params, "blocks": blocks}


@functools.cache
def _merged(dtype, place: jax.NamedSharding | None):
    def run(weight, a, b, times):
        inputs, outputs = "IJ"[: a.ndim - 2], "XY"[: b.ndim - 2]
        product = jnp.einsum(
            f"L{inputs}R,LR{outputs}->L{inputs}{outputs}", a, b,
            precision=jax.lax.Precision.HIGHEST,
        )  # fmt: skip
        return (weight.astype(jnp.float32) + times * product).astype(dtype)

    return jax.jit(run, out_shardings=place)
