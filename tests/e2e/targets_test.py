"""Soft targets through the stages: the laws that sampling stored are what training aims at."""

import itertools
import math

import pytest

from jssd import main
from tests.e2e import conftest

pytestmark = pytest.mark.usefixtures("one_device")


def test_the_loss_is_that_of_the_stored_laws(tiny, tmp_path):
    config = conftest.load_config(tiny)
    config.engine.keep_law, config.train.targets = True, "law"
    # All samples once in the first step, and no token without a law.
    config.train.packing, config.train.global_batch_size = "none", config.prompts.limit
    config.train.num_steps, config.filter.truncated = 2, "no_eos"
    main.run_stages(config, tmp_path, ["sample"])
    config.engine.keep_law = False  # Samples that hold laws can be trained on whatever it says now.
    main.run_stages(config, tmp_path, ["sft"])
    losses = []
    for sample in conftest.read_lines(tmp_path / "samples" / "part-00000.jsonl"):
        stored = iter(zip(sample["support_ids"], sample["support_probs"], strict=True))
        tokens = zip(sample["token_ids"], sample["logprobs"], sample["support_sizes"], strict=True)
        for token, logprob, size in tokens:
            law = dict(itertools.islice(stored, size))
            assert sum(law.values()) == pytest.approx(1, abs=1e-5)
            # At T 1 the model gives each token of the law its probability times what is kept.
            log_kept = logprob - math.log(law[token])
            losses.append(-sum(p * (math.log(p) + log_kept) for p in law.values() if p > 0))
    first, _ = conftest.read_lines(tmp_path / "train" / "metrics.jsonl")
    assert first["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    drawn = -sum(
        sum(sample["logprobs"])
        for sample in conftest.read_lines(tmp_path / "samples" / "part-00000.jsonl")
    )
    assert abs(first["loss"] - drawn / len(losses)) > 0.01  # Not that of the tokens drawn.
