"""Two rounds of self-distillation: the second starts from what the first has exported."""

import json

import pytest

from jssd import main
from jssd.evals import arms
from jssd.weights import hf
from jssd.weights.fingerprint import fingerprint
from tests.e2e import conftest

pytestmark = pytest.mark.usefixtures("one_device")


def test_the_second_round_samples_the_first_ones_student(tiny, tmp_path, capsys):
    config = conftest.load_config(tiny)
    config.rounds, config.train.num_steps = 2, 2
    main.run_stages(config, tmp_path, ["sample", "sft", "export", "evaluate"])
    rounds = [tmp_path / f"round-{i}" for i in range(2)]
    drawn = [conftest.read_lines(folder / "samples/part-00000.jsonl") for folder in rounds]
    names = [{line["fingerprint"] for line in lines} for lines in drawn]
    for folder, name in zip((tiny / "model", rounds[0] / "export"), names, strict=True):
        cfg, params = hf.load(folder)
        assert name == {fingerprint(params, cfg.vocab_size)}
    assert names[0] != names[1]
    # Other draws too: with the old seed the noise would favour the same tokens again.
    assert [{line["seed"] for line in lines} for lines in drawn] == [{0}, {1_000_000}]

    capsys.readouterr()
    assert arms.main([*map(str, rounds), "--json", "--resamples=100"]) == 0
    for row in json.loads(capsys.readouterr().out):
        assert list(row["arms"]) == ["round-0", "round-1"]
        first = rounds[0] / "eval" / row["benchmark"] / row["decode"] / "base" / "scores.json"
        scores = json.loads(first.read_text())
        assert scores["fingerprint"] in names[0]  # The base of all rounds, not of the last.
        assert row["base"]["value"] == scores["pass_at"][str(row["k"])]["value"]
