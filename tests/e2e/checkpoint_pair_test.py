"""Stage mechanism on training checkpoints, which nothing has exported."""

import pytest

from jssd import main
from tests.e2e import conftest

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def trained(tiny, one_device, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained") / "run"
    config = load(tiny)
    config.train.num_steps, config.train.save_every, config.prompts.limit = 2, 1, 4
    config.train.param_dtype = "bfloat16"  # The run's own settings count, not those of who looks.
    main.run_stages(config, workdir, ["sample", "sft", "export"])
    return workdir


def load(root, **fields):
    config = conftest.load_config(root)
    config.mechanism.limit, config.mechanism.temperatures = 2, (1.0,)
    for name, value in fields.items():
        setattr(config.mechanism, name, str(value))
    return config


def looked(config, workdir):
    """Fingerprints, and the losses by model."""
    main.run_stages(config, workdir, ["mechanism"])
    lines = conftest.read_lines(workdir / "mechanism" / "tokens.jsonl")
    models = ("base", "student")
    losses = {m: [row[m]["loss"] for line in lines for row in line["tokens"]] for m in models}
    return lines[0]["fingerprints"], losses


def test_a_checkpoint_is_what_is_exported_of_it(trained, tiny, tmp_path):
    contexts = trained / "samples" / "part-00000.jsonl"
    last, other = trained / "checkpoints" / "2", trained / "checkpoints" / "1"
    of_export, wanted = looked(
        load(tiny, student=trained / "export", contexts=contexts), tmp_path / "export"
    )
    of_last, found = looked(load(tiny, student=last, contexts=contexts), tmp_path / "last")
    assert (of_last, found) == (of_export, wanted)
    before = sorted(trained.rglob("*"))
    of_pair, _ = looked(load(tiny, base=other, student=last, contexts=contexts), tmp_path / "pair")
    assert of_pair["student"] == of_last["student"]
    assert of_pair["base"] not in of_last.values()
    assert sorted(trained.rglob("*")) == before  # It may be another job's.


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("checkpoints/7", r"checkpoints/7 does not exist\. Checkpoints of .*run: 1, 2\."),
        ("nowhere/checkpoints/7", r"Checkpoints of .*nowhere: none\."),
    ],
)
def test_a_checkpoint_that_is_not_there(trained, tiny, tmp_path, name, message):
    with pytest.raises(FileNotFoundError, match=message):
        main.run_stages(load(tiny, student=trained / name), tmp_path, ["mechanism"])


def test_a_work_directory_that_does_not_say_what_was_trained(tiny, tmp_path):
    (tmp_path / "bare" / "checkpoints" / "2").mkdir(parents=True)
    config = load(tiny, student=tmp_path / "bare" / "checkpoints" / "2")
    with pytest.raises(ValueError, match=r"bare holds neither config\.json nor settings\.json"):
        main.run_stages(config, tmp_path / "run", ["mechanism"])
