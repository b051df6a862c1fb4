"""Every flag set starts the compiler it is for; wrong names do not."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys

import pytest

from jssd.plan import absent, hardware
from launch import flags

_TPU = """
from jax.experimental import topologies
topologies.get_topology_desc("v6e:2x2", platform="tpu")
"""
_GPU = "import jax; jax.devices()"  # XLA_FLAGS of all platforms are read by jaxlib itself.
libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu (extra plan) is not installed"
)


def start(variable, value):
    code = _TPU if variable == "LIBTPU_INIT_ARGS" else _GPU
    environment = os.environ | absent.ENVIRONMENT | {"XLA_FLAGS": "", variable: value}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("one", flags.SETS, ids=lambda one: one.name)
def test_a_set_starts(one):
    if one.variable == "LIBTPU_INIT_ARGS" and importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu (extra plan) is not installed")
    run = start(one.variable, " ".join(one.flags))
    assert run.returncode == 0, run.stderr[-2000:]


def test_obsolete_names_end_the_process():
    """jaxlib names all that it does not know at once, so one start is enough."""
    run = start("XLA_FLAGS", " ".join(f"--{name}=1" for name in flags.OBSOLETE))
    assert run.returncode != 0
    refused = set(re.findall(r"--(\w+)=1", run.stderr.split("Unknown flags in XLA_FLAGS:")[1]))
    assert refused == set(flags.OBSOLETE)
    used = {flag.removeprefix("--").split("=")[0] for one in flags.SETS for flag in one.flags}
    assert not used & refused


@libtpu
def test_a_name_that_libtpu_does_not_know_ends_the_process():
    run = start("LIBTPU_INIT_ARGS", "--xla_tpu_no_such_flag=true")
    assert run.returncode != 0 and "xla_tpu_no_such_flag" in run.stderr


def test_sets_say_what_they_must():
    assert len({one.name for one in flags.SETS}) == len(flags.SETS)
    for one in flags.SETS:
        assert set(one.chips) <= set(hardware.CHIPS)
        platforms = {hardware.CHIPS[chip].platform for chip in one.chips}
        assert platforms == {"tpu" if one.variable == "LIBTPU_INIT_ARGS" else "cuda"}
        assert one.purpose and one.source and one.risk
        year, month = map(int, one.date.split("-"))
        assert year >= 2025 and 1 <= month <= 12
    assert "reduce_scatter=false" in flags.environment("tpu7x")["LIBTPU_INIT_ARGS"]
    assert flags.environment("v6e") == {}
    assert "abort_on_hang" in flags.environment("v6e", slices=2)["LIBTPU_INIT_ARGS"]


def test_sets_are_printed_for_a_shell(capsys):
    assert flags.main(["v6e", "dense"]) == 0
    word, assigned = shlex.split(capsys.readouterr().out)
    assert word == "export" and assigned.startswith("LIBTPU_INIT_ARGS=--xla_tpu_scoped_vmem")
    assert flags.main(["v6e", "nothing"]) == 2
    assert "v6e has the sets slices, dense" in capsys.readouterr().err
    assert flags.main(["v6e-64"]) == 0 and capsys.readouterr().out == ""
    for kind in ("v5litepod-16", "v5p-64", "tpu-v6e-64", "tpu7x-4x4x4"):
        assert flags.main([kind, "--slices=2"]) == 0
        printed = capsys.readouterr().out
        assert printed.count("export") == 1 and "abort_on_hang=true" in printed
        assert ("reduce_scatter=false" in printed) == (kind == "tpu7x-4x4x4")
    assert flags.main(["v4-8"]) == 2
    assert "v4-8 is none of the chips b200, h200, tpu7x" in capsys.readouterr().err
