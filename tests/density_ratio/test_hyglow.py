"""HyGLOW against H2O with the oracle MABO.CR, against its pseudocode by hand, and what it refuses."""

import dataclasses
import math

import numpy as np
import pytest

from theoryrl._jit import plain
from theoryrl.classes import FiniteClass, WeightClass, realizable_class
from theoryrl.density_ratio import (
    GLOW,
    HyGLOW,
    OccupancyRatios,
    h2o,
    log_tests,
    occupancy_ratios,
    returned_policy,
    risk,
    units_of,
)
from theoryrl.density_ratio._instances import combination_lock
from theoryrl.density_ratio.hyglow import hybrid_ratios
from theoryrl.density_ratio.oracles import MABOCR
from theoryrl.mdp import (
    Dataset,
    FiniteHorizonMDP,
    backward_induction,
    evaluate,
    occupancy,
    random_mdp,
    rollout,
)
from theoryrl.online import run

MASK = np.array([[True, True, False], [True, True, True], [False, True, True]])


def model(seed, staged=True, **settings):
    base = random_mdp(3, 3, 3, seed, staged=staged)
    start = np.array([0.5, 0.25, 0.25])
    laws = dict(horizon=3, reward_law="bernoulli", action_mask=MASK, initial=start)
    return FiniteHorizonMDP(base.transition, base.reward, **laws | settings)


def hopeful(mdp, n, seed, spread=0.4):
    """Q* last, and members around it that promise too much on the whole."""
    rng, optimal = np.random.default_rng(seed), backward_induction(mdp).q
    optimal = np.where(np.isfinite(optimal), optimal, 0.0)
    values = np.repeat(optimal[np.newaxis], n, axis=0)
    values[:-1] += spread * (rng.random(values[:-1].shape) - 0.3)
    return FiniteClass(np.clip(values, 0.0, 3.0))


def parts(seed, n=5, rows=60, **settings):
    mdp = model(seed, **settings)
    cls = hopeful(mdp, n, seed)
    best = backward_induction(mdp).policy
    return mdp, cls, rollout(mdp, best, rows, seed), occupancy(mdp, best)


@pytest.mark.parametrize("form", ["max", "sum"])
@pytest.mark.parametrize(("seed", "staged"), [(0, True), (1, False), (2, True), (3, False)])
def test_it_is_h2o_with_mabo_cr_episode_by_episode_to_the_bit(seed, staged, form):
    mdp, cls, offline, law = parts(seed, staged=staged)
    weights = occupancy_ratios(cls, mdp)
    order, rounds = np.random.default_rng(seed).permutation(5), 40
    settings = dict(gamma=0.07, form=form, tie_order=order)
    learner = HyGLOW(offline, cls, weights, iterations=rounds, offline_law=law, **settings)
    result = run(learner, mdp, rounds, rng=seed, keep_states=True, checkpoints=range(1, rounds + 1))
    oracle = MABOCR(cls, weights, units=units_of(mdp), action_mask=MASK, **settings)
    first = cls.greedy(MASK)[order[0]]
    other = h2o(oracle, mdp, offline, rounds, seed, offline_law=law, first=first)
    state = result.states[0]
    assert [choice.member for choice in other.choices[1:]] == state.chosen[1:].tolist()
    assert np.array_equal(other.choices[-1].objective, state.objective)
    assert np.allclose(np.cumsum(other.regret), result.regret[0], rtol=1e-9, atol=1e-12)
    assert np.array_equal(np.cumsum(other.collected), result.collected[0])
    assert len(set(state.chosen.tolist())) > 1  # or there is nothing to see
    assert risk(result)[0] == pytest.approx(other.risk, rel=1e-9)
    assert np.array_equal(state.visits.sum(axis=(1, 2)), np.full(3, 2 * rounds - 1.0))


@pytest.mark.parametrize("form", ["max", "sum"])
def test_a_list_of_weights_against_h2o(form):
    mdp, cls, offline, _ = parts(4)
    rng = np.random.default_rng(0)
    values = rng.exponential(size=(6, 3, 3, 3))
    values[0], values[1, 0, 0] = 0.0, np.inf
    weights = WeightClass(values)
    settings = dict(gamma=0.2, form=form, c=0.1)
    learner = HyGLOW(offline, cls, weights, iterations=30, check=False, **settings)
    state = run(learner, mdp, 30, rng=2, keep_states=True).states[0]
    oracle = MABOCR(cls, weights, units=units_of(mdp), action_mask=MASK, **settings)
    other = h2o(oracle, mdp, offline, 30, 2, first=cls.greedy(MASK)[0])
    assert [choice.member for choice in other.choices[1:]] == state.chosen[1:].tolist()
    assert np.array_equal(other.choices[-1].objective, state.objective)


def objective_by_hand(rows, values, best, ratios, n, gamma, c, form):
    """The formula of the paper, tuple by tuple; rows (h, s, a, r, s') in units, ratios (nW, H, S, A)."""
    level = gamma * n
    found = []
    for f in range(len(values)):
        tests = np.zeros((len(ratios), values.shape[1]))
        for w, ratio in enumerate(ratios):
            for h in range(values.shape[1]):
                terms, squares = [], []
                for k, s, a, r, s_next in rows:
                    if k == h:
                        clipped = min(ratio[h, s, a], level)
                        terms.append(clipped * (values[f, h, s, a] - r - best[f, h + 1, s_next]))
                        squares.append(clipped**2)
                tests[w, h] = abs(math.fsum(terms)) / n - c / level * math.fsum(squares) / n
        found.append(tests.max() if form == "max" else tests.sum(axis=1).max())
    return np.array(found)


@pytest.mark.parametrize("form", ["max", "sum"])
def test_every_round_minimises_the_objective_of_the_paper(form):
    mdp, cls, offline, law = parts(5)
    weights, gamma, rounds = occupancy_ratios(cls, mdp), 0.1, 12
    order = np.array([3, 1, 0, 2, 4])
    settings = dict(gamma=gamma, form=form, offline_law=law, tie_order=order)
    learner = HyGLOW(offline, cls, weights, iterations=rounds, **settings)
    state = run(learner, mdp, rounds, rng=1, keep_states=True).states[0]
    played = iter(state.greedy[state.chosen[1:]])
    data = h2o(lambda data: next(played), mdp, offline, rounds, 1, first=state.greedy[state.chosen[0]]).data
    values, best = cls.values / 3, cls.state_values(MASK) / 3
    total = np.zeros(law.shape)
    for t in range(2, rounds + 1):
        total += occupancy(mdp, state.greedy[state.chosen[t - 2]])
        mean = (law + total / (t - 1)) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = [np.where(mass > 0, mass / mean, 0.0) for mass in weights.masses[0]]
        n = 2 * (t - 1)
        columns = (data.step, data.state, data.action, data.reward / 3, data.next_state)
        rows = list(zip(*(column[: 3 * n].tolist() for column in columns), strict=True))
        found = objective_by_hand(rows, values, best, ratios, n, gamma, 0.25, form)
        # No ties to rounding here: the chosen one is the least by more than that.
        assert found[state.chosen[t - 1]] <= np.sort(found)[0] + 1e-12
    assert np.allclose(found, state.objective, rtol=1e-9, atol=1e-13)


def test_ratios_are_those_of_the_hybrid_law_in_every_model():
    mdps = [model(seed) for seed in (6, 7)]
    cls = hopeful(mdps[0], 4, 0)
    weights = occupancy_ratios(cls, mdps)
    laws = np.stack([occupancy(mdp, backward_induction(mdps[0]).policy) for mdp in mdps])
    offline = rollout(mdps[0], backward_induction(mdps[0]).policy, 20, 0)
    learner = HyGLOW(offline, cls, weights, iterations=20, gamma=0.1, offline_law=laws)
    state = run(learner, mdps[0], 20, rng=3, keep_states=True).states[0]
    n_policies = weights.n_policies
    for m in range(2):
        history = weights.masses[m, weights.row[state.chosen[:19]]].sum(axis=0)
        mean = (laws[m] + history / 19) / 2
        for p in range(n_policies):
            mass, ratio = weights.masses[m, p], state.weights[m * n_policies + p]
            assert np.allclose(ratio[mean > 0], mass[mean > 0] / mean[mean > 0], rtol=1e-12)
            assert (ratio[(mean == 0) & (mass > 0)] == np.inf).all() and (ratio[mass == 0] == 0).all()
    wrong = dataclasses.replace(learner, weights=OccupancyRatios(weights.masses[1:], weights.row), offline_law=laws[1])
    with pytest.raises(ValueError, match="no model of the weights has the occupancies"):
        run(wrong, mdps[0], 5)


def test_compiled_ratios_are_the_plain_ones():
    rng = np.random.default_rng(1)
    masses = rng.random((2, 3, 2, 2, 2)) * (rng.random((2, 3, 2, 2, 2)) < 0.7)
    law, played = (rng.random((2, 2, 2, 2)) * (rng.random((2, 2, 2, 2)) < 0.5) for _ in range(2))
    fast, slow = np.empty((6, 2, 2, 2)), np.empty((6, 2, 2, 2))
    hybrid_ratios(masses, law, played, 5.0, fast)
    plain(hybrid_ratios)(masses, law, played, 5.0, slow)
    assert np.array_equal(fast, slow) and np.isinf(slow).any() and (slow == 0).any()


def test_what_is_returned_is_the_uniform_mixture_of_the_episodes():
    # Four policies of different values, the last one played in 27 of 30 episodes.
    mdp, cls = combination_lock(4)
    best = backward_induction(mdp).policy
    learner = HyGLOW(
        rollout(mdp, best, 40, 0),
        cls,
        occupancy_ratios(cls, mdp, 1.0),
        iterations=40,
        gamma=0.07,
        offline_law=occupancy(mdp, best),
        total_reward=1.0,
        tie_order=[4, 1, 3, 0, 2],
    )
    result = run(learner, mdp, 30, rng=0, keep_states=True, checkpoints=[7, 30])
    mixture = returned_policy(result.states[0])
    assert sorted(np.asarray(mixture.weights) * 30) == pytest.approx([1, 1, 1, 27])
    assert risk(result)[0] == pytest.approx((0.8 + 0.7 + 0.8) / 30)
    assert 0.8 - float(mdp.initial @ evaluate(mdp, mixture)[0]) == pytest.approx(risk(result)[0], rel=1e-9)
    with pytest.raises(ValueError, match="no iteration was played"):
        returned_policy(learner.init(run_problem(mdp)))


def run_problem(mdp):
    from theoryrl.online import Problem

    return Problem(mdp.n_states, mdp.n_actions, mdp.horizon, *mdp.reward_range, mdp.stationary, mdp.action_mask)


def test_the_default_of_gamma_minimises_the_bound():
    mdp, cls, offline, law = parts(0)
    weights = occupancy_ratios(cls, mdp)
    star, cover = np.array([1.0, 2.0, 1.5]), np.array([2.0, 3.0, 4.0])
    learner = HyGLOW(
        offline, cls, weights, iterations=50, offline_law=law, concentrability=star, coverability=cover, delta=0.1
    )
    a = max((math.e - 1) / 4 + 2 * (math.e - 2), 2.0)
    b = 2 * (0.25 + 0.5 + 2) * (math.log(5 * 5 * 3 / 0.1) + log_tests(weights, 50))

    harmonic = sum(1 / k for k in range(1, 50))
    total = 0.0
    for ours, theirs in zip(star, cover, strict=True):
        # sum x / (k (k + x)) with the integral for what is left out.
        x, n = 50 / theirs, 100_000
        tail = math.log1p(x / (n + 0.5))
        potential = theirs * (sum(x / (k * (k + x)) for k in range(1, n + 1)) + tail) - 1
        total += ours * harmonic + potential
    assert learner.slope() == pytest.approx(math.sqrt(a * total / (50 * 3 * b)), rel=1e-9)
    single = dataclasses.replace(learner, concentrability=2.0, coverability=3.0)
    per_layer = dataclasses.replace(learner, concentrability=[2.0] * 3, coverability=[3.0] * 3)
    assert single.slope() == per_layer.slope() and run(learner, mdp, 5).provable


def test_more_episodes_than_iterations_are_a_fault():
    mdp, cls, offline, law = parts(0)
    learner = HyGLOW(offline, cls, occupancy_ratios(cls, mdp), iterations=10, gamma=0.1, offline_law=law)
    assert run(learner, mdp, 10).regret.size
    with pytest.raises(ValueError, match="the settings are for iterations=10, no more"):
        run(learner, mdp, 11)
    one = dataclasses.replace(learner, iterations=1, offline=offline)
    assert run(one, mdp, 1, keep_states=True).states[0].chosen.tolist() == [0]


def test_models_that_do_not_fit_the_theorem_are_refused():
    mdp, cls, offline, law = parts(0)
    weights = occupancy_ratios(cls, mdp)
    learner = HyGLOW(offline, cls, weights, iterations=10, gamma=0.1, offline_law=law)
    assert learner.provable and not dataclasses.replace(learner, check=False).provable
    assert not dataclasses.replace(learner, noise_width=0.5).provable
    others = FiniteClass(cls.values[:-1])
    without = dataclasses.replace(learner, cls=others, weights=OccupancyRatios(weights.masses, weights.row[:-1]))
    with pytest.raises(ValueError, match=r"realizability .* \(check=False runs all the same\)"):
        run(without, mdp, 5)
    assert run(dataclasses.replace(without, check=False), mdp, 5).regret.size
    with pytest.raises(ValueError, match="an episode can collect"):
        run(dataclasses.replace(learner, total_reward=2.5, cls=FiniteClass(cls.values * 0)), mdp, 5)
    short = dataclasses.replace(learner, gamma=2.0, weights=WeightClass(np.ones((1, 3, 3, 3))))
    with pytest.raises(ValueError, match="W lacks the ratio of member"):
        run(short, mdp, 5)
    # All ratios of round 2, clipped or not, are enough for that check.
    mean = [(law + mass) / 2 for mass in weights.masses[0]]
    with np.errstate(divide="ignore", invalid="ignore"):
        table = [np.where(d > 0, d / mu, 0.0) for mu in mean for d in weights.masses[0]]
    for values in (np.stack(table), np.minimum(np.stack(table), 4.0)):
        assert run(dataclasses.replace(short, weights=WeightClass(values)), mdp, 5).regret.size
    missing = dataclasses.replace(short, weights=WeightClass(np.stack(table[:-1])))
    with pytest.raises(ValueError, match="W lacks the ratio of member"):
        run(missing, mdp, 5)


def test_bad_settings_are_refused_in_one_line_that_names_them():
    mdp, cls, offline, law = parts(0)
    good = dict(offline=offline, cls=cls, weights=occupancy_ratios(cls, mdp), iterations=10, gamma=0.1, offline_law=law)
    assert HyGLOW(**good)
    signed = dict(weights=np.zeros((1, 3, 3, 3)))
    for change, message in (
        (dict(offline=None), "offline must be a Dataset"),
        (dict(cls=[cls]), "cls must be a FiniteClass"),
        (signed, "weights must be a WeightClass or an OccupancyRatios"),
    ):
        with pytest.raises(TypeError, match=message):
            HyGLOW(**good | change)
    with pytest.raises(ValueError, match="not a weight"):
        WeightClass(-np.ones((1, 3, 3, 3)))
    bad = Dataset([0], [0], [0], [2], [0.0], [0], n_states=3, n_actions=3, horizon=3)
    for change, message in (
        (dict(iterations=0), "iterations"),
        (dict(iterations=62), "layer 0 has 60 offline rows, fewer than the 61"),
        (dict(gamma=0.0), "gamma must be positive"),
        (dict(gamma=math.nan), "gamma must be positive"),
        (dict(gamma=None), "gamma, or concentrability"),
        (dict(gamma=None, concentrability=2.0), "gamma, or coverability"),
        (dict(coverability=0.5), "coverability must be finite and at least 1"),
        (dict(concentrability=[1.0, 2.0]), "concentrability must be one number or one for each of 3 layers"),
        (dict(c=0.0), "c must be positive"),
        (dict(noise_width=math.inf), "noise_width must be positive"),
        (dict(total_reward=-1.0), "total_reward must be positive"),
        (dict(delta=1.0), "delta must lie"),
        (dict(form="mean"), "form must be"),
        (dict(tie_order=[0, 0, 1, 2, 3]), "tie_order must be a permutation"),
        (dict(offline_law=None), "offline_law must be given"),
        (dict(offline_law=law * 2), r"offline_law\[0\] is no distribution"),
        (dict(offline_law=law[0]), "offline_law has shape"),
        (dict(weights=WeightClass(np.ones((1, 2, 3, 3)))), "the class is for"),
        (dict(weights=OccupancyRatios(good["weights"].masses, [0, 0])), "rows for 2 members, cls has 5"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            HyGLOW(**good | change)
        assert "\n" not in str(caught.value)
    uneven = Dataset.concatenate([offline, bad])
    assert HyGLOW(**good | dict(offline=uneven))  # more rows in a layer than are needed: the first ones are taken
    first = Dataset.concatenate([bad, offline])
    with pytest.raises(ValueError, match=r"action\[0\] = 2 of the offline data is forbidden"):
        run(HyGLOW(**good | dict(offline=first)), mdp, 5)


def test_glow_states_return_policies_too():
    mdp, cls, _, _ = parts(0)
    learner = GLOW(cls, occupancy_ratios(cls, mdp), iterations=10, gamma=0.1)
    state = run(learner, mdp, 10, keep_states=True).states[0]
    assert np.asarray(returned_policy(state).weights).sum() == pytest.approx(1.0)


def test_units_of_reward_do_not_matter_and_one_of_everything_works():
    one = FiniteHorizonMDP(np.ones((1, 1, 1)), np.array([[0.5]]), horizon=1)
    cls = realizable_class(one, 0, rng=0)
    learner = HyGLOW(
        rollout(one, np.array([0]), 10, 0), cls, WeightClass(np.ones((1, 1, 1, 1))), iterations=10, gamma=1.0
    )
    assert run(learner, one, 10).regret[0, -1] == 0.0
    mdp, cls, _, law = parts(2, reward_law="deterministic")
    other = mdp.with_reward(4.0 * mdp.reward - 1.0, reward_range=(-1.0, 3.0))
    lifted = FiniteClass(4.0 * cls.values - np.arange(3, 0, -1)[:, np.newaxis, np.newaxis])
    chosen = []
    for each, members in ((mdp, cls), (other, lifted)):
        data = rollout(each, backward_induction(mdp).policy, 40, 1)
        weights = occupancy_ratios(members, each)
        settings = HyGLOW(
            data,
            members,
            weights,
            iterations=40,
            gamma=0.1,
            offline_law=law,
            total_reward=3.0 * (1 if each is mdp else 4),
        )
        chosen.append(run(settings, each, 40, rng=1, keep_states=True).states[0].chosen)
    assert np.array_equal(*chosen)
