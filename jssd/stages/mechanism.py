"""Stage mechanism: what training did to the law of each token, base against student: `mechanism/`.

Both models read the same completions. `tokens.jsonl` holds a line per completion with a row per
token; `summary.json` the means; `index.html` the figures, and completions coloured token by token.
"""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jax

from jssd import growing, hosts, phases, places, survival
from jssd.analysis import locks_forks, panels
from jssd.data import contexts
from jssd.data.contexts import Context
from jssd.data.tokenizer import Tokenizer
from jssd.model import transformer
from jssd.sampling.request import Sampling
from jssd.stages import coloured, context, students
from jssd.stages.context import Run
from jssd.stages.excerpts import spread
from jssd.weights.fingerprint import fingerprint

TOKENS, SUMMARY = "tokens.jsonl", "summary.json"
ROWS = 8  # Completions measured in one forward pass.

Source = pathlib.Path | students.Checkpoint


def run(run: Run) -> None:
    """Measures what is missing, completion by completion, then writes summary and page.

    Raises:
      FileNotFoundError: no student, or no contexts.
      ValueError: other settings than it was begun with, other weights than before, models of
        different vocabularies, several processes, or contexts that cannot be read.
    """
    if jax.process_count() > 1:
        raise ValueError(
            "--stages=mechanism measures on the devices of one process: start it alone."
        )
    config, folder = run.config.mechanism, run.workdir / "mechanism"
    settings = context.section(run.config, "model", "mechanism", "sampling")
    if run.config.train.loss_on == "answer" and not config.contexts:
        settings["looked_at"] = {"answers_after": run.config.train.think_end}
    context.freeze_settings(folder, settings)
    sources = _sources(run)
    base = sources["base"]
    tokenizer = Tokenizer(base if isinstance(base, pathlib.Path) else base.run.base_folder())
    if not (folder / TOKENS).exists():
        _measure(run, sources, tokenizer)
    completions = [json.loads(line) for line in _lines(folder / TOKENS)]
    summary = panels.summarise(
        completions,
        temperatures=config.temperatures,
        resamples=run.config.evaluate.bootstrap,
    )
    summary |= {"settings": settings, "fingerprints": completions[0]["fingerprints"]}
    context.write_json(folder / SUMMARY, summary)
    coloured.write(folder, summary, completions, tokenizer)
    for line in coloured.sentences(summary):
        print(line, flush=True)
    print(f"mechanism: {folder / coloured.PAGE}", flush=True)


def _measure(run: Run, sources: dict[str, Source], tokenizer: Tokenizer) -> None:
    """Writes `tokens.jsonl`, going on after the last whole line of a run that was killed."""
    config, law, folder = run.config.mechanism, run.config.sampling, run.workdir / "mechanism"
    chosen = _contexts(run, tokenizer)
    with run.writer("mechanism") as writer:
        models, names = _models(run, sources)
        log = growing.Log(folder / f"{TOKENS}.partial", durable=True)
        done = _recover(log, folder, names)
        pair = locks_forks.Pair(
            *models,
            training=Sampling(law.temperature, law.top_k, law.top_p, law.min_p),
            evaluation=[
                Sampling(temperature, config.top_k, config.top_p)
                for temperature in config.temperatures
            ],
            mesh=hosts.decode_mesh(run.mesh),
            rows=ROWS,
            dtype=context.as_dtype(run.config.model.compute_dtype),
        )
        todo = chosen[done:]
        looked = pair.look(
            [item.prompt_ids for item in todo], [item.completion_ids for item in todo]
        )
        with (
            phases.phase("measure", first="compile"),
            writer.progress(len(chosen), "mechanism", done=done) as advance,
            contextlib.closing(log),
        ):
            for item, (views, losses) in zip(todo, looked):
                line = {
                    "prompt_id": item.prompt_id,
                    "sample": item.sample,
                    "fingerprints": names,
                    "mass_by_rank": {
                        model: locks_forks.mass_by_rank(view) for model, view in views.items()
                    },
                    "tokens": locks_forks.rows(
                        views, losses, item.completion_ids, config.fork_entropy
                    ),
                }
                text = json.dumps(line, separators=(",", ":"), allow_nan=False)
                log.write(f"{text}\n".encode())
                phases.hold(log.pending)
                advance(1)
                phases.beat()
                phases.mark("kept", phase="measure")
                survival.check()
            log.finish(folder / TOKENS, log.lines())
            phases.hold(False)


def _sources(run: Run) -> dict[str, Source]:
    """Where base and student come from: a Hugging Face folder or a checkpoint each."""
    config = run.config.mechanism
    if not config.student and not places.is_whole(run.workdir / "export"):
        raise FileNotFoundError(
            f"{run.workdir / 'export'} does not exist. Run stages sft and export before mechanism, "
            "or set mechanism.student."
        )
    named = {"base": config.base, "student": config.student}
    own = {"base": run.base_folder, "student": run.student_folder}
    found: dict[str, Source] = {}
    for model, path in named.items():
        name = f"mechanism/{model}"
        found[model] = (
            students.checkpoint(run, path, name) or run.folder_of(path, name)
            if path
            else own[model]()
        )
    return found


def _models(
    run: Run, sources: dict[str, Source]
) -> tuple[list[tuple[Any, transformer.Params]], dict[str, str]]:
    """Base and student on the decode mesh, and the fingerprints of their weights."""
    models, names = [], {}
    for model, source in sources.items():
        with jax.set_mesh(run.mesh):
            named = isinstance(source, pathlib.Path)
            cfg, params = run.load(source) if named else source.load()
            names[model] = fingerprint(params, cfg.vocab_size)
        models.append((cfg, context.for_scoring(params, cfg, run.mesh)))
    return models, names


def _contexts(run: Run, tokenizer: Tokenizer) -> list[Context]:
    config = run.config.mechanism
    where = config.contexts or run.workdir / "samples"
    if not config.contexts:
        run.verify_samples()
    answers = None if config.contexts else run.answers()
    found = contexts.read(where, tokenizer, config.template, answers)
    chosen = [found[i] for i in spread(len(found), config.limit or len(found))]
    return [item.cut(config.max_tokens) for item in chosen]


def _recover(log: growing.Log, folder: pathlib.Path, names: dict[str, str]) -> int:
    """How many completions are done.

    They are measured in groups, and bits may depend on the group: those of a group that a killed
    run left unfinished are cut off, with a torn line.
    """
    found = log.lines()
    whole = [line for line in found if line.endswith(b"\n")]
    whole = whole[: len(whole) // ROWS * ROWS]
    if len(whole) < len(found):
        log.rewrite(whole)
    for line in whole:
        if (found := json.loads(line)["fingerprints"]) != names:
            raise ValueError(
                f"{folder} was begun with weights {found}, now they are {names}. Delete it to "
                "begin anew, or restore the models."
            )
    return len(whole)


def _lines(path: pathlib.Path) -> Iterator[str]:
    with path.open(encoding="utf-8", newline="\n") as file:
        yield from file
