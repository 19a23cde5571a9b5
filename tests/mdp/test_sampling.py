"""Sampling tables and the kernels that draw from them. Statistical tests have a false-alarm level of 1e-6 each."""

import math
from types import SimpleNamespace

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from theoryrl.mdp import DiscountedMDP, FiniteHorizonMDP
from theoryrl.mdp import _kernels_sampling as kernels
from theoryrl.mdp.sampling import LINEAR_LIMIT, draw_initial, draw_step, row_tables, sampler

LEVEL = 1e-6
BELOW_ONE = math.nextafter(1.0, 0.0)
LAWS = {"deterministic": {}, "bernoulli": {}, "uniform": {"reward_noise": 0.25}}


class Scripted:
    """A generator that gives the uniforms it is told to."""

    def __init__(self, *uniforms):
        self.uniforms = list(uniforms)

    def random(self):
        return self.uniforms.pop(0)


def dense_model(n_states=5, n_actions=3, horizon=4, staged=False, seed=0, zeros=0.4, **settings):
    """Random rows, a share of `zeros` in them."""
    rng = np.random.default_rng(seed)
    shape = ((horizon,) if staged else ()) + (n_states, n_actions, n_states)
    weights = rng.exponential(size=shape) * (rng.random(shape) >= zeros)
    weights[..., 0] += ~weights.any(axis=-1)
    settings.setdefault("initial", rng.dirichlet(np.ones(n_states)))
    if "outcome_reward" not in settings:
        settings["reward"] = rng.random(shape[:-1])
    return FiniteHorizonMDP(weights / weights.sum(axis=-1, keepdims=True), horizon=horizon, **settings)


def masked_model(**settings):
    """Pair (1, 2) is forbidden and its row is nonsense."""
    mdp = dense_model(**settings)
    mask = np.ones((mdp.n_states, mdp.n_actions), bool)
    mask[1, 2] = False
    transition = mdp.transition.copy()
    transition[..., 1, 2, :] = np.nan
    return FiniteHorizonMDP(transition, mdp.reward, horizon=mdp.horizon, initial=mdp.initial, action_mask=mask)


def models():
    for staged in (False, True):
        for n_states in (5, LINEAR_LIMIT + 24):
            mdp = dense_model(n_states, staged=staged)
            yield from (mdp, mdp.to_sparse(), masked_model(n_states=n_states, staged=staged))


def layer_of(mdp, h):
    table = mdp.to_dense().transition_layers
    return table[h % len(table)]


def probabilities(tables, row, n_states):
    """What a row of the tables draws, integrated exactly over the uniform."""
    first, last = tables.indptr[row : row + 2]
    chances = np.zeros(n_states)
    if last - first <= LINEAR_LIMIT:
        chances[tables.successors[first:last]] = np.diff(tables.threshold[first:last], prepend=0.0)
    else:
        stay = tables.threshold[first:last]
        np.add.at(chances, tables.successors[first:last], stay)
        np.add.at(chances, tables.successors[first + tables.alias[first:last].astype(int)], 1 - stay)
        chances /= last - first
    return chances


# ---- tables


def test_tables_hold_the_distributions_of_every_kind_of_model():
    for mdp in models():
        tables = sampler(mdp)
        for h in range(mdp.horizon):
            for s, a in np.argwhere(mdp.action_mask):
                row = h * tables.transition_stride + s * mdp.n_actions + a
                exact = layer_of(mdp, h)[s, a]
                found = probabilities(tables, row, mdp.n_states)
                assert np.abs(found - exact / exact.sum()).max() <= 1e-14
                assert not found[exact == 0].any()
        start = probabilities(tables, len(tables.indptr) - 2, mdp.n_states)
        assert np.abs(start - mdp.initial / mdp.initial.sum()).max() <= 1e-14


@given(
    st.lists(st.sampled_from([0.0, 5e-324, 1e-300, 1e-17, 0.1, 1.0]) | st.floats(0, 1), min_size=1, max_size=60)
    .filter(lambda weights: sum(weights) > 1e-3)
    .map(np.array)
)
def test_any_row_of_weights_becomes_its_distribution(weights):
    arrays = [np.array([0, len(weights)]), np.empty(0, np.uint32), weights, np.ones(1), np.ones(1, bool)]
    for array in arrays:
        array.flags.writeable = False
    names = ("indptr", "successors", "threshold", "alias", "outcome")
    tables = SimpleNamespace(**dict(zip(names, row_tables(*arrays), strict=True)))
    found = probabilities(tables, 0, len(weights))
    assert set(tables.successors[: tables.indptr[1]]) == set(np.flatnonzero(weights > 0))
    assert np.abs(found - weights / math.fsum(weights)).max() <= 4 * len(weights) * 2.0**-53
    if tables.indptr[1] <= LINEAR_LIMIT:
        assert tables.threshold[tables.indptr[1] - 1] == 1.0
    else:
        assert tables.threshold.min() >= 0


def test_dense_and_sparse_models_have_the_same_tables():
    for mdp in models():
        for mine, other in zip(sampler(mdp.to_dense()), sampler(mdp.to_sparse()), strict=True):
            assert np.array_equal(mine, other)


def test_forbidden_rows_are_empty():
    nonsense = masked_model()
    ordinary = FiniteHorizonMDP(dense_model().transition, nonsense.reward, horizon=4, action_mask=nonsense.action_mask)
    for mdp in (nonsense, ordinary, ordinary.to_sparse()):
        tables = sampler(mdp)
        lengths = np.diff(tables.indptr)[:-1].reshape(mdp.n_states, mdp.n_actions)
        assert np.array_equal(lengths, np.count_nonzero(mdp.to_dense().transition, axis=-1) * mdp.action_mask)
        assert lengths[1, 2] == 0 < lengths[1, 1]


def test_all_models_share_one_type():
    outcome = np.random.default_rng(0).random((5, 3, 5))
    kinds = [*models(), dense_model(outcome_reward=outcome), dense_model(n_states=1), dense_model(n_actions=1)]
    kinds += [dense_model(reward_law=law, **more) for law, more in LAWS.items()]
    kinds += [DiscountedMDP(np.ones((1, 1, 1)), [[0.5]], discount=0.9), dense_model(staged=True).with_horizon(2)]
    assert len({str(numba.typeof(sampler(mdp))) for mdp in kinds}) == 1


def test_tables_take_sixteen_bytes_per_positive_probability():
    mdp = dense_model(n_states=60, zeros=0.5)
    tables = sampler(mdp)
    entries = np.count_nonzero(mdp.transition) + np.count_nonzero(mdp.initial)
    assert sum(table.nbytes for table in (tables.successors, tables.threshold, tables.alias)) == 16 * entries
    assert sampler(dense_model(n_states=LINEAR_LIMIT)).alias.size == 0


# ---- the draw of one uniform


def test_no_uniform_draws_an_impossible_successor(plain):
    for mdp in models():
        tables = sampler(mdp)
        for h in range(mdp.horizon):
            for s, a in np.argwhere(mdp.action_mask):
                for u in (0.0, 5e-324, 0.5, BELOW_ONE):
                    _, s_next = plain.draw_step(tables, h, s, a, Scripted(u))
                    assert layer_of(mdp, h)[s, a, s_next] > 0


def test_short_rows_invert_the_distribution_function(plain):
    mdp = FiniteHorizonMDP(
        np.array([[[0, 0.25, 0, 0.75, 0]]] * 5), np.zeros((5, 1)), horizon=2, initial=[0.5, 0, 0.5, 0, 0]
    )
    tables = sampler(mdp)
    for u, s_next in [(0.0, 1), (math.nextafter(0.25, 0), 1), (0.25, 3), (BELOW_ONE, 3)]:
        assert plain.draw_step(tables, 0, 0, 0, Scripted(u))[1] == s_next
    for u, s in [(0.0, 0), (math.nextafter(0.5, 0), 0), (0.5, 2), (BELOW_ONE, 2)]:
        assert plain.draw_initial(tables, Scripted(u)) == s


def test_a_uniform_times_the_length_stays_below_the_length():
    lengths = np.arange(1, 2**20, dtype=float)
    assert (BELOW_ONE * lengths < lengths).all()


def test_layers_are_told_apart():
    transition = np.zeros((4, 5, 1, 5))
    for h in range(4):
        transition[h, :, 0, h] = 1
    tables = sampler(FiniteHorizonMDP(transition, np.arange(20.0).reshape(4, 5, 1), horizon=4))
    rng = np.random.default_rng(0)
    assert [draw_step(tables, h, s, 0, rng) for h in range(4) for s in range(5)] == [
        (5.0 * h + s, h) for h in range(4) for s in range(5)
    ]


# ---- streams


@pytest.mark.parametrize("law", [*LAWS, "outcome"])
def test_every_step_takes_the_same_number_of_uniforms(law):
    more = LAWS.get(law, {"outcome_reward": np.ones((30, 3, 30))})
    mdp = dense_model(n_states=30, zeros=0.5, reward_law=law, **more)
    lengths = np.diff(sampler(mdp).indptr)[:-1]
    assert lengths.min() <= LINEAR_LIMIT < lengths.max()
    rng, counting = np.random.default_rng(3), np.random.default_rng(3)
    draw_initial(sampler(mdp), rng)
    counting.random()
    for s in range(mdp.n_states):
        for a in range(mdp.n_actions):
            draw_step(sampler(mdp), 0, s, a, rng)
            counting.random(2 if law in ("bernoulli", "uniform") else 1)
            assert rng.bit_generator.state == counting.bit_generator.state


def test_compiled_and_plain_python_agree_to_the_bit(plain):
    for law, more in LAWS.items():
        for mdp in (dense_model(30, reward_law=law, **more), dense_model(staged=True, reward_law=law, **more)):
            tables, rng, other = sampler(mdp), np.random.default_rng(1), np.random.default_rng(1)
            s = draw_initial(tables, rng)
            assert s == plain.draw_initial(tables, other)
            for i in range(200):
                h, a = i % mdp.horizon, i % mdp.n_actions
                step = draw_step(tables, h, s, a, rng)
                assert step == plain.draw_step(tables, h, s, a, other)
                s = step[1]


def test_tables_built_in_plain_python_are_the_same(plain, monkeypatch):
    mdp = dense_model(40, zeros=0.6)
    built = sampler(mdp)
    monkeypatch.setattr("theoryrl.mdp.sampling.kernels", plain)
    for mine, other in zip(built, sampler(mdp), strict=True):
        assert np.array_equal(mine, other)


# ---- distributions


def draws(tables, h, s, a, n, seed):
    successors, rewards = np.empty(n, np.int64), np.empty(n)
    kernels.sample_pair(tables, h, s, a, np.random.default_rng(seed), successors, rewards)
    return successors, rewards


def chi_square(found, expected):
    """p-value of counts; cells are pooled, the rarest first, until 30 are expected in each."""
    assert not found[expected == 0].any()
    cells = [[0, 0.0]]
    for i in np.argsort(expected):
        if cells[-1][1] >= 30:
            cells.append([0, 0.0])
        cells[-1][0] += found[i]
        cells[-1][1] += expected[i]
    if cells[-1][1] < 30:
        raise ValueError("too few draws")
    return stats.chisquare(*np.array(cells).T).pvalue


@pytest.mark.parametrize("n_states", [6, 60])
def test_successors_follow_their_probabilities(n_states):
    mdp = dense_model(n_states, n_actions=1, staged=True, horizon=2)
    for h in range(2):
        found = np.bincount(draws(sampler(mdp), h, 3, 0, 20_000, 7 + h)[0], minlength=n_states)
        assert chi_square(found, 20_000 * mdp.transition[h, 3, 0]) > LEVEL


def test_initial_states_follow_their_distribution():
    mdp = dense_model(3, initial=[0.2, 0.0, 0.8])
    rng, states = np.random.default_rng(0), np.empty(20_000, np.int64)
    kernels.reset_batch(sampler(mdp), rng, states)
    assert not (states == 1).any()
    assert stats.binomtest(int((states == 0).sum()), states.size, 0.2).pvalue > LEVEL


def hoeffding(n, width):
    """Half-width at level 1e-6 for the mean of n numbers in an interval of this width."""
    return width * math.sqrt(math.log(2 / LEVEL) / (2 * n))


def test_reward_laws_have_their_moments():
    n = 20_000
    mean = np.array([[0.3], [1.0], [0.0]])
    rows = np.full((3, 1, 3), 1 / 3)
    bernoulli = sampler(FiniteHorizonMDP(rows, mean, horizon=1, reward_law="bernoulli"))
    rewards = draws(bernoulli, 0, 0, 0, n, 1)[1]
    assert set(rewards) == {0.0, 1.0}
    assert stats.binomtest(int(rewards.sum()), n, 0.3).pvalue > LEVEL
    assert (draws(bernoulli, 0, 1, 0, 1000, 2)[1] == 1).all() and (draws(bernoulli, 0, 2, 0, 1000, 2)[1] == 0).all()

    noise = np.array([[0.5], [0.0], [2.0]])
    mdp = FiniteHorizonMDP(rows, mean, horizon=1, reward_law="uniform", reward_noise=noise)
    for s in range(3):
        rewards = draws(sampler(mdp), 0, s, 0, n, 3 + s)[1]
        off = rewards - mean[s, 0]
        assert np.abs(off).max() <= noise[s, 0] and mdp.reward_range[0] <= rewards.min()
        assert abs(off.mean()) <= hoeffding(n, 2 * noise[s, 0]) + 1e-15
        assert abs((off**2).mean() - noise[s, 0] ** 2 / 3) <= hoeffding(n, noise[s, 0] ** 2) + 1e-15
    assert set(draws(sampler(FiniteHorizonMDP(rows, mean, horizon=1)), 0, 0, 0, 50, 0)[1]) == {0.3}


@pytest.mark.parametrize("n_states", [5, 40])
def test_outcome_rewards_belong_to_the_successor(n_states):
    table = np.random.default_rng(0).normal(size=(n_states, 3, n_states))
    mdp = dense_model(n_states, outcome_reward=table)
    for model in (mdp, mdp.to_sparse()):
        successors, rewards = draws(sampler(model), 0, 2, 1, 2000, 4)
        assert len(set(successors)) > 1
        assert np.array_equal(rewards, table[2, 1, successors])


def test_successor_and_reward_are_independent():
    mdp = FiniteHorizonMDP(np.full((2, 1, 2), 0.5), np.full((2, 1), 0.5), horizon=1, reward_law="bernoulli")
    successors, rewards = draws(sampler(mdp), 0, 0, 0, 20_000, 5)
    assert stats.binomtest(int((successors == rewards).sum()), 20_000, 0.5).pvalue > LEVEL
