"""Stage export: the trained weights as an ordinary Hugging Face folder, `export/`."""

import jax

from jssd import phases, places
from jssd.config import LoraConfig
from jssd.model import config as model_config
from jssd.stages import context, students
from jssd.stages.context import Run, as_dtype
from jssd.weights import hf, peft
from jssd.weights.checkpoint import Checkpointer


def run(run: Run) -> None:
    """Exports the last checkpoint. Finds `export/` complete and returns when it was done before.

    What is exported are the weights that training computed with: with train.param_dtype="bfloat16"
    they are bfloat16, the rounding of the optimizer's float32 master, whatever export.dtype.
    Adapters (train.lora) are merged into the base's weights in float32 and rounded once, and with
    export.adapter they lie in `adapter/` too.
    """
    config, folder, adapter = run.config, run.workdir / "export", run.workdir / "adapter"
    context.freeze_settings(run.workdir / "train", context.trained(config))
    wants_adapter = config.export.adapter and not places.is_whole(adapter)
    if places.is_whole(folder) and not wants_adapter:
        return
    source = run.base_folder()
    cfg = model_config.from_hf(hf.read_config(source))
    with (
        phases.phase("export"),
        jax.set_mesh(run.mesh),
        Checkpointer(
            run.workdir / "checkpoints",
            keep_last=config.train.keep_last,
            vocab_size=cfg.vocab_size,
        ) as saved,
    ):
        step = saved.latest_step()
        if step is None or step < config.train.num_steps:
            raise ValueError(
                f"{run.workdir}/checkpoints stands at step {step or 0} of "
                f"train.num_steps={config.train.num_steps}. "
                "Run stage sft first."
            )
        if wants_adapter:
            peft.save(
                adapter,
                students.adapters(run, cfg, saved, step),
                cfg,
                config.train.lora,
                base_model=str(source)
                if config.model.path.endswith(".gguf")
                else config.model.path,
                source_folder=source,
            )
            print(f"exported the adapters of step {step} to {adapter}", flush=True)
        if places.is_whole(folder):
            return
        hf.save(
            folder,
            students.load(run, cfg, saved, step, as_dtype(config.export.dtype)),
            cfg,
            source_folder=source,
            temperature=config.export.temperature,
            top_k=config.export.top_k,
            top_p=config.export.top_p,
            dtype=as_dtype(config.export.dtype),
            shard_bytes=config.export.shard_bytes,
            name=f"{config.name or 'jssd'} student",
            base_model=config.model.path,
            notes=_about(config.train.lora) if config.train.lora.rank else "",
        )
    print(f"exported step {step} to {folder}", flush=True)


def _about(lora: LoraConfig) -> str:
    """What the model card says of adapters."""
    return (
        f"## Training\n\nLow-rank adapters (LoRA) of rank {lora.rank}, alpha "
        f"{lora.alpha or lora.rank:g}, on {', '.join(lora.projections)}, beside frozen weights. "
        "They are merged: these are ordinary weights, and nothing is left to load on top."
    )
