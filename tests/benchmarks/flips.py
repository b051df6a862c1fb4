"""How often rounding flips a draw on a real model, when the number of slots changes.

    python tests/benchmarks/flips.py

The same completions (seed, prompts and sample numbers) are drawn with several numbers of slots.
Two completions agree up to the first token where another rounding of a logit mattered; after that
they are different texts and are not compared. Printed: completions that parted, and one over the
tokens compared for each flip. In strict mode nothing may differ, log-probabilities included.
"""

from absl import app, flags

_MODEL = flags.DEFINE_string("model", "assets/SmolLM2-135M-Instruct.Q4_1.gguf", "GGUF or folder")
_REQUESTS = flags.DEFINE_integer("requests", 48, "completions")
_TOKENS = flags.DEFINE_integer("tokens", 48, "tokens of each")
_SLOTS = flags.DEFINE_multi_integer("slots", [32, 8, 1], "the first is what others are held to")
_DTYPES = flags.DEFINE_list("dtypes", ["float32", "bfloat16"], "of weights and activations")
_TEMPERATURE = flags.DEFINE_float("temperature", 1.0, "of the draws; top-k and top-p are off")


def main(_) -> None:
    import jssd
    from jssd.config import PromptsConfig
    from jssd.data import prompts
    from jssd.evals import benchmarks
    from jssd.model import transformer
    from jssd.sampling import generate
    from jssd.sampling.engine import Engine
    from jssd.sampling.request import Request, Sampling
    from jssd.stages.sample import to_problems

    sampling = Sampling(_TEMPERATURE.value)
    for dtype in _DTYPES.value:
        model = jssd.load(_MODEL.value, dtype)
        asked = prompts.build(
            to_problems(benchmarks.load("functions", "train")), PromptsConfig(template="task"),
            model.tokenizer,
        )[: _REQUESTS.value]  # fmt: skip
        requests = [
            Request(
                tuple(prompt.token_ids), 0, generate.prompt_number(prompt.id), 0, sampling, (),
                _TOKENS.value,
            )
            for prompt in asked
        ]  # fmt: skip
        longest = max(request.size for request in requests)
        params = transformer.unstack(model.params)

        def draw(slots: int, strict: bool):
            engine = Engine(params, model.cfg, num_slots=slots, max_len=longest, strict=strict)  # noqa: B023
            done = dict(generate.run(engine, requests, keep_support=False))  # noqa: B023
            return [done[index] for index in range(len(done))]

        wanted = draw(_SLOTS.value[0], False)
        for slots in _SLOTS.value[1:]:
            parted = compared = 0
            gap = 0.0
            for one, other in zip(draw(slots, False), wanted):
                same = [a == b for a, b in zip(one.token_ids, other.token_ids)]
                until = same.index(False) if False in same else len(same)
                parted += until < len(same)
                compared += min(until + 1, len(same))
                gaps = (abs(a - b) for a, b in zip(one.logprobs[:until], other.logprobs[:until]))
                gap = max(gap, *gaps, 0.0)
            rate = f"1 in {compared / parted:,.0f}" if parted else "none"
            print(
                f"{dtype}, {slots} slots against {_SLOTS.value[0]}: {parted} of {len(wanted)} "
                f"completions part; flips {rate} of {compared} tokens compared; log-probabilities "
                f"differ by up to {gap:.1e} before",
                flush=True,
            )
        strict = [draw(slots, True) for slots in (8, 32)]
        print(f"{dtype}, strict, 8 slots against 32: equal bits: {strict[0] == strict[1]}")


if __name__ == "__main__":
    app.run(main)
