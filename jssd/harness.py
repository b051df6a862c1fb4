"""Our models under EleutherAI's lm-evaluation-harness (optional: `pip install 'jssd[harness]'`).

    python -m jssd.harness --model=runs/a/export --tasks=gsm8k,arc_easy --chat

or, from Python, `lm_eval.simple_evaluate(model=harness.lm(jssd.load(path)), tasks=[...])`. Nothing
of the harness is imported before it is asked for.
"""

import argparse
import importlib
import json
import logging
import sys
from collections.abc import Sequence
from typing import Any

from jssd import api
from jssd.sampling.request import Sampling
from jssd.sampling.score import Scorer

_GREEDY = Sampling(0.0)
_KNOWN = {"until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p", "min_p"}
_DEFAULT_TOKENS = 256  # The harness's own default for a task that names none.


def lm(model: api.Model, *, rows: int = 8, max_gen_toks: int = _DEFAULT_TOKENS, seed: int = 0):
    """The model as an `lm_eval` LM: log-likelihoods, rolling ones, generation, chat templates.

    Args:
      model: what `jssd.load` gives.
      rows: texts per forward pass.
      max_gen_toks: tokens to generate at most, for tasks that do not say.
      seed: of the draws, for tasks that do not ask for greedy ones.

    Texts longer than the model's context lose their beginning, as in the harness's own models, and
    a warning says how many.

    Raises ImportError, with the way out, when lm_eval is not installed.
    """
    try:
        base = importlib.import_module("lm_eval.api.model")
        windows = importlib.import_module("lm_eval.utils")
    except ImportError as error:
        raise ImportError(
            f"lm_eval can't be imported ({error}). Install it with: pip install 'jssd[harness]'."
        ) from error
    return _class(base.TemplateLM, windows)(model, rows, max_gen_toks, seed)


def sampling_of(gen_kwargs: dict[str, Any]) -> Sampling:
    """The law a task's generation arguments ask for; greedy where they name no temperature.

    Raises ValueError for arguments that would be ignored.
    """
    unknown = sorted(set(gen_kwargs) - _KNOWN)
    if unknown:
        raise ValueError(
            f"generation argument {unknown[0]!r} is not known here. Known: {sorted(_KNOWN)}."
        )
    sample = gen_kwargs.get("do_sample")
    temperature = float(gen_kwargs.get("temperature", 1.0 if sample else 0.0))
    if sample is False:
        temperature = 0.0
    return Sampling(
        temperature,
        max(0, int(gen_kwargs.get("top_k") or 0)),
        float(gen_kwargs.get("top_p") or 1.0),
        float(gen_kwargs.get("min_p") or 0.0),
    )


def cut(text: str, until: Sequence[str]) -> str:
    """`text` up to the first of the stop strings in it."""
    ends = [text.find(stop) for stop in until if stop and stop in text]
    return text[: min(ends)] if ends else text


def _class(template_lm: type, windows: Any) -> Any:
    class JssdLM(template_lm):
        """See `lm`. The base class turns (context, continuation) texts into tokens."""

        def __init__(self, model: api.Model, rows: int, max_gen_toks: int, seed: int):
            super().__init__()
            self.model, self.seed, self.max_gen_toks = model, seed, max_gen_toks
            self.text_tokenizer = model.tokenizer
            self.max_length = model.cfg.max_seq_len
            self._scorer = Scorer(model.params, model.cfg, rows=rows)

        @property
        def eot_token_id(self) -> int:
            return self.text_tokenizer.eos_id

        @property
        def prefix_token_id(self) -> int:
            prefix = self.text_tokenizer.encode(self.text_tokenizer.prefix)
            return prefix[0] if prefix else self.eot_token_id

        @property
        def tokenizer_name(self) -> str:
            return str(self.text_tokenizer.folder)

        def chat_template(self, chat_template: bool | str = False) -> str | None:
            if isinstance(chat_template, str):
                raise ValueError(
                    f"chat template {chat_template!r} can't be chosen: the model's own is used."
                )
            return "the model's own" if chat_template else None

        def apply_chat_template(
            self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
        ) -> str:
            text = self.text_tokenizer.chat(chat_history)
            if add_generation_prompt:
                return text
            # The template always opens the answer; an answer begun by the task closes that turn.
            raise ValueError(
                "a task with a begun answer (gen_prefix) is not supported with --chat."
            )

        def tok_encode(
            self, string: str, add_special_tokens: bool | None = None, **_: Any
        ) -> list[int]:
            prefix = self.text_tokenizer.prefix
            if add_special_tokens is not False and not string.startswith(prefix):
                string = prefix + string
            return self.text_tokenizer.encode(string)

        def _loglikelihood_tokens(self, requests, **_: Any) -> list[tuple[float, bool]]:
            pairs = [(context, target) for _, context, target in requests]
            found = [
                (float(scores.logprobs.sum()), bool((scores.law_logprobs[0] > -float("inf")).all()))
                for scores in self._score(pairs)
            ]
            for request, answer in zip(requests, found, strict=True):
                self.cache_hook.add_partial("loglikelihood", request[0], answer)
            return found

        def loglikelihood_rolling(self, requests, disable_tqdm: bool = False) -> list[float]:
            pairs, owner = [], []
            for number, request in enumerate(requests):
                for window in windows.get_rolling_token_windows(
                    token_list=self.tok_encode(request.args[0], add_special_tokens=False),
                    prefix_token=self.prefix_token_id,
                    max_seq_len=self.max_length - 1,  # A window's targets and the token before.
                    context_len=1,
                ):
                    pairs.append(windows.make_disjoint_window(window))
                    owner.append(number)
            totals = [0.0] * len(requests)
            for number, scores in zip(owner, self._score(pairs), strict=True):
                totals[number] += float(scores.logprobs.sum())
            return totals

        def _score(self, pairs):
            """Scores of each target after its context, the context cut on the left to fit."""
            fitting = []
            for context, target in pairs:
                room = self.max_length - len(target)
                if room < 1:
                    raise ValueError(
                        f"a continuation of {len(target)} tokens does not fit the context of "
                        f"{self.max_length}."
                    )
                fitting.append(list(context)[-room:])
            _warn(sum(len(a) < len(b) for a, (b, _) in zip(fitting, pairs)), self.max_length)
            return self._scorer.score(fitting, [target for _, target in pairs], [_GREEDY])

        def generate_until(self, requests, disable_tqdm: bool = False) -> list[str]:
            alike: dict[str, list[int]] = {}  # Requests with equal arguments go together.
            for number, request in enumerate(requests):
                alike.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(number)
            answers = [""] * len(requests)
            for key, numbers in alike.items():
                given = json.loads(key)
                until = given.get("until") or []
                until = [until] if isinstance(until, str) else list(until)
                most = int(given.get("max_gen_toks") or self.max_gen_toks)
                whole = [self.tok_encode(requests[number].args[0]) for number in numbers]
                room = self.max_length - most
                if room < 1:
                    raise ValueError(
                        f"max_gen_toks={most} leaves no room for a prompt in the context of "
                        f"{self.max_length}."
                    )
                prompts = [ids[-room:] for ids in whole]
                _warn(sum(len(a) < len(b) for a, b in zip(prompts, whole)), self.max_length)
                drawn = self.model.generate(
                    prompts, sampling_of(given), 1, most, self.seed, stop_strings=until
                )
                for number, (completion,) in zip(numbers, drawn, strict=True):
                    answers[number] = cut(completion.text, until)
                    self.cache_hook.add_partial(
                        "generate_until", requests[number].args, answers[number]
                    )
            return answers

    return JssdLM


def _warn(num_cut: int, limit: int) -> None:
    if num_cut:
        logging.getLogger(__name__).warning(
            "%d texts did not fit the context of %d tokens and lost their beginning.",
            num_cut,
            limit,
        )


def main(argv: Sequence[str]) -> int:
    """Runs the command; prints the results as JSON."""
    parser = argparse.ArgumentParser(prog="python -m jssd.harness", description=__doc__)
    parser.add_argument("--model", required=True, help="a folder, a .gguf file or a hub id")
    parser.add_argument("--tasks", required=True, help="names of lm_eval tasks, comma between")
    parser.add_argument("--include_path", help="folder with task files of your own")
    parser.add_argument("--num_fewshot", type=int)
    parser.add_argument("--limit", type=int, help="documents per task")
    parser.add_argument("--chat", action="store_true", help="ask through the chat template")
    flags = parser.parse_args(argv)
    try:
        model = lm(api.load(flags.model))
        lm_eval = importlib.import_module("lm_eval")
        tasks = importlib.import_module("lm_eval.tasks")
        found = lm_eval.simple_evaluate(
            model=model,
            tasks=flags.tasks.split(","),
            task_manager=tasks.TaskManager(include_path=flags.include_path),
            num_fewshot=flags.num_fewshot,
            limit=flags.limit,
            apply_chat_template=flags.chat,
        )
    except (ImportError, ValueError, FileNotFoundError) as error:
        print(f"jssd: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(json.dumps(found["results"], indent=1, default=str))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
