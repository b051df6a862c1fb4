"""What a plan makes of the compiler's account of memory."""

import types

import pytest

from jssd.plan import hardware, worker

GIB = 2.0**30


def _needed(name, **sizes):
    stats = types.SimpleNamespace(**{f"{name}_in_bytes": size for name, size in sizes.items()})
    compiled = types.SimpleNamespace(memory_analysis=lambda: stats)
    return worker._memory(
        compiled,
        hardware.parse(name),
        {"params": 2 * GIB, "cache": 3 * GIB},
        {"gradients": 1 * GIB},
    )


@pytest.mark.parametrize(
    ("name", "needed", "fits"),
    # Of the 5 GiB held, the program reads 2. A TPU's temporaries share memory in time.
    [("v5e-16", 15 + 3, False), ("v5p-64", 15 + 3, True), ("b200x8", 3 + 2 + 20, True)],
)
def test_memory_is_counted_as_the_compiler_of_the_hardware_does(name, needed, fits):
    found = _needed(
        name, argument_size=2 * GIB, output_size=2 * GIB, alias_size=2 * GIB, temp_size=20 * GIB,
        generated_code_size=0.0, peak_memory=15 * GIB,
    )  # fmt: skip
    assert found["needed"] == needed * GIB
    assert found["fits"] == fits
    assert found["activations"] == (needed - 5 - 1) * GIB
