"""Scores of laws that were not decoded, from what a sweep drew and graded at others.

Every stored completion of a model is scored once under all laws, teacher-forced, which costs about
a prefill; `evals/reweigh.py` turns that into pass@1. Each decoded law is predicted too, from the
others alone: how far that is off is the error to expect of the rest.
"""

import dataclasses
import json
from collections.abc import Sequence

import numpy as np

from jssd.config import digest
from jssd.data import samples
from jssd.evals import reweigh
from jssd.metrics import Writer
from jssd.sampling.request import Sampling
from jssd.sampling.score import Scorer
from jssd.stages import context, grids
from jssd.stages.context import Run


@dataclasses.dataclass(frozen=True)
class Stored:
    """Graded completions of one model on one benchmark, S of them under J laws.

    Attributes:
      laws: the J laws, none of them greedy.
      law_S: which law each was drawn at.
      records: as drawn.
      right_S: bool, whether it passed.
    """

    laws: list[Sampling]
    law_S: np.ndarray
    records: list[samples.Sample]
    right_S: np.ndarray


def wanted(run: Run, model: grids.Model) -> bool:
    """Whether the predictions of a model are asked for and not there yet."""
    if not run.config.sweep.predict_temperatures:
        return False
    path = _path(run, model)
    return not path.exists() or context.read_json(path)["settings"] != _settings(run)


def read(run: Run, model: grids.Model) -> list[dict]:
    """The predictions of one model; none if none are asked for."""
    if not run.config.sweep.predict_temperatures:
        return []
    return context.read_json(_path(run, model))["rows"]


def run(run: Run, model: grids.Model, scorer: Scorer, writer: Writer) -> None:
    """Predicts every law asked for and, to measure the error, every law that was decoded."""
    config = run.config.evaluate
    rows = []
    for benchmark in config.benchmarks:
        stored = gather(run, model, benchmark)
        checks = stored.laws if len(stored.laws) > 1 else []
        targets = list(dict.fromkeys([*grids.predicted_laws(run.config), *checks]))
        writer.line(
            f"{model.name} on {benchmark}: re-scoring {len(stored.records)} completions under "
            f"{len(targets)} laws"
        )
        logs = score(scorer, stored.records, [*stored.laws, *targets])
        drawn_JS, target_LS = logs[: len(stored.laws)], logs[len(stored.laws) :]
        for law, target_S in zip(targets, target_LS):
            found = one(
                stored, drawn_JS, law, target_S, resamples=config.bootstrap, seed=config.seed
            )
            if found is not None:
                rows.append({"benchmark": benchmark, "model": model.name, **found})
    context.write_json(_path(run, model), {"settings": _settings(run), "rows": rows})


def gather(run: Run, model: grids.Model, benchmark: str) -> Stored:
    """What is stored of a model's cells on one benchmark; greedy cells, which are one draw that
    other laws cannot be weighed by, are left out."""
    laws = [law for law in grids.eval_laws(run.config) if law.temperature > 0]
    law_S, records, right = [], [], []
    for index, law in enumerate(laws):
        place = grids.Cell(model, benchmark, law).place(run.workdir)
        lines = (place / "completions.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        verdicts = {
            (row["task_id"], row["sample"]): row["verdict"] for row in map(json.loads, lines)
        }
        for record in samples.read_folder(place):
            law_S.append(index)
            records.append(record)
            right.append(verdicts[record.prompt_id, record.sample] == "passed")
    return Stored(laws, np.array(law_S), records, np.array(right))


def score(
    scorer: Scorer, records: Sequence[samples.Sample], laws: Sequence[Sampling]
) -> np.ndarray:
    """Natural logarithm of each completion's probability under each law, float64 [L, S].

    Equal completions of one prompt are scored once.
    """
    keys = [(tuple(r.prompt_token_ids), tuple(r.token_ids)) for r in records]
    unique = list(dict.fromkeys(keys))
    found = scorer.score([k[0] for k in unique], [k[1] for k in unique], laws)
    total = {
        key: scores.law_logprobs.astype(np.float64).sum(axis=1)
        for key, scores in zip(unique, found)
    }
    return np.stack([total[key] for key in keys], axis=1)


def one(
    stored: Stored,
    drawn_JS: np.ndarray,
    law: Sampling,
    target_S: np.ndarray,
    *,
    resamples: int,
    seed: int,
) -> dict | None:
    """The prediction of one law as a row; of a law that was decoded, from the others. None where no
    stored completion could have been drawn by it."""
    others = [index for index, drawn in enumerate(stored.laws) if drawn != law]
    mine_S = np.isin(stored.law_S, others)
    if not np.any(target_S[mine_S] > -np.inf):
        return None
    found = reweigh.predict(
        [record.prompt_id for record, mine in zip(stored.records, mine_S) if mine],
        stored.right_S[mine_S],
        target_S[mine_S],
        drawn_JS[others][:, mine_S],
        np.searchsorted(others, stored.law_S[mine_S]),
        resamples=resamples,
        seed=seed,
    )
    wide = any(grids.as_wide(stored.laws[index], law) for index in others)
    return {
        "law": dataclasses.asdict(law),
        **dataclasses.asdict(found),
        "as_wide": wide,  # Whether a law drawn from is as wide as this one.
        "trusted": found.enough and wide,
        "decoded": law in stored.laws,
    }


def _path(run: Run, model: grids.Model):
    return run.workdir / "sweep" / "predictions" / f"{model.name}.json"


def _settings(run: Run) -> str:
    """Changes whenever what goes into predictions does."""
    config = run.config.evaluate
    laws = [*grids.eval_laws(run.config), None, *grids.predicted_laws(run.config)]
    tree = {
        "laws": [law and dataclasses.asdict(law) for law in laws],
        "benchmarks": list(config.benchmarks),
        "resampling": [config.bootstrap, config.seed],
    }
    return digest(tree)
