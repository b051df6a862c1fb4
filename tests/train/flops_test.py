"""FLOPs counted by hand."""

import dataclasses

import pytest

from jssd.train import flops


def test_count_by_hand(toy):
    # One layer: q and o 16x4x8 each, k and v 16x2x8 each, three 16x32 matrices.
    assert flops.block_weights(toy.cfg) == 2 * 512 + 2 * 256 + 3 * 512
    counted = flops.train_flops(toy.cfg, tokens=10, response_tokens=4, attention_pairs=55)
    forward = 2 * (2 * 3072 * 10 + 2 * (2 * 4 * 8) * 55 + 16 * 64 * 4)
    assert counted == 3 * forward


def test_a_token_is_multiplied_with_the_router_and_with_its_own_experts_only(toy):
    moe = dataclasses.replace(toy.cfg, num_experts=8, experts_per_token=2)
    # Attention as above, a router of 16x8, and two experts of three 16x32 matrices.
    assert flops.block_weights(moe) == 2 * 512 + 2 * 256 + 128 + 2 * 3 * 512
    more = dataclasses.replace(moe, num_experts=16)
    assert flops.block_weights(more) == flops.block_weights(moe) + 128


def test_head_and_attention_cost_nothing_where_they_do_not_run(toy):
    none = flops.train_flops(toy.cfg, tokens=10, response_tokens=0, attention_pairs=0)
    assert none == 6 * 10 * 2 * flops.block_weights(toy.cfg)


@pytest.mark.parametrize(
    ("kind", "peak"), [("TPU7x", 1153.5e12), ("NVIDIA H100 PCIe", None), ("cpu", None)]
)
def test_peak_is_a_vendor_figure_or_nothing(kind, peak):
    assert flops.peak_flops(kind) == peak
