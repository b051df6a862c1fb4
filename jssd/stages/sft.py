"""Stage sft: fine-tunes the base model on its own raw samples, into `checkpoints/`."""

import dataclasses
from collections.abc import Sequence

import jax

from jssd import phases, sharding, survival
from jssd.data import examples, filters, pipeline, samples
from jssd.model import lora
from jssd.stages import context, judges, together
from jssd.stages.context import Run
from jssd.train import flops, loop
from jssd.train.optimizer import make_optimizer
from jssd.train.step import TrainStep, abstract_state, init_state, make_train_step
from jssd.weights.checkpoint import Checkpointer
from jssd.weights.fingerprint import fingerprint


def run(run: Run) -> None:
    """Trains from the newest checkpoint, or from the base, up to `train.num_steps`.

    Raises `survival.Stopped` when the run was told to stop, and is saved.
    """
    run_all([run])


def run_all(runs: Sequence[Run]) -> None:
    """Stage sft of runs that differ in nothing but their samples: all take the same jitted step,
    which is compiled once for supports of one width."""
    train_step = None
    for run in runs:
        train_step = _run(run, train_step)


def _run(run: Run, train_step: TrainStep | None) -> TrainStep:
    """Trains with `train_step`, or with one that is made. Returns it, without frozen weights."""
    config, adapted = run.config, run.config.train.lora
    context.freeze_settings(run.workdir / "train", context.trained(config))
    drawn = samples.read_folder(run.workdir / "samples")
    with run.writer("train") as writer, jax.set_mesh(run.mesh):
        drawn_from, weights = run.load(run.base_folder())
        name = fingerprint(weights, drawn_from.vocab_size)
        del weights
        base = None
        if adapted.rank:
            cfg, base = run.load(run.base_folder(), config.train.param_dtype)
            params = lora.init_adapters(cfg, adapted, config.train.seed)
        else:
            cfg, params = run.load(run.base_folder(), "float32")  # The optimizer rounds them.
        _check_origin(drawn, name, config.train.allow_foreign_samples)
        run.verify_samples()
        batches = _batches(run, drawn, writer)

        optimizer = make_optimizer(config.train)
        with Checkpointer(
            run.workdir / "checkpoints",
            keep_last=config.train.keep_last,
            meta={"fingerprint": name},
            vocab_size=cfg.vocab_size,
        ) as checkpointer:
            with phases.phase("restore"):
                restored = checkpointer.restore_latest(abstract_state(params, optimizer))
            if restored is None:
                state = init_state(params, optimizer)
            else:
                state, position, meta = restored
                if meta["fingerprint"] != name:
                    raise ValueError(
                        f"{run.workdir}/checkpoints was trained from weights "
                        f"{meta['fingerprint']}, model.path gives "
                        f"{name}. Use a fresh --workdir or the first model."
                    )
                batches.set_state(position)
            del params  # The state owns them; its first step donates them.
            writer.resume(int(state.step))
            phases.mark("restored", step=int(state.step))
            if train_step is None:
                train_step = make_train_step(
                    cfg, optimizer, config.train, context.as_dtype(config.model.compute_dtype)
                )
            state = loop.train(
                state,
                batches,
                dataclasses.replace(train_step, base=base),
                cfg=cfg,
                num_steps=config.train.num_steps,
                log_every=config.train.log_every,
                save_every=config.train.save_every,
                writer=writer,
                checkpointer=checkpointer,
                should_stop=together.Together(
                    writer, every=config.survival.stragglers_every
                ).should_stop,
                adapters=flops.adapter_weights(cfg, adapted),
            )
            with phases.phase("save"):
                checkpointer.wait()
            phases.hold(False)
            phases.mark("kept", phase="step")
        step = int(state.step)
        if step < config.train.num_steps:
            writer.line(f"saved step {step} of {config.train.num_steps}")
            raise survival.Stopped
    return train_step


def _check_origin(drawn: list[samples.Sample], name: str, allowed: bool) -> None:
    """Refuses samples that other weights drew: a model is trained on its own answers."""
    foreign = sorted({sample.fingerprint for sample in drawn} - {name})
    if foreign and not allowed:
        raise ValueError(
            f"samples were drawn by weights {', '.join(foreign)}, but model.path holds {name}. "
            "Sample again, or set "
            "train.allow_foreign_samples=True if you mean to distil another model."
        )


def _batches(run: Run, drawn: list[samples.Sample], writer) -> pipeline.Batches:
    config = run.config
    answers = run.answers()
    kept, counts = filters.apply(drawn, config.filter, judges.rules(run, writer, answers), answers)
    stats = filters.stats(kept)
    told = ", ".join(
        f"{name} {count['dropped']}" for name, count in counts.items() if name != "read"
    )
    writer.line(f"filters dropped: {told or 'nothing'}; {len(kept)} of {len(drawn)} samples left")
    eos_id = run.tokenizer().eos_id if config.filter.truncated == "keep" else None
    shards, shard_count = sharding.batch_shards()
    batches = pipeline.Batches(
        examples.from_samples(kept, eos_id, targets=config.train.targets, answers=answers),
        seq_len=config.train.seq_len,
        global_batch_size=config.train.global_batch_size,
        seed=config.train.seed,
        packing=config.train.packing,
        grad_accum=config.train.grad_accum,
        shards=shards,
        shard_count=shard_count,
    )
    report = batches.report()
    writer.line(
        f"an epoch is {report['batches_per_epoch']:.1f} batches, "
        f"{report['loss_tokens_per_batch']:.0f} tokens in the loss a batch"
    )
    told = ", ".join(
        f"{mode}{' (in force)' if mode == report['packing'] else ''} "
        f"{cost['real']:.0f}/{cost['computed']:.0f} = {cost['share']:.0%}"
        for mode, cost in report["tokens_per_step"].items()
    )
    writer.line(f"tokens a step, real/computed, by train.packing: {told}")
    context.write_json(
        run.workdir / "data" / "stats.json",
        {"filters": counts, "samples": stats, "batches": report},
    )
    return batches
