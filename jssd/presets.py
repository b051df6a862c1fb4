"""What the files in `configs/` share: the variants that `--config=file.py:variant` can name."""

import dataclasses

from jssd.config import Config, SweepConfig

VARIANTS = ("", "smoke", "null")


def variant(config: Config, name: str) -> Config:
    """`config` itself for "", a copy that only shrinks for "smoke", the null control for "null".

    A smoke run asks the same model in the same words and by the same laws; it asks fewer problems
    for shorter answers and takes fewer, smaller steps.

    The null control draws what is trained on from the model's own law: T_train 1, nothing cut off.
    Then the expected gradient of the first step is zero (the paper's loss has no support
    compression and no reshaping left), and what still moves is noise, optimization and the filters.
    The published grid shows a gain at T_train 1 that theory does not have; this run tells such a
    gain from the method's own.

    Raises ValueError for any other name.
    """
    if name not in VARIANTS:
        raise ValueError(
            f"variant={name!r} of {config.name} is unknown. Leave it out, or write ':smoke' or "
            "':null'."
        )
    return {"": lambda same: same, "smoke": _smoke, "null": _null}[name](config)


def _null(config: Config) -> Config:
    sweep = config.sweep
    return dataclasses.replace(
        config,
        name=f"{config.name}-null",
        sampling=dataclasses.replace(
            config.sampling, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0
        ),
        # Of a sweep, one student: `[]` takes the law above.
        sweep=dataclasses.replace(
            sweep,
            train_temperatures=sweep.train_temperatures and (1.0,),
            train_truncations=[],
        ),
    )


def _smoke(config: Config) -> Config:
    train, evaluate = config.train, config.evaluate
    num_steps = min(train.num_steps, 4)
    limit = lambda value, most: min(value or most, most)  # 0 means all.
    return dataclasses.replace(
        config,
        name=f"{config.name}-smoke",
        seeds=1,
        rounds=min(config.rounds, 2),
        prompts=dataclasses.replace(config.prompts, limit=limit(config.prompts.limit, 8), repeat=1),
        sampling=dataclasses.replace(
            config.sampling, max_new_tokens=min(config.sampling.max_new_tokens, 64), n=1
        ),
        engine=dataclasses.replace(config.engine, slots=min(config.engine.slots, 8)),
        train=dataclasses.replace(
            train,
            num_steps=num_steps,
            warmup_steps=min(train.warmup_steps, 1),
            save_every=min(train.save_every, 2),
            global_batch_size=min(train.global_batch_size, 8),
            grad_accum=1,
            seq_len=min(train.seq_len, 4096),  # Competition problems take over a thousand.
            loss_chunk=min(train.loss_chunk, 256),
        ),
        sweep=_smoke_sweep(config.sweep),
        evaluate=dataclasses.replace(
            evaluate,
            n=min(evaluate.n, 2),
            ks=tuple(k for k in evaluate.ks if k <= min(evaluate.n, 2)) or (1,),
            limit=limit(evaluate.limit, 4),
            max_new_tokens=min(evaluate.max_new_tokens, 64),
            bootstrap=min(evaluate.bootstrap, 200),
        ),
    )


def _smoke_sweep(sweep: SweepConfig) -> SweepConfig:
    """A corner of each grid: students and decodings at the ends, one truncation, the last step."""
    ends = lambda values: tuple(dict.fromkeys((*values[:1], *values[-1:])))
    return dataclasses.replace(
        sweep,
        train_temperatures=ends(sweep.train_temperatures),
        train_truncations=sweep.train_truncations[:1],
        checkpoints=(),
        eval_temperatures=ends(sweep.eval_temperatures),
        eval_truncations=sweep.eval_truncations[:1],
        predict_temperatures=sweep.predict_temperatures[:1],
        predict_truncations=sweep.predict_truncations[:1],
    )
