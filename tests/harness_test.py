"""Our model under lm-evaluation-harness: numbers against our own logits, and real task files."""

import json

import numpy as np
import pytest

import jssd
from jssd import harness
from tests.e2e import conftest as tiny_model

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.filterwarnings("ignore")  # Of the harness and its dependencies.


class Request:
    def __init__(self, *args):
        self.args = args


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    folder = tiny_model.make_model(tmp_path_factory.mktemp("harness") / "model")
    return harness.lm(jssd.load(str(folder)), rows=2)


def by_hand(lm, context: list[int], target: list[int]) -> tuple[float, bool]:
    # What comes after a token says nothing of it: zeros make few lengths, each a program.
    ids = context + target
    padded = ids + [0] * (-len(ids) % 64)
    logits_TV = lm.model.logits([padded])[0][: len(ids)].astype(np.float64)
    logprobs_TV = logits_TV - np.logaddexp.reduce(logits_TV, axis=1, keepdims=True)
    rows = logprobs_TV[len(context) - 1 : -1]
    return rows[np.arange(len(target)), target].sum(), (rows.argmax(1) == target).all()


def test_loglikelihood_is_the_sum_over_the_continuation(lm):
    pairs = [("ab", " cd"), ("", "xyz"), ("a ", "b"), ("ab", "c")]
    found = lm.loglikelihood([Request(*pair) for pair in pairs])
    encode = lm.model.tokenizer.encode
    contexts = [encode("ab"), [lm.eot_token_id], encode("a"), encode("ab")]
    targets = [encode(" cd"), encode("xyz"), encode(" b"), encode("c")]
    for (total, greedy), context, target in zip(found, contexts, targets, strict=True):
        wanted, is_greedy = by_hand(lm, context, target)
        assert total == pytest.approx(wanted, abs=1e-3)
        assert greedy == is_greedy


def test_greedy_continuation_is_called_greedy(lm):
    (drawn,) = lm.model.generate(["ab"], jssd.Sampling(0.0), 1, 4)[0]
    ids = drawn.token_ids
    context = lm.model.tokenizer.encode("ab")
    for target, greedy in ((ids, True), ([*ids[:-1], (ids[-1] + 1) % 256], False)):
        found = lm._loglikelihood_tokens([(("", ""), context, target)])
        assert found[0][1] is greedy


def test_rolling_predicts_every_token_once(lm, monkeypatch):
    text = "abcdefghij"
    ids = lm.model.tokenizer.encode(text)
    (whole,) = lm.loglikelihood_rolling([Request(text)])
    assert whole == pytest.approx(by_hand(lm, [lm.eot_token_id], ids)[0], abs=1e-3)
    monkeypatch.setattr(lm, "max_length", 5)  # Windows of four targets, the last one with context.
    (parts,) = lm.loglikelihood_rolling([Request(text)])
    wanted = (
        by_hand(lm, [lm.eot_token_id], ids[:4])[0]
        + by_hand(lm, ids[3:4], ids[4:8])[0]
        + by_hand(lm, ids[5:8], ids[8:])[0]
    )
    assert parts == pytest.approx(wanted, abs=1e-3)


def test_generation_stops_before_the_stop_string(lm):
    (free,) = lm.generate_until([Request("ab", {"max_gen_toks": 12, "until": []})])
    (drawn,) = lm.model.generate(["ab"], jssd.Sampling(0.0), 1, 12)[0]
    assert free == drawn.text
    stop = free[4:6]
    (cut,) = lm.generate_until([Request("ab", {"max_gen_toks": 12, "until": [stop]})])
    assert cut == free[: free.index(stop)]


def test_long_texts_lose_their_beginning(lm, monkeypatch, caplog):
    monkeypatch.setattr(lm, "max_length", 8)
    context = lm.model.tokenizer.encode("abcdefghij")
    target = lm.model.tokenizer.encode("xy")
    ((total, _),) = lm._loglikelihood_tokens([(("", ""), context, target)])
    assert total == pytest.approx(by_hand(lm, context[-6:], target)[0], abs=1e-3)
    assert "1 texts did not fit" in caplog.text


BOS = "<|im_start|>"


@pytest.fixture(scope="module")
def with_bos(tmp_path_factory):
    """A model whose tokenizer puts a token ahead of plain text, and whose chat begins with it."""
    folder = tiny_model.make_model(tmp_path_factory.mktemp("bos") / "model")
    path = folder / "tokenizer_config.json"
    tree = json.loads(path.read_text()) | {"bos_token": BOS, "add_bos_token": True}
    tree["chat_template"] = "{{ bos_token }}{% for m in messages %}{{ m.content }}\n{% endfor %}"
    path.write_text(json.dumps(tree))
    return harness.lm(jssd.load(str(folder)), rows=2)


def test_one_beginning_of_text_with_a_chat_and_without(with_bos):
    lm, (bos,) = with_bos, with_bos.text_tokenizer.encode(BOS)
    plain = lm.text_tokenizer.encode
    assert lm.prefix_token_id == bos != lm.eot_token_id
    assert lm.tok_encode("ab") == [bos, *plain("ab")]
    assert lm.tok_encode("ab", add_special_tokens=False) == plain("ab")
    chat = lm.apply_chat_template([{"role": "user", "content": "ab"}])
    assert lm.tok_encode(chat) == [bos, *plain("ab\n")]  # Not a second one.
    assert lm.tok_encode(chat, add_special_tokens=True) == [bos, *plain("ab\n")]


def test_scores_after_a_beginning_of_text(with_bos):
    lm, (bos,) = with_bos, with_bos.text_tokenizer.encode(BOS)
    plain = lm.text_tokenizer.encode
    chat = lm.apply_chat_template([{"role": "user", "content": "ab"}])
    pairs = [("ab", " cd"), ("", "xyz"), (chat, "cd")]
    found = lm.loglikelihood([Request(*pair) for pair in pairs])
    # The line's end of the chat is white space, which the harness counts to the continuation.
    wanted = [
        ([bos, *plain("ab")], plain(" cd")),
        ([bos], plain("xyz")),
        ([bos, *plain("ab")], plain("\ncd")),
    ]
    for (total, _), (context, target) in zip(found, wanted, strict=True):
        assert total == pytest.approx(by_hand(lm, context, target)[0], abs=1e-3)
    (rolled,) = lm.loglikelihood_rolling([Request("xyz")])
    assert rolled == pytest.approx(by_hand(lm, [bos], plain("xyz"))[0], abs=1e-3)
    (drawn,) = lm.generate_until([Request("ab", {"max_gen_toks": 4, "until": []})])
    (expected,) = lm.model.generate([[bos, *plain("ab")]], jssd.Sampling(0.0), 1, 4)[0]
    assert drawn == expected.text


@pytest.mark.parametrize(
    ("given", "law"),
    [
        ({}, (0.0, 0, 1.0, 0.0)),
        ({"do_sample": False, "temperature": 0.7}, (0.0, 0, 1.0, 0.0)),
        ({"do_sample": True}, (1.0, 0, 1.0, 0.0)),
        ({"temperature": 0.7, "top_k": 20, "top_p": 0.8}, (0.7, 20, 0.8, 0.0)),
    ],
)
def test_generation_arguments(given, law):
    assert harness.sampling_of(given) == jssd.Sampling(*law)


def test_unknown_generation_argument_is_refused():
    with pytest.raises(ValueError, match="'num_beams' is not known here"):
        harness.sampling_of({"num_beams": 4})


TASKS = {
    "choice": "output_type: multiple_choice\ndoc_to_text: '{{q}}'\ndoc_to_choice: ['yes', 'no']\n"
    "doc_to_target: '{{a}}'\nmetric_list:\n  - metric: acc\n",
    "written": "output_type: generate_until\ndoc_to_text: '{{q}}'\ndoc_to_target: '{{a}}'\n"
    "generation_kwargs: {until: [z], max_gen_toks: 5}\nmetric_list:\n  - metric: exact_match\n",
    "rolling": "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{q}}'\n"
    "metric_list:\n  - metric: bits_per_byte\n",
}


@pytest.mark.parametrize("chat", [False, True])
def test_real_task_files(lm, tmp_path, monkeypatch, chat):
    lm_eval = pytest.importorskip("lm_eval")
    tasks = pytest.importorskip("lm_eval.tasks")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [{"q": "is it so", "a": "yes"}, {"q": "and this", "a": "no"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in TASKS.items():
        data = f"dataset_path: json\ndataset_kwargs: {{data_files: {tmp_path / 'rows.jsonl'}}}\n"
        (tmp_path / f"{name}.yaml").write_text(
            f"task: ours_{name}\n{data}test_split: train\n{text}"
        )
    found = lm_eval.simple_evaluate(
        model=lm,
        tasks=[f"ours_{name}" for name in TASKS if not (chat and name == "rolling")],
        task_manager=tasks.TaskManager(include_path=str(tmp_path), include_defaults=False),
        apply_chat_template=chat,
        bootstrap_iters=0,
    )
    results = found["results"]
    encode = lm.model.tokenizer.encode
    right = 0
    for row in rows:
        text = lm.apply_chat_template([{"role": "user", "content": row["q"]}]) if chat else row["q"]
        space = "" if chat else " "
        yes, no = (by_hand(lm, encode(text), encode(space + word))[0] for word in ("yes", "no"))
        right += row["a"] == ("yes" if yes > no else "no")
    assert results["ours_choice"]["acc,none"] == right / 2
    assert results["ours_written"]["exact_match,none"] == 0
    if not chat:
        nats = sum(by_hand(lm, [lm.eot_token_id], encode(row["q"]))[0] for row in rows)
        size = sum(len(row["q"].encode()) for row in rows)
        assert results["ours_rolling"]["bits_per_byte,none"] == pytest.approx(
            -nats / size / np.log(2), rel=1e-4
        )
