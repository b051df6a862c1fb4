"""The Python face, on a tiny model."""

import numpy as np
import pytest

import jssd
from tests.e2e import conftest


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api") / "model"
    return jssd.load(str(conftest.make_model(folder)))


def test_logits_are_float32_and_causal(model):
    ids = [[1, 2, 3, 4], [1, 2, 9, 9]]
    logits = model.logits(ids)
    assert logits.shape == (2, 4, 320) and logits.dtype == np.float32
    np.testing.assert_allclose(logits[0, :2], logits[1, :2], rtol=1e-5, atol=1e-5)
    assert not np.allclose(logits[0, 2], logits[1, 2])


def test_every_kind_of_prompt_gives_n_completions(model):
    prompts = ["abc", [{"role": "user", "content": "hi"}], [5, 6, 7]]
    answers = model.generate(prompts, jssd.Sampling(temperature=0.9, top_k=9), 2, max_new_tokens=6)
    assert [len(rows) for rows in answers] == [2, 2, 2]
    for completion in (completion for rows in answers for completion in rows):
        assert 1 <= len(completion.token_ids) == len(completion.logprobs) <= 6
        assert completion.finish_reason in ("stop", "length")
        assert completion.text == model.tokenizer.decode(completion.token_ids)


def test_a_draw_depends_on_its_address_alone(model):
    alone = model.generate(["abc"], n=2, max_new_tokens=8, seed=3)
    among = model.generate(["x", "abc", "yy"], n=2, max_new_tokens=8, seed=3)
    assert [c.token_ids for c in alone[0]] == [c.token_ids for c in among[1]]
    other = model.generate(["abc"], n=2, max_new_tokens=8, seed=4)
    assert [c.token_ids for c in alone[0]] != [c.token_ids for c in other[0]]


def test_a_prompt_given_twice_goes_on_counting_its_samples(model):
    twice = model.generate(["abc", "abc"], n=1, max_new_tokens=12)
    both = model.generate(["abc"], n=2, max_new_tokens=12)
    assert [rows[0].token_ids for rows in twice] == [c.token_ids for c in both[0]]
    assert twice[0][0].token_ids != twice[1][0].token_ids


def test_logprobs_are_those_of_the_full_forward(model):
    prompt = [5, 6, 7]
    [[answer]] = model.generate([prompt], jssd.Sampling(top_k=3), max_new_tokens=8)
    logits = model.logits([prompt + answer.token_ids])[0, 2:-1].astype(np.float64)
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = logprobs[np.arange(len(answer.token_ids)), answer.token_ids]
    np.testing.assert_allclose(answer.logprobs, expected, atol=1e-4)


def test_save_gives_back_the_same_bytes(model, tmp_path):
    jssd.save(model, str(tmp_path / "copy"))
    saved = (tmp_path / "copy" / "model.safetensors").read_bytes()
    assert saved == (model.folder / "model.safetensors").read_bytes()
    again = jssd.load(str(tmp_path / "copy"))
    np.testing.assert_array_equal(again.logits([[1, 2]]), model.logits([[1, 2]]))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m.generate("abc"), "list"),
        (lambda m: m.generate([[]]), "empty"),
        (lambda m: m.generate([[999]]), "320"),
        (lambda m: m.generate(["a"], max_new_tokens=5000), "context"),
        (lambda m: m.generate(["a"], n=0), "n=0"),
        (lambda m: m.logits([1, 2]), "[B, T]"),
        (lambda m: m.logits([[320]]), "320"),
        (lambda m: jssd.Sampling(top_p=0.0), "top_p"),
        (lambda m: jssd.load("no/such/folder/x"), "no/such/folder/x"),
        (lambda m: jssd.load(str(m.folder), dtype="float16"), "float16"),
    ],
)
def test_mistakes_are_told(model, call, words):
    with pytest.raises((ValueError, FileNotFoundError), match=words.replace("[", r"\[")):
        call(model)
