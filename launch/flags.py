"""Sets of XLA flags by chip, as data: what for, whose, as of when, and what may go wrong.

    python -m launch.flags v6e dense             prints the variable to export
    python -m launch.flags tpu7x-4x4x4           those of the chip's default sets; may be none
    python -m launch.flags v6e-64 --slices=2     the same for a run of several slices

The shortest list that is safe is the default. A name that the compiler doesn't know ends the
process at its start, so a test starts libtpu and jaxlib with every set.
"""

import argparse
import dataclasses
import re
import shlex
import sys


@dataclasses.dataclass(frozen=True)
class FlagSet:
    """Flags that belong together.

    Attributes:
      chips: keys of `jssd.plan.hardware.CHIPS`.
      variable: of the environment.
      default: whether manifests for these chips have it.
      source: who says so.
      date: of the source, as year-month.
      risk: what may go wrong.
      several_slices: for runs of several TPU slices only.
    """

    name: str
    chips: tuple[str, ...]
    variable: str
    flags: tuple[str, ...]
    default: bool
    purpose: str
    source: str
    date: str
    risk: str
    several_slices: bool = False


_TPUS = ("v5e", "v5p", "v6e", "tpu7x")
SETS = (
    FlagSet(
        "no_reduce_offload", ("tpu7x",), "LIBTPU_INIT_ARGS",
        (
            "--xla_tpu_enable_sparse_core_collective_offload_all_reduce=false",
            "--xla_tpu_enable_sparse_core_collective_offload_reduce_scatter=false",
        ),
        default=True,
        purpose="sums between chips stay off the SparseCores",
        source="apple/axlearn compiler_options.py: abnormal losses with them in JAX 0.8.3, in "
        "fine-tuning too; Google's recipes switch them on",
        date="2026-02",
        risk="slower than it could be, until a run with equal losses says otherwise",
    ),
    FlagSet(
        "slices", _TPUS, "LIBTPU_INIT_ARGS",
        (
            "--megascale_error_reporter_abort_on_hang=true",
            "--megascale_error_reporter_abort_on_error=true",
            "--megascale_graph_hang_threshold=10m",
        ),
        default=True,
        purpose="a network between slices that hangs ends the process, and the job starts again",
        source="apple/axlearn compiler_options.py",
        date="2026-02",
        risk="a step longer than ten minutes would be taken for a hang",
        several_slices=True,
    ),
    FlagSet(
        "dense", ("v6e",), "LIBTPU_INIT_ARGS",
        (
            "--xla_tpu_scoped_vmem_limit_kib=98304",
            "--xla_tpu_enable_async_collective_fusion=true",
            "--xla_tpu_enable_async_collective_fusion_fuse_all_gather=true",
            "--xla_tpu_enable_async_collective_fusion_multiple_steps=true",
            "--xla_tpu_overlap_compute_collective_tc=true",
            "--xla_enable_async_all_gather=true",
        ),
        default=False,
        purpose="collectives run beside matmuls",
        source="AI-Hypercomputer/maxtext, apple/axlearn",
        date="2026-02",
        risk="compiles several times as long",
    ),
    FlagSet(
        "overlap", ("b200", "h200"), "XLA_FLAGS",
        (
            "--xla_gpu_enable_latency_hiding_scheduler=true",
            "--xla_gpu_nccl_termination_timeout_seconds=600",
        ),
        default=True,
        purpose="collectives run beside matmuls; one that hangs ends the process",
        source="NVIDIA/JAX-Toolbox; marin-community/marin 7350",
        date="2026-08",
        risk="more memory; the time-out does not see every hang (jax 38503)",
    ),
)  # fmt: skip
# The process would not start: names that copied flag sets still have, but jaxlib 0.10.2 hasn't.
OBSOLETE = (
    "xla_gpu_graph_level",
    "xla_gpu_enable_async_collectives",
    "xla_gpu_enable_async_all_gather",
    "xla_gpu_enable_async_all_reduce",
    "xla_gpu_enable_async_all_to_all",
    "xla_gpu_enable_async_collective_broadcast",
    "xla_gpu_enable_async_collective_permute",
    "xla_gpu_enable_async_reduce_scatter",
    "xla_gpu_lhs_enable_gpu_async_tracker",
    "xla_gpu_enable_triton_softmax_fusion",
    "xla_gpu_enable_nccl_per_stream_comms",
    "xla_gpu_enable_custom_fusions",
    "xla_gpu_enable_address_computation_fusion",
    "xla_gpu_cudnn_gemm_fusion",  # But xla_gpu_cudnn_gemm_fusion_level is known.
    "xla_gpu_executable_terminate_timeout_seconds",
)


def environment(chip: str, slices: int = 1) -> dict[str, str]:
    """The default flags of a chip, by the variable they go in."""
    found: dict[str, str] = {}
    for one in SETS:
        if one.default and chip in one.chips and (slices > 1 or not one.several_slices):
            found[one.variable] = " ".join((*found.get(one.variable, "").split(), *one.flags))
    return found


def chip_of(kind: str) -> str:
    """The chip of an accelerator as launchers write it: v5litepod-16, tpu-v6e-64, tpu7x-4x4x4.

    Raises:
      ValueError: a chip that no set is known for.
    """
    chip = re.sub(r"-[\dx]+$", "", kind.removeprefix("tpu-"))
    chip = {"v5litepod": "v5e"}.get(chip, chip)
    known = sorted({chip for one in SETS for chip in one.chips})
    if chip not in known:
        raise ValueError(f"{kind} is none of the chips {', '.join(known)}.")
    return chip


def main(argv: list[str]) -> int:
    """Prints `export NAME=FLAGS` for a chip: of a set, or of the default ones."""
    parser = argparse.ArgumentParser(prog="flags", allow_abbrev=False)
    parser.add_argument("chip")
    parser.add_argument("set", nargs="?")
    parser.add_argument("--slices", type=int, default=1)
    asked = parser.parse_args(argv)
    try:
        chip = chip_of(asked.chip)
    except ValueError as error:
        print(f"flags: error: {error}", file=sys.stderr)
        return 2
    found = environment(chip, asked.slices)
    if asked.set:
        known = {one.name: one for one in SETS if chip in one.chips}
        if asked.set not in known:
            print(f"flags: error: {chip} has the sets {', '.join(known)}.", file=sys.stderr)
            return 2
        one = known[asked.set]
        found = {one.variable: " ".join(one.flags)}
    for variable, value in found.items():
        print(f"export {variable}={shlex.quote(value)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
