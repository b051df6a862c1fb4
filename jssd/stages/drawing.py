"""Draws completions into a sample file, going on where an earlier run was killed.

Shared by sampling and evaluation.
"""

import dataclasses
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
from jssd.stages import context
from jssd.stages.context import Run


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
            tally = generate.Tally(on_turn=survival.go_on)
            with (
                phases.phase("sample", first="compile"),
                writer.progress(len(prompts) * n, path.parent.name, done=len(done)) as advance,
            ):
                keep = keep_support and self._keep_support
                drawn = generate.run(self._engine, requests, keep_support=keep, tally=tally)
                for count, (index, completion) in enumerate(drawn, 1):
                    prompt, number = wanted[index]
                    file.write([self._record(prompt, number, completion, settings, seed)])
                    phases.hold(file.pending)
                    tokens += len(completion.token_ids)
                    cut += completion.finish_reason == "length"
                    rate = tally.tokens / (time.perf_counter() - started)
                    advance(
                        1,
                        f"{rate:.0f} tokens/s, slots {tally.fill:.0%} full, {cut / count:.0%} cut",
                    )
            file.finish()
            phases.hold(False)
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


@dataclasses.dataclass(frozen=True)
class Share:
    """The prompts that this process draws: every `count`-th from `index` on, into its own file.

    Attributes:
      taken: how many shares drew what this process only takes up; 0 if it draws itself.
    """

    index: int
    count: int
    taken: int = 0

    def part(self, folder: pathlib.Path) -> pathlib.Path:
        """The sample file of this process."""
        return _part(folder, self.index)

    def mine(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts of this process."""
        return list(prompts[self.index :: self.count])

    def is_drawn(self, folder: pathlib.Path) -> bool:
        """Whether nothing is left to draw here for this process."""
        return self.taken > 0 or self.part(folder).exists()

    def is_drawn_by_all(self, folder: pathlib.Path) -> bool:
        """Whether nothing is left to draw here for those who load weights together: the processes
        of this job, which shards are not."""
        if jax.process_count() == 1:
            return self.is_drawn(folder)
        return self.taken > 0 or all(_part(folder, i).exists() for i in range(self.count))


def share(run: Run, root: pathlib.Path, folders: Sequence[pathlib.Path]) -> Share:
    """The share of this process, of its shard or its host. `root/hosts.json` keeps their number.

    Args:
      root: of the stage.
      folders: where it puts sample files. When all shares of all of them are there, another
        number of hosts may take them up.

    Raises:
      ValueError: the stage was begun in another number of shares, and these are not all there.
    """
    index, count = jax.process_index(), jax.process_count()
    if run.config.shard:
        if count > 1:
            raise ValueError(
                f"shard={run.config.shard!r} is for a job of one process, not of {count}."
            )
        index, count = map(int, run.config.shard.split("/"))
    path = root / "hosts.json"
    began = context.read_json(path)["hosts"] if path.exists() else count
    if began == count:
        context.write_json(path, {"hosts": count})
        return Share(index, count)
    missing = [p for f in folders for i in range(began) if not (p := _part(f, i)).exists()]
    if missing or run.config.shard:
        least = f"{missing[0]} is not finished" if missing else "all of theirs is drawn"
        raise ValueError(
            f"{root} was begun on {began} hosts or shards and can only go on with as many, not "
            f"{count}: {least}. Use a fresh --workdir, or as many as before."
        )
    return Share(index, count, taken=began)


def _part(folder: pathlib.Path, index: int) -> pathlib.Path:
    return folder / f"part-{index:05d}.jsonl"
