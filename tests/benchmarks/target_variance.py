"""How much less noisy are gradients of soft targets? Measured on a run's own samples.

    python tests/benchmarks/target_variance.py --workdir=runs/arms/raw

Of a run that was sampled with engine.keep_law. Each packed row of its samples is one small batch:
its gradient at the base's weights, once towards the tokens that were drawn (the paper's loss) and
once towards the laws they were drawn from (`train.targets="law"`, ours). Both have one expectation.
The variance of a row is the mean squared distance of the gradients from their mean, over all
weights. What soft targets cannot remove is that rows hold different prompts and prefixes. Also
told is the squared distance between the two gradients of one row: the noise of the draws alone.
Errors are jackknife standard errors over groups of rows.
"""

import pathlib
from collections.abc import Iterator

from absl import app, flags

_WORKDIR = flags.DEFINE_string("workdir", None, "a run with samples and their laws", required=True)
_MODEL = flags.DEFINE_string("model", "assets/SmolLM2-135M-Instruct.Q4_1.gguf", "that drew them")
_LENGTH = flags.DEFINE_integer("seq_len", 512, "tokens of a row")
_GROUPS = flags.DEFINE_integer("groups", 4, "of rows, left out one by one")


def main(_) -> None:
    import jax
    import numpy as np

    hard_norms, soft_norms, noise = [], [], []
    hard_sums: list[dict | None] = [None] * _GROUPS.value
    soft_sums: list[dict | None] = [None] * _GROUPS.value
    norm = jax.jit(lambda tree: sum((leaf**2).sum() for leaf in jax.tree.leaves(tree)))
    minus = jax.jit(lambda a, b: jax.tree.map(lambda x, y: x - y, a, b))
    plus = jax.jit(lambda a, b: jax.tree.map(lambda x, y: x + y, a, b))
    for row, (hard, soft) in enumerate(gradients()):
        hard_norms.append(float(norm(hard)))
        soft_norms.append(float(norm(soft)))
        noise.append(float(norm(minus(hard, soft))))
        group = row % _GROUPS.value
        for sums, grads in ((hard_sums, hard), (soft_sums, soft)):
            sums[group] = grads if sums[group] is None else plus(sums[group], grads)
        print(f"row {row}: {hard_norms[-1]:.4f} {soft_norms[-1]:.4f} {noise[-1]:.4f}", flush=True)

    groups = np.arange(len(noise)) % _GROUPS.value

    def variances(left_out: int) -> np.ndarray:
        """Of hard and soft gradients and of the draws, without one group of rows."""
        rows = np.flatnonzero(groups != left_out)
        found = []
        for sums, norms in ((hard_sums, hard_norms), (soft_sums, soft_norms)):
            total = None
            for group, part in enumerate(sums):
                if part is not None and group != left_out:
                    total = part if total is None else plus(total, part)
            square = float(norm(total)) / len(rows)
            found.append((sum(norms[row] for row in rows) - square) / (len(rows) - 1))
        found.append(sum(noise[row] for row in rows) / len(rows))
        return np.array([*found, found[0] / found[1]])

    whole = variances(-1)
    parts = np.stack([variances(group) for group in range(_GROUPS.value)])
    count = len(parts)
    errors = np.sqrt((count - 1) / count * ((parts - parts.mean(axis=0)) ** 2).sum(axis=0))
    print(f"{len(noise)} rows of {_LENGTH.value} tokens; variance of a row's gradient")
    names = ("drawn tokens", "laws", "the draws alone", "drawn tokens / laws")
    for name, value, error in zip(names, whole, errors, strict=True):
        print(f"{name}: {value:.4g} +- {error:.2g}")


def gradients() -> Iterator[tuple[dict, dict]]:
    """The mean gradient a response token of each row, by both targets, at the base's weights."""
    import jax

    import jssd
    from jssd.config import TrainConfig
    from jssd.data import examples, packing, samples
    from jssd.train.optimizer import make_optimizer
    from jssd.train.step import make_train_step, place_batch

    drawn = samples.read_folder(pathlib.Path(_WORKDIR.value) / "samples")
    drawn = [one for one in drawn if one.token_ids]
    model = jssd.load(_MODEL.value, "float32")
    laws = examples.from_samples(drawn, targets="law")
    config = TrainConfig(seq_len=_LENGTH.value, remat="none", loss_chunk=512)
    mean = jax.jit(lambda totals: jax.tree.map(lambda g: g / totals.loss.tokens, totals.grads))
    step = make_train_step(model.cfg, make_optimizer(config), config)
    rows = packing.rows(laws.lengths, _LENGTH.value, seed=0, epoch=0, packing="packed")
    for row in rows:
        arrays = examples.build_row(laws, row, _LENGTH.value)
        soft = {name: array[None] for name, array in arrays.items()}
        hard = {name: array for name, array in soft.items() if name != "support_probs"}
        found = []
        for batch in (hard, soft):
            totals = step.add(None, model.params, place_batch([batch])[0], None)
            found.append(mean(totals))
        yield found[0], found[1]


if __name__ == "__main__":
    app.run(main)
