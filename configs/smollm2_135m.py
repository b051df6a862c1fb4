"""SmolLM2-135M-Instruct: the demo as an experiment, with three seeds and a second benchmark.

    python third_party/fetch_smollm2.py
    pip install '.[demo]'
    python -m jssd.main --config=configs/smollm2_135m.py --workdir=runs/smollm2

Every training task is asked in three wordings and answered once in each; each seed draws, trains
and scores anew. Scored on the held-out tasks, which share no family with the training tasks, and on
HumanEval. Hardware: CPU cores will do, a few hours on two of them. The paper has no model of this
size. The recipe is ours: a higher learning rate and fewer steps than the paper's.
"""

from jssd import presets
from jssd.config import (
    Config,
    DecodeConfig,
    EngineConfig,
    EvalConfig,
    ExportConfig,
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
        prompts=PromptsConfig(source="tasks:train", template="task", repeat=3),
        sampling=SamplingConfig(temperature=1.0, top_k=20, top_p=0.8, max_new_tokens=128, n=1),
        engine=EngineConfig(slots=32),
        train=TrainConfig(
            num_steps=80,
            global_batch_size=4,
            seq_len=512,
            learning_rate=3e-5,
            final_learning_rate=3e-6,
            warmup_steps=8,
            weight_decay=0.0,
            remat="none",
            loss_chunk=512,
            save_every=40,
        ),
        evaluate=EvalConfig(
            benchmarks=("tasks", "humaneval"),
            decodes=[
                DecodeConfig(name="greedy", temperature=0.0),
                DecodeConfig(name="t0.8", temperature=0.8, top_p=0.95),
                DecodeConfig(name="t1.0", temperature=1.0),
                DecodeConfig(name="t1.0-k20-p0.8", temperature=1.0, top_k=20, top_p=0.8),
            ],
            base_decode="t0.8",
            student_decode="t0.8",
            n=5,
            ks=(1, 5),
            max_new_tokens=128,
            template="task",
        ),
        export=ExportConfig(temperature=0.8, top_p=0.95),
    )
    return presets.variant(config, variant)
