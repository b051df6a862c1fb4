"""What compilers say, made readable."""

import pytest

from jssd.plan import complaints

TPU = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries "
    "(19.63G) exceeds available HBM (15.75G)."
)
OLD_TPU = """RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space
hbm. Used 20.00G of 15.75G hbm. Exceeded hbm capacity by 4.25G.
  1. Size: 4.00G
     Operator: op_name="jit(f)/dot_general"
     Shape: f32[32768,32768]{1,0:T(8,128)}
"""


def test_a_tpu_that_is_too_small_says_by_how_much():
    found = complaints.read(RuntimeError(TPU))
    assert found.kind == "memory" and found.wanted == 19.63 * 2**30
    assert found.text.startswith("needs 19.63 GiB of a device's 15.75 GiB: 3.88 GiB too much")


def test_the_largest_allocations_are_told_where_the_compiler_lists_them():
    found = complaints.read(RuntimeError(OLD_TPU))
    assert "needs 20.00 GiB of a device's 15.75 GiB" in found.text
    assert "Largest: 4.00 GiB f32[32768,32768]" in found.text


def test_a_setting_is_told_as_it_is():
    found = complaints.read(ValueError("vocab_size=151936 must be\n a multiple of 3"))
    assert (found.kind, found.text) == ("setting", "vocab_size=151936 must be a multiple of 3")


def test_other_errors_keep_their_first_lines_and_a_bare_one_says_where():
    found = complaints.read(RuntimeError("INTERNAL: no\nway\nout\n#0 trace"))
    assert (found.kind, found.text) == ("compiler", "RuntimeError: INTERNAL: no way out")
    try:
        raise AssertionError
    except AssertionError as error:
        assert "complaints_test.py" in complaints.read(error).text


@pytest.mark.parametrize(
    ("code", "stderr", "words"),
    [
        (-6, "x\nF0101 fusion_util.cc:12] Check failed: a == b\nend", ("SIGABRT", "Check failed")),
        (-9, "", ("SIGKILL", "memory runs out", "none")),
        (3, "gone", ("code 3", "gone")),
    ],
)
def test_a_process_that_died_tells_its_last_words(code, stderr, words):
    found = complaints.died(code, stderr)
    assert found.kind == "crash" and all(word in found.text for word in words)


def test_a_gpu_is_compared_with_its_memory():
    found = complaints.over(200 * 2**30, 160 * 2**30)
    assert found.kind == "memory" and "1.25 times" in found.text
