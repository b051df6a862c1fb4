"""Stage export: the trained weights as an ordinary Hugging Face folder, `export/`."""

import jax

from jssd import phases
from jssd.model import config as model_config
from jssd.model import transformer
from jssd.stages import context
from jssd.stages.context import Run, as_dtype
from jssd.weights import hf
from jssd.weights.checkpoint import Checkpointer


def run(run: Run) -> None:
    """Exports the last checkpoint. Finds `export/` complete and returns when it was done before.

    What is exported are the weights that training computed with: with train.param_dtype="bfloat16"
    they are bfloat16, the rounding of the optimizer's float32 master, whatever export.dtype.
    """
    config, folder = run.config, run.workdir / "export"
    context.freeze_settings(run.workdir / "train", context.trained(config))
    if folder.exists():
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
        like = transformer.abstract_params(cfg, as_dtype(config.train.param_dtype))
        params = saved.restore_params("latest", like)
        hf.save(
            folder,
            params,
            cfg,
            source_folder=source,
            temperature=config.export.temperature,
            top_k=config.export.top_k,
            top_p=config.export.top_p,
            dtype=as_dtype(config.export.dtype),
            shard_bytes=config.export.shard_bytes,
            name=f"{config.name or 'jssd'} student",
            base_model=config.model.path,
        )
    print(f"exported step {step} to {folder}", flush=True)
