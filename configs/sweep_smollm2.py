"""Sweep of SmolLM2-135M-Instruct: T_train x T_eval with and without truncation, on a laptop's CPU.

    python third_party/fetch_smollm2.py
    python -m jssd.main --config=configs/sweep_smollm2.py --workdir=runs/sweep

Three students, sampled at T_train 0.7, 1.0 and 1.4 with top-k 20 and top-p 0.8, are decoded beside
the base at four temperatures, with no truncation and with top-k 20 and top-p 0.95; temperatures in
between are predicted by re-scoring. T_train 1.0 is also the control of theory: what it gains comes
of the truncation alone. Hardware: two CPU cores, 8 GB of memory, 10 GB of disk, and by estimate a
few hours; ":smoke" is a corner of it in minutes. The paper's grids are of 30B-Instruct, T_train 0.5
to 2.0 (section 3.4); its point is that the score follows T_train x T_eval. `docs/sweeps.md` says
how to read the result.
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
    SweepConfig,
    TrainConfig,
    TruncationConfig,
)


def get_config(variant: str = "") -> Config:
    """The sweep above; "smoke" shrinks it to four cells of two students and of the base."""
    config = Config(
        name="sweep_smollm2",
        stages=("sweep",),
        model=ModelSource(path="assets/SmolLM2-135M-Instruct.Q4_1.gguf", dtype="float32"),
        prompts=PromptsConfig(source="functions:train", template="task", limit=180),
        sampling=SamplingConfig(temperature=1.0, top_k=20, top_p=0.8, max_new_tokens=80),
        engine=EngineConfig(slots=48),
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
            save_every=45,
            keep_last=1,
            log_every=5,
        ),
        sweep=SweepConfig(
            train_temperatures=(0.7, 1.0, 1.4),
            eval_temperatures=(0.4, 0.7, 1.0, 1.3),
            eval_truncations=[TruncationConfig(), TruncationConfig(top_k=20, top_p=0.95)],
            predict_temperatures=(0.55, 0.85, 1.15),
        ),
        evaluate=EvalConfig(
            benchmarks=("functions",),
            decodes=[DecodeConfig(name="t0.7", temperature=0.7, top_k=20, top_p=0.95)],
            base_decode="t0.7",  # The baseline of the students' best cell; it is in the grid.
            student_decode="t0.7",
            n=4,
            ks=(1, 4),
            max_new_tokens=80,
            template="task",
            # This model likes to show an example call in a block of its own after the function.
            extraction="defining_fence",
        ),
        export=ExportConfig(temperature=0.7, top_k=20, top_p=0.95),
    )
    return presets.variant(config, variant)
