"""The adapter to JetStream's Engine: against both of its surfaces as fakes, and the real wheel."""

import abc
import dataclasses
import json
import pathlib
import subprocess
import sys
import types
from typing import Any

import jax
import numpy as np
import pytest

from jssd import sharding
from jssd.config import MeshConfig
from jssd.model import transformer
from jssd.sampling import generate, jetstream
from jssd.sampling.engine import Engine
from jssd.sampling.request import Request, Sampling
from jssd.stages import context
from tests.sampling import conftest

ROOT = pathlib.Path(__file__).parents[2]
PAPER = Sampling(temperature=1.5, top_k=20, top_p=0.8)
SETTINGS: dict[str, Any] = {"prompt_bucket": 8, "prefill_chunk": 16, "page_size": 8}
STOPS = (3, 4, 5)
OLD = {
    "methods": (
        "prefill generate insert load_params get_prefix_destination_sharding get_tokenizer "
        "init_decode_state"
    ),
    "properties": (
        "max_concurrent_decodes samples_per_slot max_prefill_length mesh colocated_cpus"
    ),
}
HEAD = {
    "methods": OLD["methods"] + " prefill_multisampling bulk_insert",
    "properties": OLD["properties"] + " use_chunked_prefill prefill_chunk_size",
}
# A long one, one of a page and one of a token; the first comes again.
PROMPTS = [tuple(range(1, 21)), (7,), (9, 8, 7, 6, 5, 4, 3, 2), (7,), tuple(range(1, 21))]


def _install(monkeypatch, surface):
    """A package `jetstream` with nothing in it but what must be implemented."""

    def module(name, **members):
        made = types.ModuleType(name)
        made.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    def interface(name, methods, properties):
        abstract = lambda: abc.abstractmethod(lambda self: None)
        members = {member: abstract() for member in methods.split()}
        members |= {member: property(abstract()) for member in properties.split()}
        return abc.ABCMeta(name, (), members)

    fields: list[Any] = ["data", "tokens_idx", "valid_idx", "length_idx", "samples_per_slot"]
    if surface is HEAD:
        fields.append(("log_prob", Any, None))
    pb2 = module("jetstream.engine.tokenizer_pb2", TokenizerParameters=types.SimpleNamespace)
    module("jetstream")
    module("jetstream.engine")
    module(
        "jetstream.engine.engine_api",
        Engine=interface("Engine", **surface),
        ResultTokens=dataclasses.make_dataclass("ResultTokens", fields),
        tokenizer_pb2=pb2,
    )
    module(
        "jetstream.engine.tokenizer_api",
        Tokenizer=interface("Tokenizer", "encode decode", "pad_id eos_id bos_id"),
    )


@pytest.fixture(params=[OLD, HEAD], ids=["0.2.2", "head"])
def surface(request, monkeypatch):
    _install(monkeypatch, request.param)
    return request.param


@pytest.fixture(scope="module")
def params():
    return transformer.unstack(conftest.loud_params(conftest.TINY, seed=0, factor=8))


@pytest.fixture(scope="module")
def engine(params):
    return _engine(params)


def _engine(params, **changes):
    settings = {"num_slots": 3, "max_len": 40, "decode_steps": 1, **SETTINGS, **changes}
    return Engine(params, conftest.TINY, **settings)


def _adapter(engine, **changes):
    settings = {"max_new_tokens": 6, "sampling": PAPER, "seed": 11, "stop_ids": STOPS, **changes}
    return jetstream.engine_class()(engine, **settings)


def _wanted(engine, prompts, max_new_tokens=6, stop_ids=STOPS):
    """What `generate.run` draws when the prompts come in this order."""
    requests = [
        Request(
            ids, 11, jetstream.prompt_number(ids), prompts[:i].count(ids), PAPER, stop_ids,
            max_new_tokens,
        )
        for i, ids in enumerate(prompts)
    ]  # fmt: skip
    done = dict(generate.run(engine, requests))
    return [done[i].token_ids for i in range(len(prompts))]


def _padded(ids):
    return np.array([*ids, *[0] * (32 - len(ids))], np.int32)


def _cells(result):
    """(token, valid, length) of each row."""
    assert (result.tokens_idx, result.valid_idx, result.length_idx) == ((0, 1), (1, 2), (2, 3))
    data = np.asarray(result.data)
    assert data.dtype == np.int32 and data.shape[1] == 3
    return data.tolist()


def _serve(adapter, prompts, slots):
    """Puts prompt i into slot i of `slots` as soon as it is free, one prompt a step at most."""
    weights, state = adapter.load_params(), adapter.init_decode_state()
    texts, running, waiting = [[] for _ in prompts], {}, list(range(len(prompts)))
    while running or waiting:
        if waiting and slots[waiting[0]] not in running:
            i = waiting.pop(0)
            prefix = adapter.prefill(
                params=weights, padded_tokens=_padded(prompts[i]), true_length=len(prompts[i])
            )
            if isinstance(prefix, tuple):
                prefix, first = prefix
                ((token, valid, length),) = _cells(first)
                assert (valid, length) == (1, 1)
                texts[i].append(token)
            state = adapter.insert(prefix, state, slot=slots[i])
            running[slots[i]] = i
        state, result = adapter.generate(weights, state)
        cells = _cells(result)
        assert len(cells) == adapter.max_concurrent_decodes
        for slot, i in list(running.items()):
            token, valid, length = cells[slot]
            if valid:
                texts[i].append(token)
                assert length == len(texts[i])
            else:
                adapter.free_resource(running.pop(slot))
    return texts


def test_completions_are_those_of_generate_run(surface, engine):
    adapter = _adapter(engine)
    texts = _serve(adapter, PROMPTS, slots=[2, 0, 1, 2, 0])
    assert texts == _wanted(engine, PROMPTS)
    assert texts[0] != texts[4]  # Another sample of the same prompt.
    assert len({len(text) for text in texts}) > 1  # Stop ids end some, the limit others.
    assert _serve(_adapter(engine), PROMPTS, slots=[0] * 5) == texts


def test_the_same_on_a_mesh(surface, engine):
    mesh = sharding.make_mesh(MeshConfig(2, 1, 2), jax.devices()[:4])
    params = conftest.loud_params(conftest.TINY, seed=0, factor=8)
    with jax.set_mesh(mesh):
        shapes = transformer.abstract_params(conftest.TINY)
        params = jax.device_put(params, jax.tree.map(lambda leaf: leaf.sharding, shapes))
    adapter = _adapter(_engine(context.for_decoding(params, conftest.TINY, mesh), num_slots=4))
    assert _serve(adapter, PROMPTS, slots=[2, 0, 1, 3, 0]) == _wanted(engine, PROMPTS)
    assert adapter.mesh.size == 4


@pytest.mark.parametrize("limit", [1, 2])
def test_short_completions_end_in_time(surface, engine, limit):
    texts = _serve(_adapter(engine, max_new_tokens=limit), PROMPTS, slots=[0, 1, 2, 0, 1])
    assert texts == _wanted(engine, PROMPTS, limit)


def test_a_slot_can_be_filled_again_before_its_completion_ended(surface, engine):
    adapter = _adapter(engine, stop_ids=())
    weights, state = adapter.load_params(), adapter.init_decode_state()
    texts = []
    for ids in PROMPTS[:2]:
        prefix = adapter.prefill(params=weights, padded_tokens=_padded(ids), true_length=len(ids))
        prefix, first = prefix if surface is HEAD else (prefix, None)
        state = adapter.insert(prefix, state, 1)
        jax.tree.map(lambda leaf: leaf.delete(), prefix)  # As JetStream does.
        texts.append([_cells(first)[0][0]] if first else [])
        for _ in range(3):
            state, result = adapter.generate(weights, state)
            assert [valid for _, valid, _ in _cells(result)] == [0, 1, 0]
            texts[-1].append(_cells(result)[1][0])
    wanted = _wanted(engine, PROMPTS[:2], stop_ids=())
    assert texts == [ids[: len(text)] for ids, text in zip(wanted, texts)]


def test_several_samples_share_a_prefill(monkeypatch, engine):
    _install(monkeypatch, HEAD)
    adapter = _adapter(engine, stop_ids=())
    prefix, first = adapter.prefill_multisampling(
        padded_tokens=_padded(PROMPTS[0]), true_length=len(PROMPTS[0]), num_samples=2
    )
    assert first.samples_per_slot == 2 and first.log_prob.shape == (2, 1)
    with pytest.raises(ValueError, match="1 slots must be as many as the prefix's 2 samples"):
        adapter.insert(prefix, None, 0)
    state = adapter.bulk_insert(prefix, adapter.init_decode_state(), [2, 0])
    state, result = adapter.generate(None, state)
    drawn = [[first[0], _cells(result)[slot][0]] for first, slot in zip(_cells(first), (2, 0))]
    assert drawn == [ids[:2] for ids in _wanted(engine, [PROMPTS[0]] * 2, stop_ids=())]
    assert result.log_prob.shape == (3, 1)


def test_what_cannot_be_honoured_is_refused(surface, engine, params):
    adapter = _adapter(engine)
    prompt = {"padded_tokens": _padded((1, 2)), "true_length": 2}
    for given in ({"sampler": max}, {"existing_prefix": object()}, {"rng": 0}):
        with pytest.raises(ValueError, match=next(iter(given))):
            adapter.prefill(**prompt, **given)
    with pytest.raises(ValueError, match="sampler: not supported"):
        adapter.generate(None, adapter.init_decode_state(), sampler=max)
    with pytest.raises(ValueError, match="params must be what load_params returned"):
        adapter.prefill(params={}, **prompt)
    for size in (0, 35):
        with pytest.raises(ValueError, match=f"A prompt of {size} tokens must have 1 to 34"):
            adapter.prefill(padded_tokens=np.ones(64, np.int32), true_length=size)
    with pytest.raises(ValueError, match="no tokenizer"):
        adapter.get_tokenizer()
    with pytest.raises(ValueError, match="decode_steps=4 must be 1; cache_tokens must be 0"):
        _adapter(_engine(params, decode_steps=4, cache_tokens=80))
    with pytest.raises(ValueError, match="max_new_tokens=30 must leave 16 of max_len=40 tokens"):
        _adapter(engine, max_new_tokens=30)


def test_what_jetstream_asks_about(surface, engine):
    adapter = _adapter(engine)
    assert (adapter.max_concurrent_decodes, adapter.samples_per_slot) == (3, 1)
    assert adapter.max_prefill_length == 32  # The last power of 2 that leaves room for 6.
    assert (adapter.use_chunked_prefill, adapter.prefill_chunk_size) == (False, 16)
    assert adapter.mesh.size == 1 and adapter.colocated_cpus is None
    prefix = adapter.prefill(padded_tokens=_padded((1,)), true_length=1)
    prefix = prefix[0] if surface is HEAD else prefix
    moved = jax.device_put(prefix, adapter.get_prefix_destination_sharding())
    assert moved.requests == prefix.requests


class _Letters:
    """A tokenizer of letters; its BOS is 1."""

    folder, stop_ids, eos_id, pad_id = pathlib.Path("letters"), STOPS, STOPS[0], 2

    def __init__(self, prefix=""):
        self.prefix = prefix

    def encode(self, text):
        return [1 if letter == "^" else ord(letter) % 32 + 8 for letter in text]

    def decode(self, ids):
        return "".join(chr(i - 8 + 96) for i in ids)


@pytest.mark.parametrize("prefix", ["", "^"])
def test_tokenizer(surface, engine, prefix):
    adapter = _adapter(engine, tokenizer=_Letters(prefix), stop_ids=None)
    metadata = adapter.get_tokenizer()
    tokenizer = adapter.build_tokenizer(metadata)
    bos = [1] if prefix else []
    for text in ("ab", prefix + "ab"):
        tokens, length = tokenizer.encode(text, is_bos=True, jax_padding=True)
        assert (tokens.tolist(), length) == ([*bos, 9, 10], 2 + len(bos))
    assert tokenizer.encode("abc", is_bos=False, max_prefill_length=2)[0].tolist() == [10, 11]
    assert tokenizer.decode([9, 10]) == "ab"
    assert (metadata.path, tokenizer.stop_tokens, tokenizer.pad_id) == ("letters", set(STOPS), 2)
    # JetStream puts bos_id before token ids whatever the model wants.
    with_bos, plain = (
        adapter.prefill(padded_tokens=np.array(ids, np.int32), true_length=len(ids))
        for ids in ([tokenizer.bos_id, 9, 10], [*bos, 9, 10])
    )
    with_bos, plain = (p[0] if surface is HEAD else p for p in (with_bos, plain))
    assert with_bos.requests[0].prompt_ids == plain.requests[0].prompt_ids == (*bos, 9, 10)
    assert with_bos.requests[0].stop_ids == STOPS


def test_another_package_of_that_name_is_told_apart(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("jetstream.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jetstream", types.ModuleType("jetstream"))
    with pytest.raises(ImportError, match=r"google-jetstream: pip install 'jssd\[jetstream\]'"):
        jetstream.engine_class()
    monkeypatch.setitem(sys.modules, "jetstream", None)  # Not installed at all.
    with pytest.raises(ImportError, match="called jetstream on PyPI is another one"):
        jetstream.engine_class()


SERVED = """
import asyncio, json
import jax
from jetstream.core import orchestrator
from jetstream.core.proto import jetstream_pb2 as pb
from tests.sampling import jetstream_test as here
from jssd.model import transformer
# It calls jax.tree_map, which JAX no longer has, and ends the process when a thread fails.
jax.tree_map = jax.tree.map
params = transformer.unstack(here.conftest.loud_params(here.conftest.TINY, seed=0, factor=8))
adapter = here._adapter(here._engine(params), tokenizer=here._Letters())

async def ask(client, ids):
    content = pb.DecodeRequest.TokenContent(token_ids=ids)
    request = pb.DecodeRequest(session_cache="", token_content=content, priority=1, max_tokens=6)
    tokens = []
    async for answer in client.Decode(request):
        tokens += answer.stream_content.samples[0].token_ids
    return tokens

async def ask_all():
    driver = orchestrator.Driver(
        prefill_engines=[adapter], generate_engines=[adapter], prefill_params=[params],
        generate_params=[params], interleaved_mode=INTERLEAVED,
    )
    client = orchestrator.LLMOrchestrator(driver)
    got = [await ask(client, here.PROMPTS[1])]
    got += await asyncio.gather(*(ask(client, ids) for ids in (here.PROMPTS[0], here.PROMPTS[2])))
    got += [await ask(client, here.PROMPTS[3]), await ask(client, here.PROMPTS[4])]
    driver.stop()
    print("GOT", json.dumps(got))

asyncio.run(ask_all())
"""


@pytest.mark.optin
@pytest.mark.filterwarnings("default")  # TensorFlow's, which it imports.
def test_the_real_engine_interface(engine):
    api = pytest.importorskip("jetstream.engine.engine_api")
    adapter = _adapter(engine)
    assert isinstance(adapter, api.Engine)
    assert _serve(adapter, PROMPTS, slots=[2, 0, 1, 2, 0]) == _wanted(engine, PROMPTS)
    _, result = adapter.generate(None, adapter.init_decode_state())
    assert isinstance(result, api.ResultTokens)
    slot = result.convert_to_numpy().get_result_at_slot(1)
    assert (slot.tokens.shape, slot.valid.tolist(), slot.lengths.tolist()) == ((1, 1), [[0]], [0])


@pytest.mark.optin
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("interleaved", [True, False])
def test_the_real_orchestrator(engine, interleaved):
    pytest.importorskip("jetstream.engine.engine_api")
    run = subprocess.run(
        [sys.executable, "-c", SERVED.replace("INTERLEAVED", str(interleaved))],
        capture_output=True, text=True, cwd=ROOT, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    (line,) = [line for line in run.stdout.splitlines() if line.startswith("GOT ")]
    # It keeps the token that ends a completion to itself.
    wanted = _wanted(engine, [PROMPTS[i] for i in (1, 0, 2, 3, 4)])
    wanted = [ids[:-1] if ids[-1] in STOPS else ids for ids in wanted]
    assert json.loads(line.removeprefix("GOT ")) == wanted
