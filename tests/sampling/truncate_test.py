"""The law of the next token, rule by rule in numbers, and against a reference in float64."""

import functools
import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jssd.sampling import draw, noise, truncate
from jssd.sampling.truncate import Law


def _law(*rows):
    """A row of settings per (temperature, top_k, top_p, min_p)."""
    temperature, top_k, top_p, min_p = np.array(rows, np.float64).T
    numbers = [jnp.asarray(x, jnp.float32) for x in (temperature, top_p, min_p)]
    return Law(numbers[0], jnp.asarray(top_k, jnp.int32), numbers[1], numbers[2])


def _kept(probs, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """Ids that the law keeps of a distribution at temperature 1, by thresholds."""
    logits_BV = jnp.log(jnp.array([probs], jnp.float32))
    law = _law((temperature, top_k, top_p, min_p))
    kept = np.isfinite(_truncate(logits_BV, law)[0])
    # The two ways to the law must agree on every example of this file.
    assert kept.tolist() == np.isin(np.arange(len(probs)), _support(logits_BV, law)[0]).tolist()
    return np.flatnonzero(kept).tolist()


def _keys(batch, seed=0):
    zeros = np.zeros(batch, np.uint32)
    samples_B = np.arange(batch, dtype=np.uint32)
    return _address_keys(zeros + np.uint32(seed), zeros + 7, samples_B, np.zeros(batch, np.int32))


@jax.jit
def _address_keys(seeds_B, prompts_B, samples_B, positions_B):
    return noise.position_keys(noise.row_keys(seeds_B, prompts_B, samples_B), positions_B)


_truncate = jax.jit(truncate.truncate)


@functools.partial(jax.jit, static_argnums=3)
def _draw(logits_BV, law, keys_B, num_candidates=truncate.NUM_CANDIDATES):
    return draw.draw(logits_BV, law, keys_B, num_candidates)


def _support(logits_BV, law):
    """Per row the sorted ids that a draw over the whole vocabulary says it could have taken."""
    logits_BV = jnp.asarray(logits_BV)
    B, V = logits_BV.shape
    drawn = _draw(logits_BV, law, _keys(B), V)
    return [np.sort(ids[ids >= 0]) for ids in np.asarray(drawn.support_BC)]


# Rule by rule.


def test_top_k_keeps_the_k_likeliest():
    assert _kept([0.1, 0.4, 0.3, 0.2], top_k=2) == [1, 2]
    assert _kept([0.1, 0.4, 0.3, 0.2], top_k=1) == [1]
    assert _kept([0.1, 0.4, 0.3, 0.2], top_k=4) == [0, 1, 2, 3]
    assert _kept([0.1, 0.4, 0.3, 0.2], top_k=9) == [0, 1, 2, 3]
    assert _kept([0.1, 0.4, 0.3, 0.2], top_k=0) == [0, 1, 2, 3]


def test_ties_at_the_kth_stay():
    assert _kept([0.4, 0.2, 0.2, 0.15, 0.05], top_k=2) == [0, 1, 2]
    assert _kept([0.25] * 4, top_k=1) == [0, 1, 2, 3]


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    assert _kept([0.05, 0.5, 0.15, 0.3], top_p=0.7) == [1, 3]
    assert _kept([0.05, 0.5, 0.15, 0.3], top_p=0.45) == [1]
    assert _kept([0.05, 0.5, 0.15, 0.3], top_p=0.51) == [1, 3]
    assert _kept([0.05, 0.5, 0.15, 0.3], top_p=0.96) == [0, 1, 2, 3]
    assert _kept([0.05, 0.5, 0.15, 0.3], top_p=1.0) == [0, 1, 2, 3]


def test_top_p_that_is_met_exactly_needs_no_more():
    assert _kept([0.5, 0.25, 0.25], top_p=0.5) == [0]


def test_ties_in_top_p_go_by_token_id():
    assert _kept([0.2, 0.2, 0.2, 0.2, 0.2], top_p=0.5) == [0, 1, 2]
    assert _kept([0.15, 0.15, 0.4, 0.15, 0.15], top_p=0.6) == [0, 1, 2]


def test_min_p_is_a_share_of_the_likeliest():
    assert _kept([0.4, 0.3, 0.21, 0.09], min_p=0.5) == [0, 1, 2]
    assert _kept([0.4, 0.3, 0.21, 0.09], min_p=0.6) == [0, 1]
    assert _kept([0.4, 0.3, 0.21, 0.09], min_p=1.0) == [0]
    assert _kept([0.4, 0.4, 0.2], min_p=1.0) == [0, 1]


def test_tempers_before_it_truncates():
    # At temperature 1/2 the weights 0.4 0.3 0.2 0.1 become their squares: 16 9 4 1 of 30.
    assert _kept([0.4, 0.3, 0.2, 0.1], temperature=0.5, top_p=0.8) == [0, 1]
    assert _kept([0.4, 0.3, 0.2, 0.1], temperature=1.0, top_p=0.8) == [0, 1, 2]
    # At temperature 2 they become their roots: 1/9 of the likeliest becomes 1/3.
    assert _kept([0.9, 0.1], temperature=2.0, min_p=0.3) == [0, 1]
    assert _kept([0.9, 0.1], temperature=1.0, min_p=0.3) == [0]


def test_top_p_works_on_what_top_k_left():
    # Of 0.4 0.3 0.2 0.1, top_k=2 leaves 4/7 and 3/7: 0.57 reaches 0.5. Before it, 0.4 does not.
    assert _kept([0.4, 0.3, 0.2, 0.1], top_p=0.5) == [0, 1]
    assert _kept([0.4, 0.3, 0.2, 0.1], top_p=0.5, top_k=2) == [0]
    # Ties that top_k kept count in the norm: 0.4 of 0.8 is not enough for 0.51.
    assert _kept([0.4, 0.2, 0.2, 0.1, 0.1], top_p=0.51, top_k=2) == [0, 1]
    assert _kept([0.4, 0.2, 0.2, 0.1, 0.1], top_p=0.76, top_k=2) == [0, 1, 2]


def test_min_p_comes_last():
    # First, it would leave 0.5 and 0.3, of which top_p=0.6 needs only the first.
    assert _kept([0.5, 0.3, 0.1, 0.1], top_p=0.6, min_p=0.5) == [0, 1]


@pytest.mark.parametrize("temperature", [0.0, 9e-6])
def test_below_1e_5_is_greedy(temperature):
    assert _kept([0.3, 0.4, 0.2, 0.1], temperature=temperature) == [1]
    # The first of equals, whatever the other settings.
    assert _kept([0.1, 0.45, 0.45], temperature, top_k=3, top_p=0.9, min_p=0.1) == [1]


def test_just_above_1e_5_is_not_greedy():
    assert _kept([0.1, 0.45, 0.45], temperature=2e-5, top_p=0.9) == [1, 2]


def test_truncate_returns_the_tempered_logits():
    logits = truncate.truncate(jnp.array([[4.0, 2.0, 0.0]]), _law((2.0, 2, 1.0, 0.0)))
    assert logits.tolist() == [[2.0, 1.0, -math.inf]]


def test_one_certain_token_and_forbidden_ones():
    logits_BV = jnp.array([[-jnp.inf, 3.0, -jnp.inf, 1.0]])
    for settings in ((1.0, 0, 0.99, 0.0), (1.0, 3, 0.99, 0.0), (1.0, 0, 1.0, 0.05)):
        drawn = _draw(logits_BV, _law(settings), _keys(1))
        assert int(drawn.token_B[0]) in (1, 3)
    alone = jnp.array([[-jnp.inf, 3.0, -jnp.inf]])
    drawn = _draw(alone, _law((1.0, 0, 0.9, 0.0)), _keys(1))
    assert (int(drawn.token_B[0]), float(drawn.logprob_B[0])) == (1, 0.0)


# Against a reference.

SETTINGS = [
    (temperature, top_k, top_p, min_p)
    for temperature in (0.0, 0.3, 1.0, 1.7)
    for top_k in (0, 1, 5, 40)
    for top_p in (0.05, 0.5, 0.9, 1.0)
    for min_p in (0.0, 0.2)
]
VOCAB = 40
BAND = 1e-4  # Rows whose thresholds are closer than this are not decided by float32.


def reference(logits, temperature, top_k, top_p, min_p):
    """(sorted ids that stay, how near the nearest decision was), in float64, loop by loop."""
    logits = [float(x) for x in logits]
    ids = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    if temperature < 1e-5:
        return [ids[0]], 1.0
    tempered = [x / temperature for x in logits]
    top = tempered[ids[0]]
    margin = 1.0
    if 0 < top_k < len(ids):
        kth = tempered[ids[top_k - 1]]
        ids = [i for i in ids if tempered[i] >= kth]
    if top_p < 1:
        weights = {i: math.exp(tempered[i] - top) for i in ids}
        total = math.fsum(weights.values())
        left, before = [], 0.0
        for i in ids:
            margin = min(margin, abs(before / total - top_p))
            if before / total < top_p:
                left.append(i)
            before += weights[i]
        ids = left
    if min_p > 0:
        margin = min(margin, *(abs(math.exp(tempered[i] - top) - min_p) for i in ids))
        ids = [i for i in ids if math.exp(tempered[i] - top) >= min_p]
    return sorted(ids), margin


def _logits(kind, seed):
    rng = np.random.default_rng(seed)
    if kind == "tied":
        return rng.integers(-3, 3, VOCAB) * 0.75
    scale = {"random": 2.0, "peaked": 8.0, "flat": 1e-3}[kind]
    return rng.normal(size=VOCAB) * scale


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(
    kind=st.sampled_from(["random", "tied", "peaked", "flat"]),
    seed=st.integers(0, 2**31),
    num_candidates=st.sampled_from([4, 12, VOCAB]),
)
def test_support_equals_the_reference_on_every_path(kind, seed, num_candidates):
    logits = _logits(kind, seed).astype(np.float32)
    law = _law(*SETTINGS)
    logits_BV = jnp.asarray(np.tile(logits, (len(SETTINGS), 1)))
    keys_B = _keys(len(SETTINGS), seed % 1000)
    drawn = jax.device_get(_draw(logits_BV, law, keys_B, num_candidates))
    full = np.isfinite(_truncate(logits_BV, law))
    for row, settings in enumerate(SETTINGS):
        wanted, margin = reference(logits, *settings)
        if margin < BAND:
            continue
        assert np.flatnonzero(full[row]).tolist() == wanted, settings
        assert drawn.token_B[row] in wanted, settings
        size = drawn.support_size_B[row]
        ids = drawn.support_BC[row]
        if size > 0:  # Certified: the stored support is the whole of it.
            assert sorted(ids[ids >= 0]) == wanted and size == len(wanted), settings
            likeliest_first = logits[ids[ids >= 0]]
            assert (np.diff(likeliest_first) <= 0).all()
        else:
            assert (ids == -1).all()
            assert (size == 0) <= (len(wanted) == VOCAB), settings
            assert num_candidates < VOCAB


def test_an_empty_support_size_means_an_untruncated_law():
    laws = _law((1.0, 0, 1.0, 0.0), (0.7, 99, 1.0, 0.0), (1.0, 50, 1.0, 0.0), (1.0, 5, 1.0, 0.0))
    logits_BV = jnp.asarray(np.random.default_rng(0).normal(size=(4, 60)), jnp.float32)
    sizes = _draw(logits_BV, laws, _keys(4), 20).support_size_B
    assert sizes.tolist() == [0, 0, -1, 5]


# The draw.


@pytest.mark.parametrize("kind", ["random", "tied", "peaked", "flat"])
def test_the_token_is_the_same_whichever_path_computed_it(kind):
    """Few candidates take thresholds, a whole vocabulary none; a lone row takes its own path."""
    B = len(SETTINGS)
    logits_BV = jnp.asarray(np.stack([_logits(kind, seed) for seed in range(B)]), jnp.float32)
    law, keys_B = _law(*SETTINGS), _keys(B)
    wanted = np.asarray(_draw(logits_BV, law, keys_B, VOCAB).token_B)
    for num_candidates in (2, 10):
        tokens_B = _draw(logits_BV, law, keys_B, num_candidates).token_B
        assert tokens_B.tolist() == wanted.tolist()
    for row in range(0, B, 9):
        one = slice(row, row + 1)
        alone = _draw(logits_BV[one], law.rows(one), keys_B[one], 10)
        assert int(alone.token_B[0]) == wanted[row], SETTINGS[row]


def test_each_of_the_three_paths_is_taken():
    """A poisoned path shows that the others do not run it."""
    logits_BV = jnp.asarray(np.random.default_rng(1).normal(size=(2, 50)), jnp.float32)
    certified, whole, neither = (1.0, 3, 1.0, 0.0), (1.0, 0, 1.0, 0.0), (1.0, 45, 1.0, 0.0)
    for rows, wanted in (
        ((certified, certified), [True, True]),
        ((certified, whole), [True, False]),
        ((whole, neither), [False, False]),
    ):
        law = _law(*rows)
        sorted_BC, _ = jax.lax.top_k(logits_BV, 10)
        weight_B = jnp.exp(logits_BV - sorted_BC[:, :1]).sum(axis=1)
        assert truncate.certified(sorted_BC, weight_B, law, 50).tolist() == wanted
        assert truncate.untruncated(law, 50).tolist() == [row == whole for row in rows]
        ours = _draw(logits_BV, law, _keys(2), 10).token_B
        assert ours.tolist() == _draw(logits_BV, law, _keys(2), 50).token_B.tolist()


def test_a_tie_at_the_edge_of_the_candidates_is_not_certified():
    # Of 8 equal tokens 4 are looked at: top_k=2 keeps all 8.
    law = _law((1.0, 2, 1.0, 0.0))
    drawn = _draw(jnp.zeros((1, 8)), law, _keys(1), 4)
    assert drawn.support_size_B.tolist() == [-1]
    tokens = _draw(jnp.zeros((400, 8)), _law(*[(1.0, 2, 1.0, 0.0)] * 400), _keys(400), 4).token_B
    assert set(np.asarray(tokens).tolist()) == set(range(8))


def test_a_tie_with_the_last_candidate_is_not_certified():
    # Wherever a candidate search looks first, of equals the lowest ids are the law's.
    law = _law((1.0, 0, 0.3, 0.0))
    drawn = _draw(jnp.zeros((1, 8)), law, _keys(1), 4)
    assert drawn.support_size_B.tolist() == [-1]
    tokens = _draw(jnp.zeros((200, 8)), _law(*[(1.0, 0, 0.3, 0.0)] * 200), _keys(200), 4).token_B
    assert set(np.asarray(tokens).tolist()) == {0, 1, 2}


@pytest.mark.parametrize("kind", ["random", "tied", "peaked", "flat"])
def test_thresholds_equal_a_sort_on_a_large_vocabulary(kind):
    V = 3000
    rng = np.random.default_rng(4)
    scale = {"random": 2.0, "tied": 2.0, "peaked": 9.0, "flat": 1e-3}[kind]
    logits_V = (rng.normal(size=V) * scale - 1).astype(np.float32)
    if kind == "tied":
        logits_V = np.round(logits_V * 2) / 2
    logits_V[:5] = -np.inf
    settings = [
        (temperature, top_k, top_p, min_p)
        for temperature in (0.0, 0.7, 1.5)
        for top_k in (0, 20, 1000)
        for top_p in (0.1, 0.95, 0.9999, 1.0)
        for min_p in (0.0, 1e-4, 0.3)
    ]
    kept = np.isfinite(_truncate(jnp.tile(logits_V, (len(settings), 1)), _law(*settings)))
    for row, setting in enumerate(settings):
        wanted, margin = reference(logits_V, *setting)
        wanted = [i for i in wanted if np.isfinite(logits_V[i])]
        if margin < 1e-6:
            continue
        got = np.flatnonzero(kept[row]).tolist()
        # A float32 mass of 3000 terms may put the edge one token off, no more.
        assert len(set(got) ^ set(wanted)) <= (1 if setting[2] < 1 else 0), setting


@pytest.mark.parametrize("kind", ["random", "tied", "flat"])
def test_the_likeliest_are_those_of_top_k(kind):
    """Equals of the last may be others; all above it are the same, in the same order."""
    rng = np.random.default_rng(6)
    x_BV = rng.normal(size=(5, 4096)).astype(np.float32)
    if kind == "tied":
        x_BV = np.round(x_BV * 3)
    if kind == "flat":
        x_BV[:] = 0
        x_BV[:, 77] = 1
    found, ids = jax.jit(truncate._top_k, static_argnums=1)(x_BV, 20)
    wanted, wanted_ids = jax.lax.top_k(x_BV, 20)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(np.take_along_axis(x_BV, np.asarray(ids), axis=1), wanted)
    above = np.asarray(wanted) > np.asarray(wanted)[:, -1:]
    np.testing.assert_array_equal(np.asarray(ids)[above], np.asarray(wanted_ids)[above])
    assert all(len(set(row)) == 20 for row in np.asarray(ids).tolist())


def test_both_zeros_are_one_number():
    logits_BV = jnp.array([[0.0, -0.0, -1.0, 1.0, -0.0]])
    kept = np.isfinite(_truncate(logits_BV, _law((1.0, 2, 1.0, 0.0))))
    assert kept.tolist() == [[True, True, False, True, True]]


def test_a_draw_does_not_depend_on_its_batch_mates():
    B = 12
    rng = np.random.default_rng(2)
    logits_BV = jnp.asarray(rng.normal(size=(B, VOCAB)) * 3, jnp.float32)
    law, keys_B = _law(*SETTINGS[8 : 8 + B]), _keys(B)
    wanted = jax.device_get(_draw(logits_BV, law, keys_B, 10))
    order = rng.permutation(B)
    moved = jax.device_get(_draw(logits_BV[order], law.rows(order), keys_B[order], 10))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[order]), moved, wanted)
    for row in range(B):
        one = slice(row, row + 1)
        alone = jax.device_get(_draw(logits_BV[one], law.rows(one), keys_B[one], 10))
        assert (alone.token_B[0], alone.logprob_B[0]) == (
            wanted.token_B[row],
            wanted.logprob_B[row],
        )


def test_the_address_decides_the_draw():
    flat = jnp.zeros((1, 50_000))
    law = _law((1.0, 0, 1.0, 0.0))

    def token(seed, prompt, sample, position):
        address = (np.array([x], np.uint32) for x in (seed, prompt, sample))
        keys_B = _address_keys(*address, np.array([position], np.int32))
        return int(_draw(flat, law, keys_B).token_B[0])

    addresses = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (1, 1, 0, 0)]
    addresses += [(2**32 - 1, 2**32 - 1, 3, 4)]  # The whole 32 bits may be used.
    assert len({token(*address) for address in addresses}) == len(addresses)
    assert token(3, 4, 5, 6) == token(3, 4, 5, 6)


def test_noise_of_some_tokens_equals_noise_of_all():
    key = jax.random.fold_in(jax.random.key(5), 3)
    ids_C = jnp.array([0, 1, 17, 999, 31_337, 49_151, 131_071])
    some = noise.noise_at(key, ids_C)
    np.testing.assert_array_equal(some, noise.noise_all(key, 131_072)[ids_C])


def test_noise_is_finite_at_the_ends_of_the_bits():
    ends = noise._gumbel(jnp.array([0, 1, 2**32 - 1], jnp.uint32))
    assert np.isfinite(ends).all()
    # -log(-log(1 - u)) at u = 2^-33 and 3 * 2^-33: the far tail keeps its precision.
    np.testing.assert_allclose(ends[:2], [33 * math.log(2), 33 * math.log(2) - math.log(3)], 1e-5)


def test_noise_is_gumbel():
    import scipy.stats

    drawn = np.asarray(noise.noise_all(jax.random.key(11), 100_000))
    assert scipy.stats.kstest(drawn, scipy.stats.gumbel_r.cdf).pvalue > 1e-3


def test_the_logprob_is_that_of_the_untruncated_model_at_temperature_1():
    probs = np.array([0.4, 0.3, 0.2, 0.1], np.float32)
    law = _law((0.5, 2, 0.9, 0.0), (1.7, 0, 1.0, 0.0), (0.0, 0, 1.0, 0.0))
    drawn = _draw(jnp.log(jnp.tile(probs, (3, 1))) + 5, law, _keys(3))
    np.testing.assert_allclose(np.exp(drawn.logprob_B), probs[drawn.token_B], rtol=1e-5)


def test_a_sweep_compiles_once():
    traces = 0

    def counted(logits_BV, law, keys_B):
        nonlocal traces
        traces += 1
        return draw.draw(logits_BV, law, keys_B, 10)

    program = jax.jit(counted)
    for settings in SETTINGS[::5]:
        program(jnp.zeros((2, VOCAB)), _law(settings, settings), _keys(2))
    assert traces == 1


def test_bfloat16_logits_are_drawn_from_in_float32():
    logits_BV = jnp.asarray(np.random.default_rng(3).normal(size=(4, VOCAB)), jnp.bfloat16)
    law, keys_B = _law(*[(1.3, 10, 0.9, 0.0)] * 4), _keys(4)
    ours = jax.device_get(_draw(logits_BV, law, keys_B))
    wanted = jax.device_get(_draw(logits_BV.astype(jnp.float32), law, keys_B))
    jax.tree.map(np.testing.assert_array_equal, ours, wanted)
    assert ours.logprob_B.dtype == np.float32
