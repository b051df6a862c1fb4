"""Filters that parse or grade: which completions stay, and that they stay the same."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jssd import sharding
from jssd.config import Config, EvalConfig, FilterConfig, MeshConfig, ModelSource, PromptsConfig
from jssd.data import filters
from jssd.data.tokenizer import Tokenizer
from jssd.evals import benchmarks
from jssd.main import run_stages
from jssd.metrics import Writer
from jssd.model import transformer
from jssd.rules import validate
from jssd.stages import judges
from jssd.stages.context import Run
from jssd.weights import hf
from tests.data.filters_test import OFF, sample, texts
from tests.e2e import conftest

FENCED = "Here:\n```python\nx = 1\n```"
OPEN = "```python\nx = 1\n"  # Grading reads a block that is never closed.
BROKEN = "```python\nx = = 1\n```"
ZERO = "```python\nx = '\0'\n```"
PROSE = "x = 1"


def run_with(workdir, **settings) -> Run:
    config = Config(
        model=ModelSource("m"),
        prompts=PromptsConfig(source="tasks:train"),
        filter=FilterConfig(drop_empty=False, drop_stubs=False, **settings),
        evaluate=EvalConfig(timeout=5.0),
    )
    return Run(config, workdir, jax.make_mesh((1,), ("data",)))


def apply(run: Run, drawn):
    with Writer(run.workdir / "train") as writer:
        return filters.apply(drawn, run.config.filter, judges.rules(run, writer))


@pytest.fixture(scope="module")
def answers():
    """Two tasks, each answered by its reference and by a program of another kind."""
    found = benchmarks.load("tasks", "train")
    function = next(task for task in found if task.entry_point)
    program = next(task for task in found if not task.entry_point)
    drawn = []
    for name, task in ((function.id, function), (f"{program.id}#1", program)):
        for n, code in enumerate((task.reference, "raise SystemExit(1)")):
            one = sample(f"```python\n{code}\n```", n=n)
            drawn.append(dataclasses.replace(one, prompt_id=name))
    return drawn


def test_a_format_is_what_grading_would_read(tmp_path):
    drawn = [sample(text) for text in (FENCED, OPEN, BROKEN, ZERO, PROSE, "")]
    kept, counts = apply(run_with(tmp_path, format="fence"), drawn)
    assert texts(kept) == [FENCED, OPEN, BROKEN, ZERO]
    assert counts["format"] == {"dropped": 2, "left": 4}
    assert texts(apply(run_with(tmp_path, format="python"), drawn)[0]) == [FENCED, OPEN]


@pytest.mark.parametrize(("wanted", "number"), [("passed", 0), ("failed", 1)])
def test_the_control_arm_keeps_what_the_tests_say(tmp_path, answers, wanted, number):
    kept, counts = apply(run_with(tmp_path, correct=wanted), answers)
    assert [one.sample for one in kept] == [number, number]
    assert counts["correct"] == {"dropped": 2, "left": 2}


def test_verdicts_are_asked_once(tmp_path, answers):
    run = run_with(tmp_path, correct="passed")
    apply(run, answers)
    path = tmp_path / "data" / judges.CORRECT
    tree = json.loads(path.read_text())
    assert tree["said"] == ["passed", "runtime_error", "passed", "runtime_error"]
    path.write_text(json.dumps(tree | {"said": ["timeout", "timeout", "passed", "timeout"]}))
    assert [one.prompt_id for one in apply(run, answers)[0]] == [answers[2].prompt_id]
    with pytest.raises(ValueError, match="for other samples"):
        apply(run, answers[:2])
    run.config.evaluate.timeout = 6.0
    with pytest.raises(ValueError, match=r"for other settings.*5\.0.*6\.0"):
        apply(run, answers)


def test_a_sample_of_no_task_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no tests for the sample of prompt 'p'"):
        apply(run_with(tmp_path, correct="passed"), [sample(FENCED)])


def test_prompts_without_tests_are_refused_before_sampling(tmp_path):
    config = run_with(tmp_path, correct="passed").config
    config.prompts.source = "problems.jsonl"
    with pytest.raises(ValueError, match=r"problems\.jsonl.* has none.*tasks:SPLIT"):
        run_stages(config, tmp_path, ["sample", "sft"])
    assert not (tmp_path / "samples").exists()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    return conftest.make_model(tmp_path_factory.mktemp("proxy") / "model")


def spoken(tokenizer: Tokenizer, text: str, n: int):
    ids = tokenizer.encode(text)
    one = sample(text, n=n, tokens=tuple(ids))
    return dataclasses.replace(one, prompt="Q", prompt_token_ids=tokenizer.encode("Q"))


def test_the_proxy_keeps_what_it_finds_likeliest(tmp_path, proxy):
    tokenizer = Tokenizer(proxy)
    drawn = [spoken(tokenizer, text, n) for n, text in enumerate(("ab", "xyz", "q", "aaaa", "zz"))]
    cfg, params = hf.load(proxy)
    means = []
    forward = jax.jit(lambda ids: transformer.apply(params, cfg, ids, jnp.arange(8)[None]))
    for one in drawn:  # By one plain forward pass, a completion at a time.
        ids = [*one.prompt_token_ids, *one.token_ids]
        # What comes after a token says nothing of it: zeros give all one length, one program.
        logits = np.asarray(forward(jnp.array([ids + [0] * (8 - len(ids))]))[0], np.float64)
        logprobs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        told = logprobs[np.arange(len(ids) - 1), ids[1:]]
        means.append(float(told[len(one.prompt_token_ids) - 1 :].mean()))
    run = run_with(tmp_path, proxy_model=str(proxy), proxy_keep_percent=41.0)
    run = dataclasses.replace(run, mesh=sharding.make_mesh(MeshConfig()))  # Eight devices.
    kept, counts = apply(run, drawn)
    assert [one.sample for one in kept] == sorted(np.argsort(means)[-3:])  # 5 x 0.41, upwards.
    assert counts["proxy_model"] == {"dropped": 2, "left": 3}
    found = json.loads((tmp_path / "data" / judges.PROXY).read_text())
    np.testing.assert_allclose(found["said"], means, rtol=1e-4)


def test_a_proxy_of_another_tokenizer_is_refused(tmp_path, proxy):
    with pytest.raises(ValueError, match="as another text"):
        apply(run_with(tmp_path, proxy_model=str(proxy)), [sample(FENCED)])


def test_several_processes_do_not_score(tmp_path, proxy, monkeypatch):
    run = run_with(tmp_path, proxy_model=str(proxy))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="one process: start stage sft alone"):
        apply(run, [sample(FENCED)])


def test_a_proxy_that_is_not_there_is_refused_before_sampling(tmp_path):
    config = run_with(tmp_path, proxy_model="no/such/proxy/here").config
    with pytest.raises(FileNotFoundError, match="no/such/proxy/here"):
        run_stages(config, tmp_path, ["sample", "sft"])
    assert not (tmp_path / "samples").exists()


def test_of_a_thinking_model_the_answer_is_judged(tmp_path, answers):
    """Programs in the thinking neither count as form nor are they graded."""

    class AfterBar:  # As data/answers.py, for texts.
        text = staticmethod(lambda one: one.text.rpartition("|")[2])
        start = staticmethod(lambda one: one.text.find("|") + 1 or None)

    good, bad = answers[0].text, answers[1].text
    said = (f"{bad}|{good}", f"{good}|{bad}", f"{good}|no", good)
    drawn = [dataclasses.replace(answers[0], text=text, sample=n) for n, text in enumerate(said)]
    for settings, left in (({"format": "fence"}, [0, 1]), ({"correct": "passed"}, [0])):
        run = run_with(tmp_path, **settings)
        with Writer(tmp_path / "train") as writer:
            rules = judges.rules(run, writer, AfterBar)  # pyright: ignore[reportArgumentType]
        kept, counts = filters.apply(drawn, run.config.filter, rules, AfterBar)  # pyright: ignore
        assert [one.sample for one in kept] == left
        assert counts["unclosed"] == {"dropped": 1, "left": 3}


def test_a_model_that_does_not_think_is_refused_before_sampling(tmp_path, proxy):
    config = run_with(tmp_path).config
    config.model.path, config.train.loss_on = str(proxy), "answer"
    with pytest.raises(ValueError, match=r"'</think>' is no token of .*loss_on='response'"):
        run_stages(config, tmp_path, ["sample", "sft"])
    assert not (tmp_path / "samples").exists()


@pytest.mark.parametrize("settings", [{"format": "c"}, {"correct": "yes"}])
def test_words_are_checked(tmp_path, settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"filter.{name}='{value}' must be ''"):
        validate(run_with(tmp_path, **settings).config)


def test_a_judge_that_is_not_given_is_not_left_out():
    with pytest.raises(KeyError, match="format"):
        filters.apply([sample(PROSE)], dataclasses.replace(OFF, format="fence"))
