"""Draws completions into a sample file, going on where an earlier run was killed.

Shared by sampling and evaluation.
"""

import pathlib
import time
from collections.abc import Sequence

import jax

from jssd import phases, survival
from jssd.config import EngineConfig
from jssd.data.prompts import Prompt
from jssd.data.samples import Sample, SampleWriter
from jssd.data.tokenizer import Tokenizer
from jssd.metrics import Writer
from jssd.model.config import ModelConfig
from jssd.sampling import generate
from jssd.sampling.engine import Engine
from jssd.sampling.request import Request, Sampling


class Drawer:
    """Draws with one set of weights; programs are compiled once for all sample files.

    Args:
      params: weights for decoding (`context.for_decoding`).
      fingerprint: of these weights; goes into every record.
      longest: tokens of the longest prompt plus completion that will be asked for.
    """

    def __init__(
        self,
        params,
        cfg: ModelConfig,
        tokenizer: Tokenizer,
        config: EngineConfig,
        *,
        fingerprint: str,
        longest: int,
        dtype,
    ):
        self._tokenizer = tokenizer
        self._keep_support, self._keep_law = config.keep_support, config.keep_law
        self._max_seq_len = cfg.max_seq_len
        self._fingerprint = fingerprint
        self._engine = Engine(
            params,
            cfg,
            num_slots=config.slots,
            max_len=longest,
            cache_tokens=config.cache_tokens,
            prompt_bucket=config.prompt_bucket,
            prefill_chunk=config.prefill_chunk,
            attention=config.attention,
            cache_dtype=config.cache_dtype,
            decode_steps=config.decode_steps,
            num_stop_ids=max(8, len(tokenizer.stop_ids)),
            strict=config.strict,
            dtype=dtype,
        )

    def use(self, params, fingerprint: str) -> None:
        """Draws with other weights of the same shapes from now on; nothing is compiled anew."""
        self._engine.params = params
        self._fingerprint = fingerprint

    def draw(
        self,
        path: pathlib.Path,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        n: int,
        max_new_tokens: int,
        seed: int,
        writer: Writer,
        keep_support: bool = True,
    ) -> None:
        """Draws `n` completions of each prompt into `path`, in a fixed order; not if complete."""
        if path.exists():
            return
        lens = {prompt.id: len(prompt.token_ids) for prompt in prompts}
        generate.check_lengths(lens, max_new_tokens, self._max_seq_len)
        settings = {
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
            "max_new_tokens": max_new_tokens,
        }
        with SampleWriter(path) as file:
            done = {(record.prompt_id, record.sample) for record in file.records}
            wanted = [
                (prompt, i) for prompt in prompts for i in range(n) if (prompt.id, i) not in done
            ]
            requests = [
                Request(
                    tuple(prompt.token_ids), seed, generate.prompt_number(prompt.id), i, sampling,
                    self._tokenizer.stop_ids, max_new_tokens,
                )
                for prompt, i in wanted
            ]  # fmt: skip
            started, tokens, cut = time.perf_counter(), 0, 0
            tally = generate.Tally(on_turn=_on_turn)
            with (
                phases.phase("sample", first="compile"),
                writer.progress(len(prompts) * n, path.parent.name, done=len(done)) as advance,
            ):
                keep = keep_support and self._keep_support
                drawn = generate.run(self._engine, requests, keep_support=keep, tally=tally)
                for count, (index, completion) in enumerate(drawn, 1):
                    prompt, number = wanted[index]
                    file.write([self._record(prompt, number, completion, settings, seed)])
                    tokens += len(completion.token_ids)
                    cut += completion.finish_reason == "length"
                    rate = tally.tokens / (time.perf_counter() - started)
                    advance(
                        1,
                        f"{rate:.0f} tokens/s, slots {tally.fill:.0%} full, {cut / count:.0%} cut",
                    )
            file.finish()
        seconds = time.perf_counter() - started
        if requests:
            writer.event(
                "drawn",
                path=str(path),
                completions=len(requests),
                tokens=tokens,
                truncated=cut,
                steps=tally.steps,
                fill=round(tally.fill, 4),
                set_back=tally.set_back,
                seconds=round(seconds, 1),
            )
            redone = f", {tally.set_back} set back for want of cache" if tally.set_back else ""
            writer.line(
                f"{path}: {len(requests)} completions, {tokens} tokens, "
                f"{tokens / seconds:.0f} tokens/s, slots {tally.fill:.0%} full{redone}"
            )

    def _record(
        self,
        prompt: Prompt,
        number: int,
        completion: generate.Completion,
        settings: dict,
        seed: int,
    ) -> Sample:
        return Sample(
            prompt_id=prompt.id,
            sample=number,
            prompt=prompt.text,
            prompt_token_ids=prompt.token_ids,
            token_ids=completion.token_ids,
            text=self._tokenizer.decode(completion.token_ids),
            logprobs=completion.logprobs,
            support_sizes=completion.support_sizes,
            support_ids=completion.support_ids,
            support_probs=completion.support_probs if self._keep_law else [],
            finish_reason=completion.finish_reason,
            sampling=settings,
            seed=seed,
            fingerprint=self._fingerprint,
            template=prompt.template,
        )


def _on_turn() -> None:
    phases.beat()
    survival.check()


def part(folder: pathlib.Path) -> pathlib.Path:
    """The sample file of this process."""
    return folder / f"part-{jax.process_index():05d}.jsonl"


def mine(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts of this process."""
    return list(prompts[jax.process_index() :: jax.process_count()])
