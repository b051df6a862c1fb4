"""A real model against transformers: greedy completions, logits, and an export loaded again."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from jssd.data.tokenizer import Tokenizer
from jssd.model import transformer
from jssd.sampling import generate
from jssd.sampling.engine import Engine
from jssd.sampling.request import Request, Sampling
from jssd.weights import gguf, hf

GGUF = pathlib.Path(__file__).parents[2] / "assets" / "SmolLM2-135M-Instruct.Q4_1.gguf"
pytestmark = pytest.mark.skipif(not GGUF.exists(), reason=f"{GGUF.name} is not in assets/")

NUM_TOKENS = 24
# Two programs that sum in another order cannot be asked to break a tie that is closer than this.
NEAR_TIE = 1e-4
TEXTS = (
    'def add(a, b):\n    """Returns the sum of two numbers."""\n',
    "def fibonacci(n):\n",
    'def is_prime(n: int) -> bool:\n    """True if n is a prime number."""\n',
    "import math\n\ndef area(radius):\n    return",
    "class Stack:\n    def __init__(self):\n",
    "for i in range(10):\n",
    "# Reverse a string in Python\n",
    "SELECT name FROM users WHERE",
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
)
QUESTIONS = (
    "Write a Python function that counts the vowels in a string.",
    "What is a list comprehension?",
    "Fix this code: print('hello'",
    "How do I read a file line by line in Python?",
    "Explain recursion in one sentence.",
    "Sort the list [3, 1, 2] in Python.",
    "What does the keyword yield do?",
    "Name three colours.",
    "Write a haiku about compilers.",
    "What is 7 times 8?",
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return gguf.to_hf_folder(GGUF, tmp_path_factory.mktemp("real") / "model", "float32")


@pytest.fixture(scope="session")
def loaded(folder):
    return hf.load(folder)


@pytest.fixture(scope="session")
def theirs(folder):
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="session")
def prompts(folder):
    tokenizer = Tokenizer(folder)
    chats = [tokenizer.chat([{"role": "user", "content": text}]) for text in QUESTIONS]
    return [tokenizer.encode(text) for text in (*TEXTS, *chats)]


def test_greedy_completions_equal_those_of_transformers(loaded, theirs, prompts):
    import torch

    cfg, params = loaded
    engine = Engine(
        transformer.unstack(params), cfg, num_slots=20, max_len=96, prompt_bucket=64,
        decode_steps=NUM_TOKENS,
    )  # fmt: skip
    greedy = Sampling(temperature=0.0)
    requests = [
        Request(tuple(ids), 0, row, 0, greedy, (), NUM_TOKENS) for row, ids in enumerate(prompts)
    ]
    done = dict(generate.run(engine, requests))

    width = max(map(len, prompts))
    tokens_BT = torch.zeros((len(prompts), width), dtype=torch.long)
    mask_BT = torch.zeros_like(tokens_BT)
    for row, ids in enumerate(prompts):  # On the left, so that all continue at the same column.
        tokens_BT[row, width - len(ids) :] = torch.tensor(ids)
        mask_BT[row, width - len(ids) :] = 1
    theirs.generation_config.eos_token_id = None
    drawn_BT = theirs.generate(
        tokens_BT, attention_mask=mask_BT, do_sample=False, max_new_tokens=NUM_TOKENS,
        pad_token_id=0,
    )[:, width:].tolist()  # fmt: skip
    for row, (ids, wanted) in enumerate(zip(prompts, drawn_BT)):
        ours = done[row].token_ids
        assert len(ours) == len(wanted) == NUM_TOKENS
        if ours != wanted:
            first = next(i for i in range(NUM_TOKENS) if ours[i] != wanted[i])
            logits_V = _their_logits(theirs, [*ids, *wanted[:first]])[-1]
            gap = logits_V[wanted[first]] - logits_V[ours[first]]
            assert abs(gap) < NEAR_TIE, (row, first, gap)


def test_logits_equal_those_of_transformers(loaded, theirs, prompts):
    cfg, params = loaded
    ids = prompts[0] + prompts[12]
    ours = np.asarray(transformer.apply(params, cfg, jnp.asarray([ids], jnp.int32))[0])
    wanted = _their_logits(theirs, ids)
    scale = np.abs(wanted).max(axis=-1, keepdims=True)
    np.testing.assert_array_less(np.abs(ours - wanted) / scale, 1e-4)


def test_an_export_gives_transformers_the_same_logits(loaded, folder, theirs, prompts, tmp_path):
    import transformers

    cfg, params = loaded
    hf.save(tmp_path / "export", params, cfg, source_folder=folder)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "export").eval()
    np.testing.assert_array_equal(
        _their_logits(again, prompts[3]), _their_logits(theirs, prompts[3])
    )


def _their_logits(model, ids):
    import torch

    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()
