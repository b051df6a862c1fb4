"""Arms: raw self-distillation of SmolLM2-135M-Instruct beside its controls, three seeds each.

    python third_party/fetch_smollm2.py
    python -m jssd.main --config=configs/arms_smollm2.py --workdir=runs/arms/raw
    python -m jssd.main --config=configs/arms_smollm2.py:null --workdir=runs/arms/null
    python -m jssd.main --config=configs/arms_smollm2.py:soft --workdir=runs/arms/soft
    python -m jssd.main --config=configs/arms_smollm2.py:passed --workdir=runs/arms/passed
    python -m jssd.evals.arms runs/arms/raw runs/arms/null runs/arms/soft runs/arms/passed

`raw` is the method: one answer a prompt at T 1.0, top-k 20, top-p 0.8, trained on whatever it says.
`null` trains on the model's own law, T 1 with nothing cut off, where theory expects no change.
`soft` trains on the laws the answers of `raw` were drawn from, ours. `passed` trains on those of
them that pass their tests: what does knowing the answer add? The base is scored once, in `raw`; the
last command sets the arms side by side. Hardware: two CPU cores, 5 GB of memory, by estimate three
hours; each run goes on where it was stopped. `configs/sweep_smollm2.py` has the base's decodings.
"""

import dataclasses

from jssd import presets
from jssd.config import (
    Config,
    DecodeConfig,
    EngineConfig,
    EvalConfig,
    ExportConfig,
    FilterConfig,
    ModelSource,
    PromptsConfig,
    SamplingConfig,
    TrainConfig,
)


def get_config(variant: str = "") -> Config:
    """The arm of that name, "raw" for ""; "smoke" shrinks that to a few steps of one seed."""
    config = Config(
        name="arms_smollm2",
        seeds=3,
        model=ModelSource(path="assets/SmolLM2-135M-Instruct.Q4_1.gguf", dtype="float32"),
        prompts=PromptsConfig(source="functions:train", template="task", limit=180),
        sampling=SamplingConfig(temperature=1.0, top_k=20, top_p=0.8, max_new_tokens=80),
        # The laws of the draws, for `soft`: one folder of samples serves three arms.
        engine=EngineConfig(slots=48, keep_law=True),
        # Most answers are cut at 80 tokens; an end there would teach stopping mid-sentence.
        filter=FilterConfig(truncated="no_eos"),
        train=TrainConfig(
            num_steps=45,
            global_batch_size=1,  # A packed row holds about four samples.
            seq_len=512,
            learning_rate=3e-5,
            final_learning_rate=3e-6,
            warmup_steps=5,
            weight_decay=0.0,
            remat="none",
            loss_chunk=512,
            save_every=15,
            keep_last=1,
            log_every=5,
        ),
        evaluate=EvalConfig(
            benchmarks=("functions",),
            decodes=[
                DecodeConfig(name="greedy", temperature=0.0),
                DecodeConfig(name="t0.8", temperature=0.8, top_p=0.95),
                DecodeConfig(name="t1.0", temperature=1.0),
            ],
            base_decode="greedy",
            student_decode="t0.8",
            n=2,
            ks=(1,),
            max_new_tokens=80,
            template="task",
            # This model likes to show an example call in a block of its own after the function.
            extraction="defining_fence",
        ),
        export=ExportConfig(temperature=0.8, top_p=0.95),
    )
    if variant in ("", "raw", "smoke"):
        return presets.variant(config, variant.removeprefix("raw"))
    for decode in config.evaluate.decodes:
        decode.models = ("student",)  # The base's scores are those of `raw`.
    config.evaluate.base_decode = config.evaluate.student_decode = ""
    if variant == "soft":
        config.train.targets = "law"
    elif variant == "passed":
        config.filter.correct = "passed"
    else:
        config.engine.keep_law = False  # A law that nothing was cut off is the whole vocabulary.
        return presets.variant(config, variant)
    return dataclasses.replace(config, name=f"{config.name}-{variant}")
