"""SmolLM2-135M-Instruct: the demo as an experiment, with three seeds and a second benchmark.

    python third_party/fetch_smollm2.py
    pip install '.[demo]'
    python -m jssd.main --config=configs/smollm2_135m.py --workdir=runs/smollm2

Every training task is answered once; each of three seeds draws, trains for about one pass and is
scored anew, on HumanEval, with five samples a problem for pass@1 and pass@5. Hardware: two CPU
cores, 10 GB of memory, about an hour and a half. The paper has no model of this size. The recipe is
ours: a higher learning rate and fewer steps than the paper's. The README has the numbers.
"""

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
    """The run above; "smoke" shrinks it to a few steps of one seed."""
    config = Config(
        name="smollm2_135m",
        seeds=3,
        model=ModelSource(path="assets/SmolLM2-135M-Instruct.Q4_1.gguf", dtype="float32"),
        prompts=PromptsConfig(source="tasks:train", template="task"),
        sampling=SamplingConfig(temperature=1.0, top_k=20, top_p=0.8, max_new_tokens=80),
        engine=EngineConfig(slots=96),
        # Most answers are cut at 80 tokens; an end there would teach stopping mid-sentence.
        filter=FilterConfig(truncated="no_eos"),
        train=TrainConfig(
            num_steps=80,
            global_batch_size=1,  # A packed row holds about four samples.
            seq_len=512,
            learning_rate=3e-5,
            final_learning_rate=3e-6,
            warmup_steps=8,
            weight_decay=0.0,
            remat="none",
            loss_chunk=512,
            save_every=20,
            log_every=5,
        ),
        evaluate=EvalConfig(
            benchmarks=("humaneval",),
            decodes=[
                DecodeConfig(name="greedy", temperature=0.0, models=("base",)),
                DecodeConfig(name="t0.8", temperature=0.8, top_p=0.95),
                DecodeConfig(name="t1.0", temperature=1.0),
            ],
            base_decode="greedy",
            student_decode="t0.8",
            n=5,
            ks=(1, 5),
            max_new_tokens=80,
            template="task",
            extraction="defining_fence",
        ),
        export=ExportConfig(temperature=0.8, top_p=0.95),
    )
    return presets.variant(config, variant)
