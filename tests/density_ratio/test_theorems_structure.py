"""Hidden states, completeness, clipping, ratios of pairs, wrong ratios: their parts, and verdicts that can turn red."""

from __future__ import annotations

import math
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import theoryrl as trl
from theoryrl.classes import WeightClass, decoder_lift, realizable_class
from theoryrl.complexity import coverability
from theoryrl.density_ratio import GLOW, OccupancyRatios, occupancy_ratios
from theoryrl.density_ratio import _theorems_clipping as clipping
from theoryrl.density_ratio import _theorems_pure as pure
from theoryrl.density_ratio import _theorems_structure as structure
from theoryrl.density_ratio._coupled import play_hidden, unlifted
from theoryrl.density_ratio._instances import last_reward
from theoryrl.mdp import FiniteHorizonMDP, random_mdp
from theoryrl.online import GOLF, run
from theoryrl.theory import get, verify

KEYS = (
    "glow.state-independence",
    "glow.no-completeness",
    "glow.clipping-needed",
    "glow.pure-ratios",
    "glow.misspecification",
)
SCHEDULES = ("self_normalised", "scale_free", "paper")


def masked():
    """Random start, forbidden actions, losses."""
    return FiniteHorizonMDP(
        np.full((3, 2, 3), 1 / 3),
        np.array([[-0.1, -0.9], [-0.5, -0.2], [-0.3, -0.3]]),
        horizon=2,
        initial=np.array([0.2, 0.5, 0.3]),
        action_mask=np.array([[True, True], [True, False], [False, True]]),
        reward_range=(-1.0, 0.0),
        name="masked",
    )


def measured(protocol, model, runs=2, seed=0):
    return protocol(model, rng=np.random.SeedSequence(seed), runs=runs, jobs=1, progress=None)


def small_glow(cls, weights, iterations, schedule="self_normalised", **changes):
    """Levels low enough for members to come and go within a few dozen rounds."""
    scale = {"self_normalised": 0.2, "scale_free": 0.2, "paper": 1e-3}[schedule]
    return GLOW(
        cls,
        weights,
        iterations,
        **(dict(gamma=0.5, total_reward=1.0, scale=scale, schedule=schedule, check=False) | changes),
    )


# --- hidden states


def test_the_hidden_trajectory_is_that_of_run():
    model = last_reward(3, 2, 2, rng=1)
    cls = realizable_class(model, 4, kind="consistent", ceiling=1.0, rng=2)
    settings = small_glow(cls, occupancy_ratios(cls, model, 1.0), 40)
    for seed in range(3):
        state = run(settings, model, 40, 1, seed, keep_states=True, jobs=1).states[0]
        stream = np.random.SeedSequence(seed).spawn(1)[0]
        twin = play_hidden(settings, unlifted(model), 40, stream)
        assert np.array_equal(twin.chosen, state.chosen) and np.array_equal(twin.visits, state.visits)
        assert np.array_equal(twin.residual, state.residual)  # rewards and successors, in their order
    assert len(np.unique(state.chosen)) > 1  # else nothing was compared


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_lifts_of_lists_and_of_ratios_give_the_same_choices_and_sums(schedule):
    model = last_reward(3, 2, 3, rng=4)
    cls = realizable_class(model, 4, kind="consistent", ceiling=1.0, rng=5)
    weights = WeightClass(np.exp(np.random.default_rng(6).standard_normal((3, 3, 3, 2))))
    varied = set()
    for _, lifted, noise in structure.lifts_of(model):
        wide, phi = decoder_lift(cls, lifted.decoder), lifted.decoder
        for mine, theirs in (
            (weights, decoder_lift(weights, phi)),
            (occupancy_ratios(cls, model, 1.0), occupancy_ratios(wide, lifted.mdp, 1.0)),
        ):
            played = [
                play_hidden(small_glow(f, w, 40, schedule), where, 40, np.random.SeedSequence(7), noise=extra)
                for f, w, where, extra in ((cls, mine, unlifted(model), False), (wide, theirs, lifted, noise))
            ]
            assert np.array_equal(played[0].chosen, played[1].chosen)
            varied.update(played[0].chosen.tolist())
            size = len(phi) // 3
            blocks = played[1].residual.reshape(3, 3, size, 2, -1).sum(axis=2).reshape(3, 6, -1)
            assert np.allclose(blocks, played[0].residual, rtol=0, atol=1e-12)
            assert np.array_equal(played[1].visits.reshape(3, 3, size, 2).sum(axis=2).reshape(3, 6), played[0].visits)
    assert len(varied) > 1


@pytest.mark.parametrize("noise", [False, True])
def test_observations_have_the_law_of_the_lift(noise):
    """Pairs at layer 1 against the exact occupancy of the lift, within five standard deviations."""
    model = last_reward(3, 2, 2, rng=8)
    lift = trl.envs.exogenous if noise else trl.envs.block_mdp
    lifted = lift(model, **{"n_noise" if noise else "n_observations": 4}, rng=9)
    cls = decoder_lift(realizable_class(model, 0), lifted.decoder)
    settings = GLOW(cls, occupancy_ratios(cls, lifted.mdp, 1.0), 3000, gamma=0.1, total_reward=1.0, check=False)
    state = play_hidden(settings, lifted, 3000, np.random.SeedSequence(10), noise=noise)
    law = trl.occupancy(lifted.mdp, state.policy).reshape(2, -1)
    off = np.abs(state.visits - 3000 * law)
    assert (state.visits.sum(axis=1) == 3000).all()
    assert (off <= 5 * np.sqrt(3000 * law * (1 - law)) + 1e-9).all()


def test_lifted_policies_cover_as_much():
    model = random_mdp(4, 2, 3, rng=3)
    policies = np.random.default_rng(0).integers(0, 2, (5, 3, 4))
    base = coverability(model, list(policies))
    for _, lifted, _ in structure.lifts_of(model):
        assert np.allclose(coverability(lifted.mdp, list(policies[:, :, lifted.decoder])), base, rtol=0, atol=1e-10)


def test_a_model_whose_lifts_do_not_fit_is_refused():
    report = verify("glow.state-independence", random_mdp(1100, 2, 2, rng=0))
    assert report.verdict == "not-applicable" and "too large" in report.note


# --- completeness


def test_the_detour_in_numbers():
    case = structure.Detour()
    mdp, cls = case.model(), case.members()
    found = trl.classes.completeness(cls, mdp)
    assert found.violation == pytest.approx(0.7, abs=1e-15) and (found.layer, found.member) == (0, 1)
    assert trl.classes.realizability(cls, mdp)
    excess = (0.8 + 1e-6 - 0.1) ** 2 - 0.7**2
    assert excess == pytest.approx(1.4000010e-6, rel=1e-9)
    assert 0.5 * math.log(40) / excess == pytest.approx(1.317e6, rel=1e-3)


def test_golf_gives_up_exactly_when_the_statement_says():
    case = structure.Detour(excess=0.01)
    mdp, cls, gap = case.model(), case.members(), 0.7
    level = GOLF(cls, 0.05).init(trl.online.Problem(3, 2, 2, 0.0, 1.0, mdp.stationary, mdp.action_mask)).level[0]
    last = math.floor(level / (2 * 0.01 * gap + 0.01**2))  # as many samples do not yet remove it
    wrong = run(GOLF(cls, 0.05, check=False), mdp, 2 * last, 1, 3, jobs=1, checkpoints=range(1, 2 * last + 1))
    lost = wrong.episode_regret[0] > gap / 2
    assert lost.tolist() == [False] + [True] * last + [False] * (last - 1)


@pytest.mark.parametrize("bad", [0.0, 0.1])
def test_glow_gives_up_when_the_statement_says(bad):
    case = structure.Detour(bad=bad)
    mdp, cls = case.model(), case.members()
    settings = GLOW(cls, occupancy_ratios(cls, mdp, 1.0), 400, gamma=0.02, total_reward=1.0, initial=mdp.initial)
    until = structure.last_round(settings, case.good + case.excess - bad)
    chosen = run(settings, mdp, 400, 1, 5, jobs=1, keep_states=True).states[0].chosen
    assert 1 < until < 100 and (chosen[until:] == 0).all()
    if bad == 0.0:  # nothing random tells them apart before
        assert (chosen[:until] == 1).all()
    assert structure.last_round(small_glow(cls, settings.weights, 50, gamma=1.0, scale=50.0), 0.7) == 50


# --- clipping


@pytest.mark.parametrize("c", [0.1, 0.25])
@pytest.mark.parametrize("width", [1.0, 2.0])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_vacuous_slope_is_where_levels_reach_one(schedule, c, width):
    model = last_reward(3, 2, 2, rng=1)
    cls = realizable_class(model, 2, kind="random", rng=1, ceiling=1.0)
    common = dict(total_reward=1.0, c=c, noise_width=width, schedule=schedule)
    weights = occupancy_ratios(cls, model, 1.0)
    log = float(GLOW(cls, weights, 5000, gamma=1.0, **common).log_levels()[-1])
    slope = clipping.vacuous_slope(schedule, log, c, width)
    at, below = (GLOW(cls, weights, 5000, gamma=slope * k, **common) for k in (1.0, 0.99))
    for t in (2, 10, 5000):
        assert at.levels(t)[2] >= 1  # scale-free: at weights that vanish, where it is least
    assert below.levels(5000)[2] < 1


@pytest.mark.parametrize("slope", [1.0, 0.3])
@pytest.mark.parametrize("level", [0.0, 0.1, 0.2])
def test_chance_of_expelling_is_that_of_all_outcomes(slope, level):
    n, c, total = 5, 0.25, 0.0
    weight = min(3.0, slope * 6)  # t / 2 at t = 6
    for outcome in product((None, 0, 1), repeat=n):  # not visited, or a reward
        visits = [r for r in outcome if r is not None]
        chance = (4 / 5) ** (n - len(visits)) * (1 / 5) ** len(visits) * 0.5 ** len(visits)
        test = sum(weight * (0.5 - r) - c / (slope * 6) * weight**2 for r in visits) / n
        total += chance * (test > level)
    assert clipping.expelled(n, slope, c, level) == pytest.approx(total, abs=1e-14)
    assert 0 < total < 1


def test_one_visit_expels_with_the_stated_probability():
    for n in (2, 10, 1000, 100_000):
        seen = clipping.expelled(n, 1.0, 0.25, 0.75 / 4)
        assert seen >= 0.5 * (1 - 1 / n) ** (n - 1) >= 1 / (2 * math.e)
    assert clipping.expelled(1000, 0.05, 0.25, 0.75 / 4) < 1e-6


# --- ratios of pairs, wrong ratios


def test_the_distance_of_ratios_is_what_a_loop_over_rounds_says():
    model = last_reward(3, 2, 2, rng=2)
    cls = realizable_class(model, 3, kind="random", rng=3, ceiling=1.0)
    true = occupancy_ratios(cls, model, 1.0)
    wrong = pure.wrong_ratios(cls, model, 1.0, share=0.2)
    members, slope, total = np.array([1, 1, 0, 2, 3, 0, 1]), 0.3, 0.0
    for t in range(2, len(members) + 1):
        history, own = true.row[members[: t - 1]], true.row[members[t - 1]]
        sides = []
        for masses in (true.masses[0], wrong.masses[0]):
            below = masses[history].sum(axis=0) + masses[own]
            ratio = np.where(masses[own] > 0, t * masses[own] / np.where(below > 0, below, 1.0), 0.0)
            sides.append(np.minimum(ratio, slope * t))
        for p in history:
            total += (true.masses[0][p] * np.abs(sides[0] - sides[1])).sum() / t
    assert pure.distance(cls, model, 1.0, wrong, members, slope) == pytest.approx(total, rel=1e-12) and total > 0.01
    assert pure.distance(cls, model, 1.0, true, members, slope) == 0.0
    assert np.allclose(wrong.masses.sum(axis=(3, 4)), 1.0)
    assert not isinstance(pure.no_ratios(cls, model, 1.0), OccupancyRatios)


def test_weights_that_vanish_refute_nobody():
    model = pure.arms()
    cls = pure.members_of(model)
    for weights in (pure.no_ratios(cls, model, 1.0), pure.vanishing(cls, model, 1.0)):
        settings = GLOW(cls, weights, 30, gamma=0.5, trajectories=10, check=False)
        # Before a start state is seen all promise the same, and the first member is tried.
        assert (run(settings, model, 300, 1, 0, jobs=1, keep_states=True).states[0].chosen[1:] == 1).all()


# --- the registry


def test_proofs_are_where_they_are_said_to_be():
    root = Path(__file__).parents[2]
    for key in KEYS:
        page, anchor = get(key).proof.anchor.split("#")
        text = (root / page).read_text()
        assert f"({anchor})=" in text and re.search(rf"Theorem \(`{re.escape(key)}`\)", text), key


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_verdict_and_controls(key):
    for seed in (0, 11):
        report = verify(key, rng=seed)
        assert report.as_expected, report.note
        assert "trivial" not in report.note
        assert len(report.controls) >= 2 and all(control.verdict == "refuted" for control in report.controls)


@pytest.mark.slow
@pytest.mark.parametrize("key", [key for key in KEYS if key != "glow.no-completeness"])
def test_models_they_were_not_written_for(key):
    assert get(key).accepts == "finite-horizon"
    staged = random_mdp(3, 2, 3, rng=5, staged=True)
    losses = staged.with_reward(staged.reward * -7.0, reward_range=(-7.0, 0.0))
    for model in (losses, masked(), FiniteHorizonMDP(np.ones((1, 1, 1)), [[0.5]], horizon=1, name="one")):
        seen = measured(get(key).protocol, model)
        if seen.claim == "probability":
            assert not seen.failures.any()
        else:
            off = seen.observed - seen.bound
            assert ((np.abs(off) if seen.relation == "==" else off) <= seen.allowance).all()


@pytest.mark.slow
def test_a_model_is_not_needed_for_a_counterexample():
    report = verify("glow.no-completeness", masked(), runs=2)
    assert report.verdict == "verified" and "not about a model" in report.note
