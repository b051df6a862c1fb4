"""Slots and the host loop: the same completions whatever else is going on, and as few programs."""

import contextlib
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jssd import hosts, sharding
from jssd.config import MeshConfig
from jssd.model import transformer
from jssd.sampling import generate
from jssd.sampling.engine import Engine
from jssd.sampling.request import Request, Sampling
from jssd.sampling.score import Scorer
from jssd.stages import context
from jssd.weights import hf
from tests.model import conftest as model_conftest
from tests.sampling import conftest

CFG = conftest.TINY
GREEDY = Sampling(temperature=0.0)
SMALL = {"prompt_bucket": 8, "prefill_chunk": 16, "page_size": 8, "decode_steps": 4}
PAPER = Sampling(temperature=1.5, top_k=20, top_p=0.8)


@pytest.fixture(scope="module")
def params():
    return conftest.loud_params(CFG, seed=0, factor=8)


@pytest.fixture(scope="module")
def engine(params):
    return _engine(params, 4)


def _engine(params, num_slots, **changes):
    settings: dict[str, Any] = {"max_len": 40, **SMALL, **changes}
    return Engine(transformer.unstack(params), CFG, num_slots=num_slots, **settings)


def _request(
    prompt_ids=(1, 2, 3), sample=0, sampling=PAPER, stop_ids=(), max_new_tokens=6, seed=0,
    stop_strings=(),
):  # fmt: skip
    ids = tuple(int(token) for token in prompt_ids)
    number = generate.prompt_number(str(ids))
    return Request(ids, seed, number, sample, sampling, stop_ids, max_new_tokens, stop_strings)


def _mix():
    """Prompts of 1 to 20 tokens in three buckets, all kinds of laws, limits and stop ids."""
    rng = np.random.default_rng(0)
    laws = (PAPER, GREEDY, Sampling(), Sampling(0.7, min_p=0.1), Sampling(1.2, 0, 0.9))
    prompts = [rng.integers(0, CFG.vocab_size, size) for size in (1, 2, 8, 9, 16, 17, 20, 1, 5, 3)]
    return [
        _request(
            prompt,
            sample,
            laws[(row + sample) % len(laws)],
            stop_ids=((), (3, 4), tuple(range(20, 28)))[row % 3],
            max_new_tokens=(1, 5, 11)[(row + sample) % 3],
        )
        for row, prompt in enumerate(prompts)
        for sample in range(3)
    ]


def _run(engine, requests, **settings):
    """Completions in the order of the requests."""
    done = dict(generate.run(engine, requests, **settings))
    assert sorted(done) == list(range(len(requests)))
    return [done[index] for index in range(len(requests))]


def _tokens(completions):
    return [completion.token_ids for completion in completions]


def test_cached_decode_equals_the_full_forward(engine, params):
    requests = _mix()
    completions = _run(engine, requests)
    rows = [(*r.prompt_ids, *c.token_ids) for r, c in zip(requests, completions)]
    tokens_BT = np.zeros((len(rows), 32), np.int32)
    for row, ids in enumerate(rows):
        tokens_BT[row, : len(ids)] = ids
    logits_BTV = jax.jit(transformer.apply, static_argnums=1)(params, CFG, jnp.asarray(tokens_BT))
    logprobs_BTV = np.asarray(jax.nn.log_softmax(logits_BTV))
    for row, (request, completion) in enumerate(zip(requests, completions)):
        start = len(request.prompt_ids) - 1
        steps = logprobs_BTV[row, start : start + len(completion.token_ids)]
        # Of the untruncated model at temperature 1, whatever the law.
        wanted = steps[np.arange(len(steps)), completion.token_ids]
        np.testing.assert_allclose(completion.logprobs, wanted, atol=2e-5)
        if request.sampling == GREEDY:
            assert completion.token_ids == steps.argmax(axis=1).tolist()


@pytest.mark.parametrize("num_slots", [1, 3, 32])
def test_tokens_do_not_depend_on_slots_order_or_company(engine, params, num_slots):
    requests = _mix()
    wanted = _tokens(_run(engine, requests))
    other = _engine(params, num_slots, decode_steps=3)
    order = np.random.default_rng(num_slots).permutation(len(requests))
    shuffled = _tokens(_run(other, [requests[i] for i in order]))
    assert shuffled == [wanted[i] for i in order]
    assert _tokens(_run(other, requests[7:8])) == wanted[7:8]


def test_one_engine_serves_any_mix_without_compiling_again(params):
    engine = _engine(params, 5)
    requests = _mix()
    # All engines share one cache of `_insert`, which is the same function for each of them.
    before = engine._insert._cache_size()  # pyright: ignore[reportAttributeAccessIssue]
    _run(engine, requests)
    _run(engine, requests[::-1])
    _run(engine, [dataclasses.replace(r, sampling=Sampling(0.3, 5, 0.5, 0.2)) for r in requests])
    _run(engine, requests[:1])
    buckets = {engine.bucket(len(request.prompt_ids)) for request in requests}
    assert buckets == {8, 16, 32}
    sizes = [
        program._cache_size()  # pyright: ignore[reportAttributeAccessIssue]
        for program in (engine._generate, engine._prefill, engine._insert)
    ]
    assert sizes == [1, len(buckets), before + len(buckets)]


def test_all_samples_of_a_prompt_share_its_prefill(engine, monkeypatch):
    calls = []
    prefill = engine.prefill
    monkeypatch.setattr(
        engine, "prefill", lambda prompts: calls.append(prompts) or prefill(prompts)
    )
    prompts = [(i, 1) for i in range(engine.prefill_rows + 2)]
    # Sample by sample: requests of a prompt do not stand together.
    requests = [_request(prompt, sample) for sample in range(3) for prompt in prompts]
    completions = _run(engine, requests)
    assert [len(group) for group in calls] == [engine.prefill_rows, 2]
    assert sorted(prompt for group in calls for prompt in group) == sorted(prompts)
    for prompt, wanted in zip(prompts, _tokens(completions)):
        assert _tokens(_run(engine, [_request(prompt)])) == [wanted]


def test_samples_differ_and_repeat(engine):
    requests = [_request(sample=sample) for sample in range(8)]
    first = _tokens(_run(engine, requests))
    assert len({tuple(ids) for ids in first}) > 4
    assert _tokens(_run(engine, requests)) == first
    assert _tokens(_run(engine, [dataclasses.replace(r, seed=1) for r in requests])) != first


def test_stop_ids_and_limits(engine):
    free = _run(engine, [_request(sampling=GREEDY, max_new_tokens=9)])[0]
    assert (len(free.token_ids), free.finish_reason) == (9, "length")
    stop = free.token_ids[4]
    cut = free.token_ids.index(stop) + 1
    stopped = _run(engine, [_request(sampling=GREEDY, max_new_tokens=9, stop_ids=(47, stop))])[0]
    assert stopped.token_ids == free.token_ids[:cut]  # With the stop token.
    assert stopped.finish_reason == "stop"
    assert stopped.logprobs == free.logprobs[:cut]
    # A stop token that is also the last one allowed counts as a stop.
    last = _run(engine, [_request(sampling=GREEDY, max_new_tokens=cut, stop_ids=(stop,))])[0]
    assert (len(last.token_ids), last.finish_reason) == (cut, "stop")
    one = _run(engine, [_request(sampling=GREEDY, max_new_tokens=1)])[0]
    assert (one.token_ids, one.finish_reason) == (free.token_ids[:1], "length")


def test_a_completion_may_fill_the_engine_to_the_last_token(engine, params):
    request = _request(range(1, 9), sampling=GREEDY, max_new_tokens=32)
    roomy = _engine(params, 2, max_len=64)
    ids = _tokens(_run(roomy, [request]))
    assert _tokens(_run(engine, [request])) == ids and len(ids[0]) == 32


def test_a_prompt_of_many_chunks(params):
    """Prefilled chunk by chunk, as at once; buckets beyond a chunk double."""
    prompts = [tuple(range(1, size)) for size in (18, 25, 34)]
    requests = [_request(prompt, sampling=GREEDY) for prompt in prompts]
    small = _engine(params, 3, max_len=56, prefill_chunk=8)
    assert [small.bucket(size) for size in (1, 8, 9, 17, 33)] == [8, 8, 16, 32, 64]
    wanted = _tokens(_run(_engine(params, 3, max_len=56, prefill_chunk=64), requests))
    assert _tokens(_run(small, requests)) == wanted


@pytest.mark.parametrize("cache_tokens", [40, 56, 88])
def test_when_pages_run_short_completions_are_set_back_and_drawn_again(params, cache_tokens):
    requests = [dataclasses.replace(request, max_new_tokens=20, stop_ids=()) for request in _mix()]
    wanted = _run(_engine(params, 4), requests)
    tally = generate.Tally()
    short = _engine(params, 4, cache_tokens=cache_tokens)
    assert short.num_pages == 1 + cache_tokens // 8
    assert _run(short, requests, tally=tally) == wanted
    assert tally.set_back > 0
    assert tally.tokens > sum(map(len, _tokens(wanted)))


def test_the_tally_counts_steps_and_tokens(engine):
    requests = [_request(sample=i, max_new_tokens=6) for i in range(8)]
    tally = generate.Tally()
    _run(engine, requests, tally=tally)
    assert (tally.slots, tally.steps, tally.tokens, tally.set_back) == (4, 12, 48, 0)
    assert tally.fill == 1.0


def _letters(ids):
    return "".join(chr(97 + token % 26) for token in ids)


def test_a_stop_string_ends_a_completion_with_the_token_that_completes_it(engine):
    free = _run(engine, [_request(max_new_tokens=20)])[0]
    text = _letters(free.token_ids)
    for start, size in ((0, 1), (5, 2), (11, 3), (18, 2)):
        stop = text[start : start + size]
        request = dataclasses.replace(
            _request(max_new_tokens=20), stop_strings=("no such thing", stop)
        )
        stopped, other = _run(engine, [request, _request((9, 9))], decode=_letters)
        end = text.index(stop) + size
        assert stopped.token_ids == free.token_ids[:end]
        assert (stopped.finish_reason, stopped.logprobs) == ("stop", free.logprobs[:end])
        assert stopped.support_sizes == free.support_sizes[:end]
        assert stopped.support_ids == free.support_ids[: sum(stopped.support_sizes)]
        assert other == _run(engine, [_request((9, 9))])[0]


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2), (1, 1, 2), (1, 4, 1)])
def test_a_mesh_gives_the_tokens_of_one_device(engine, params, sizes):
    requests = _mix()
    wanted = _run(engine, requests)
    mesh = sharding.make_mesh(MeshConfig(*sizes), jax.devices()[: math.prod(sizes)])
    with jax.set_mesh(mesh):
        placed = jax.device_put(
            params,
            jax.tree.map(lambda leaf: leaf.sharding, transformer.abstract_params(CFG)),
        )
    tally = generate.Tally()
    settings: dict[str, Any] = dict(SMALL)
    split = Engine(
        context.for_decoding(placed, CFG, mesh), CFG, num_slots=8, max_len=40,
        cache_tokens=48 * sizes[0] * sizes[1], **settings,
    )  # fmt: skip
    found = _run(split, requests, tally=tally)
    assert _tokens(found) == _tokens(wanted)
    for one, other in zip(found, wanted):
        assert one.support_ids == other.support_ids
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)
    keys = split.init_decode_state().cache[0][0]
    heads = CFG.num_kv_heads // sizes[2]
    assert keys.addressable_shards[0].data.shape == (7, heads, CFG.head_dim, 8)
    with pytest.raises(ValueError, match=f"slots=9 must be a multiple of the {sizes[0] * sizes[1]}"
    ) if sizes[0] * sizes[1] > 1 else contextlib.nullcontext():  # fmt: skip
        Engine(split.params, CFG, num_slots=9, max_len=40, **settings)


@pytest.mark.parametrize(("sizes", "tied"), [((2, 1, 4), True), ((1, 1, 2), False)])
def test_a_padded_vocabulary_gives_the_tokens_and_scores_of_one_device(sizes, tied):
    # More tokens than the candidates looked at first, so that some draws look at all.
    cfg = dataclasses.replace(CFG, vocab_size=145, num_kv_heads=4, tied_head=tied)
    params = conftest.loud_params(cfg, seed=0, factor=8)
    laws = (Sampling(5.0), Sampling(5.0, 0, 0.9999), Sampling(2.0, 145), PAPER, GREEDY)
    requests = [_request((1, 2, 144), i, law) for law in laws for i in range(2)]
    settings: dict[str, Any] = {"max_len": 40, **SMALL}
    wanted = _run(Engine(transformer.unstack(params), cfg, num_slots=8, **settings), requests)
    mesh = sharding.make_mesh(MeshConfig(*sizes), jax.devices()[: math.prod(sizes)])
    with jax.set_mesh(mesh):
        host = jax.tree.map(np.asarray, params)
        placed = model_conftest.place(host, transformer.abstract_params(cfg))
    assert placed["embed"].shape[0] > 145
    unstacked = context.for_decoding(placed, cfg, mesh)
    found = _run(Engine(unstacked, cfg, num_slots=8, **settings), requests)
    assert _tokens(found) == _tokens(wanted)
    for one, other in zip(found, wanted):
        assert (one.support_ids, one.support_sizes) == (other.support_ids, other.support_sizes)
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)
    texts = [r.prompt_ids for r in requests], [c.token_ids for c in wanted]
    scores = [
        Scorer(weights, cfg, rows=4, bucket=16, chunk=16).score(*texts, laws)
        for weights in (context.for_scoring(placed, cfg, mesh), params)
    ]
    for one, other in zip(*scores):
        for name, value in vars(one).items():
            np.testing.assert_allclose(value, getattr(other, name), rtol=1e-4, atol=1e-4)


MOE = dataclasses.replace(
    CFG, family="qwen3_moe", num_experts=4, experts_per_token=2, norm_topk_prob=True
)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 4), (2, 1, 2, 2), (1, 2, 1, 2, 2)])
def test_a_mixture_of_experts_gives_the_tokens_of_one_device(sizes):
    params = conftest.loud_params(MOE, seed=0, factor=8)
    settings: dict[str, Any] = {"max_len": 40, **SMALL}
    requests = _mix()
    wanted = _run(Engine(transformer.unstack(params), MOE, num_slots=4, **settings), requests)
    mesh = sharding.make_mesh(MeshConfig(*sizes), jax.devices()[: math.prod(sizes)])
    with jax.set_mesh(mesh):
        where = jax.tree.map(lambda leaf: leaf.sharding, transformer.abstract_params(MOE))
        placed = jax.device_put(params, where)
    params = context.for_decoding(placed, MOE, mesh)
    down = params["blocks"][0]["moe"]["down"]
    split = hosts.decode_mesh(mesh).shape
    assert down.addressable_shards[0].data.size == down.size // split["expert"] // split["tensor"]
    found = _run(Engine(params, MOE, num_slots=8, **settings), requests)
    assert _tokens(found) == _tokens(wanted)


def test_hosts_smaller_than_expert_give_the_tokens_of_one_device(monkeypatch):
    cfg = dataclasses.replace(MOE, num_experts=8)
    params = conftest.loud_params(cfg, seed=0, factor=8)
    settings: dict[str, Any] = {"max_len": 40, **SMALL}
    requests = _mix()
    wanted = _run(Engine(transformer.unstack(params), cfg, num_slots=4, **settings), requests)
    mesh = sharding.make_mesh(MeshConfig(expert=8))
    with jax.set_mesh(mesh):
        where = jax.tree.map(lambda leaf: leaf.sharding, transformer.abstract_params(cfg))
        placed = jax.device_put(params, where)
    assert placed["blocks"]["moe"]["down"].addressable_shards[0].data.shape[1] == 1
    # Two hosts of four devices; this one gets its own copy, as on a pod.
    devices = list(mesh.devices.flat)
    monkeypatch.setattr(hosts, "_by_host", lambda mesh: {0: devices[:4], 1: devices[4:]})
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    own = context.for_decoding(placed, cfg, mesh)
    monkeypatch.undo()
    down = own["blocks"][0]["moe"]["down"]
    assert down.sharding.device_set == set(devices[:4])
    assert down.addressable_shards[0].data.shape[0] == 2  # Of eight experts on four devices.
    found = _run(Engine(own, cfg, num_slots=8, **settings), requests)
    assert _tokens(found) == _tokens(wanted)


def test_strict_mode_gives_the_same_bits_for_any_number_of_slots(engine, params):
    requests = _mix()
    wanted = _run(_engine(params, 8, strict=True), requests)
    assert _tokens(wanted) == _tokens(_run(engine, requests))
    for num_slots in (16, 40):
        other = _engine(params, num_slots, strict=True)
        assert _run(other, requests[::-1])[::-1] == wanted  # Log-probabilities too.
    with pytest.raises(ValueError, match="slots=12 must be a multiple of 8 in strict mode"):
        _engine(params, 12, strict=True)


def test_stored_supports(engine):
    requests = [
        _request(sampling=law)
        for law in (PAPER, GREEDY, Sampling(), Sampling(1.0, 1), Sampling(1.0, 48))
    ]
    paper, greedy, whole, one, all_of_48 = _run(engine, requests)
    for completion in (paper, greedy, whole, one, all_of_48):
        assert len(completion.support_sizes) == len(completion.token_ids)
        assert sum(completion.support_sizes) == len(completion.support_ids)
    start = 0
    for token, size in zip(paper.token_ids, paper.support_sizes):
        assert token in paper.support_ids[start : start + size] and 1 <= size <= 20
        start += size
    assert greedy.support_ids == greedy.token_ids
    assert one.support_ids == one.token_ids == greedy.token_ids
    # 48 tokens are all candidates, so even the whole vocabulary is a known set.
    assert set(whole.support_sizes) == set(all_of_48.support_sizes) == {48}
    bare = _run(engine, requests[:1], keep_support=False)[0]
    assert (bare.support_sizes, bare.support_ids) == ([], [])
    assert bare.token_ids == paper.token_ids


def test_free_resource_gives_a_slot_up_and_leaves_the_others_alone(engine):
    requests = [_request((5, 6), sampling=GREEDY, max_new_tokens=7), _request((7, 8, 9))]
    wanted = _tokens(_run(engine, requests))
    pages = engine.pages()
    assert pages.extend(2, 12) and pages.extend(0, 12)
    slots = engine.insert(
        engine.prefill([r.prompt_ids for r in requests]), [0, 1], requests,
        engine.init_decode_state(), [2, 0], pages.table_BM,
    )  # fmt: skip
    assert np.asarray(slots.active_B).tolist() == [True, False, True, False]
    slots = engine.free_resource(slots, 2)
    pages.release(2)
    assert np.asarray(slots.active_B).tolist() == [True, False, False, False]
    slots, drawn = engine.generate(slots, pages.table_BM, 1)
    valid_RB = np.asarray(drawn.valid_RB)
    assert valid_RB[:, 0].all() and not valid_RB[:, 1:].any()
    assert np.asarray(drawn.draw.token_B)[:, 0].tolist() == wanted[1][:4]
    # The slot serves again, beside the one that is still running.
    prefix = engine.prefill([requests[0].prompt_ids])
    assert pages.extend(2, 12)
    slots = engine.insert(prefix, [0], requests[:1], slots, [2], pages.table_BM)
    slots, drawn = engine.generate(slots, pages.table_BM, 1)
    tokens_RB = np.asarray(drawn.draw.token_B)
    assert tokens_RB[:, 2].tolist() == wanted[0][:4]
    assert tokens_RB[np.asarray(drawn.valid_RB)[:, 0], 0].tolist() == wanted[1][4:]


def test_generate_leaves_when_too_few_slots_are_active(engine):
    requests = [_request((1, 2), max_new_tokens=2), _request((3, 4), max_new_tokens=6)]
    prefix, pages = engine.prefill([r.prompt_ids for r in requests]), engine.pages()
    assert pages.extend(0, 8) and pages.extend(1, 8)
    slots = engine.init_decode_state()
    slots = engine.insert(prefix, [0, 1], requests, slots, [0, 1], pages.table_BM)
    slots, drawn = engine.generate(slots, pages.table_BM, 2)
    assert int(drawn.num_steps) == 2
    slots, drawn = engine.generate(slots, pages.table_BM, 1)
    assert int(drawn.num_steps) == 4  # All of decode_steps, and 6 tokens are drawn.
    slots, drawn = engine.generate(slots, pages.table_BM, 1)
    assert int(drawn.num_steps) == 0 and engine.max_concurrent_decodes == 4


def test_no_requests_no_completions(engine):
    assert list(generate.run(engine, [])) == []


def test_greedy_equals_transformers(tmp_path):
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        initializer_range=0.3,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    cfg, weights = hf.load(tmp_path)
    engine = Engine(transformer.unstack(weights), cfg, num_slots=3, max_len=32, prompt_bucket=16)
    rng = np.random.default_rng(1)
    prompts = [rng.integers(0, 96, size).tolist() for size in (1, 4, 9, 15)]
    ours = _tokens(_run(engine, [_request(p, 0, GREEDY, max_new_tokens=16) for p in prompts]))
    for prompt, ids in zip(prompts, ours):
        theirs = model.generate(  # pyright: ignore[reportAttributeAccessIssue]
            torch.tensor([prompt]), do_sample=False, max_new_tokens=16, eos_token_id=None,
            pad_token_id=0, attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        )  # fmt: skip
        assert ids == theirs[0, len(prompt) :].tolist()


def test_prompts_without_room_are_refused():
    generate.check_lengths({"a": 10, "b": 22}, 10, 32)
    with pytest.raises(ValueError) as caught:
        generate.check_lengths({"a": 10, "b": 23, "c": 30}, 10, 32)
    assert str(caught.value) == (
        "2 of 3 prompts do not fit the model's context of 32 tokens with max_new_tokens=10; "
        "the longest, 'c', has 30. Shorten the prompts or lower max_new_tokens."
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_ids": range(35)}, "35 prompt tokens and max_new_tokens=6 exceed max_len=40"),
        ({"prompt_ids": ()}, "the prompt is empty"),
        ({"max_new_tokens": 0}, "max_new_tokens=0 must be at least 1"),
        ({"stop_ids": tuple(range(9))}, "9 stop ids are more than num_stop_ids=8"),
        ({"stop_strings": ("x",)}, r"stop_strings=\('x',\) need decode"),
        ({"stop_strings": ("",)}, "an empty stop string would end every completion"),
    ],
)
def test_requests_that_do_not_fit_are_refused_before_any_is_drawn(engine, changes, message):
    with pytest.raises(ValueError, match=message):
        next(generate.run(engine, [_request(), _request(**changes)]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prefill_chunk": 20}, "prefill_chunk=20 must be a multiple of page_size=8"),
        ({"cache_tokens": 39}, "cache_tokens=39 must be 0 or at least 40"),
    ],
)
def test_engines_that_could_not_serve_are_refused(params, settings, message):
    with pytest.raises(ValueError, match=message):
        _engine(params, 2, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature=-0.1 must be 0"),
        ({"temperature": float("nan")}, "temperature=nan must be 0"),
        ({"top_k": -1}, "top_k=-1 must be 0"),
        ({"top_p": 0.0}, "top_p=0.0 must be in"),
        ({"top_p": 1.1}, "top_p=1.1 must be in"),
        ({"min_p": -0.1}, "min_p=-0.1 must be in"),
    ],
)
def test_laws_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**settings)


def test_all_that_is_wrong_with_a_law_comes_in_one_message():
    with pytest.raises(ValueError, match=r"temperature=-1\.0 must .*; top_p=2\.0 must be in"):
        Sampling(temperature=-1.0, top_p=2.0)


def test_prompt_numbers_are_32_bits_and_stable():
    assert generate.prompt_number("a") == generate.prompt_number("a") < 2**32
    assert len({generate.prompt_number(str(i)) for i in range(100)}) == 100
    # The number is part of the address of every stored completion: it must never change.
    assert generate.prompt_number("tasks:train/0") == 4029413024
