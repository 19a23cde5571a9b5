"""Hy-Q against fits of the raw transitions, its bound, and its blindness to the model."""

import math

import numpy as np
import pytest

from theoryrl.classes import ProductClass, complete_class
from theoryrl.mdp import Dataset, FiniteHorizonMDP, random_mdp, rollout, uniform_policy
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler
from theoryrl.offline import fqi
from theoryrl.online import HyQ, Problem, hyq_regret_bound, run
from theoryrl.online.bounds.hyq import FIT
from theoryrl.online.verbs import act, chance, observe, plan, upper_value
from theoryrl.theory import get, verify
from theoryrl.theory.verdict import decide

MDP = random_mdp(3, 2, 3, np.random.default_rng(2), staged=True)
OFFLINE = rollout(MDP, uniform_policy(MDP), 4, rng=0)
CLASS = complete_class(MDP, 6, 1)


def problem_of(mdp):
    return Problem(mdp.n_states, mdp.n_actions, mdp.horizon, *mdp.reward_range, mdp.stationary, mdp.action_mask)


def played(learner, mdp, episodes, seed):
    """Members chosen and rows seen, episode by episode, by the verbs in plain Python."""
    state, table = learner.init(problem_of(mdp)), sampler(mdp)
    environment, own = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    members, rows = [], []
    for t in range(episodes):
        plan(state, t)
        members.append((state.chosen[:-1] - state.first[:-1]).tolist())
        s = draw_initial(table, environment)
        for h in range(mdp.horizon):
            a = act(state, h, s, own)
            assert chance(state, h, s, a) == 1.0 and upper_value(state, h, s) == math.inf
            r, t_next = draw_step(table, h, s, a, environment)
            observe(state, h, s, a, r, t_next)
            rows.append((t, h, s, a, r, t_next))
            s = t_next
    return members, rows


def fit_by_hand(rows, members, horizon, n_states):
    """Backward least squares over rows (step, state, action, reward, next state)."""
    chosen, later = [], [0.0] * n_states
    for h in reversed(range(horizon)):
        losses = [math.fsum((f[s, a] - r - later[t]) ** 2 for k, s, a, r, t in rows if k == h) for f in members[h]]
        chosen.insert(0, int(np.argmin(losses)))
        later = members[h][chosen[0]].max(axis=1).tolist()
    return chosen


def test_every_plan_is_a_fit_of_all_transitions():
    members, rows = played(HyQ(OFFLINE, CLASS), MDP, 12, 5)
    before = list(zip(OFFLINE.step, OFFLINE.state, OFFLINE.action, OFFLINE.reward, OFFLINE.next_state, strict=True))
    for t, found in enumerate(members):
        seen = before + [row[1:] for row in rows if row[0] < t]
        assert found == fit_by_hand(seen, CLASS.layers, 3, 3)
    assert len({tuple(m) for m in members}) > 1  # it does change its mind
    online = Dataset(*map(np.array, zip(*rows, strict=True)), n_states=3, n_actions=2, horizon=3)
    state = HyQ(Dataset.concatenate([OFFLINE, online]), CLASS).init(problem_of(MDP))
    plan(state, 0)
    assert (state.chosen[:-1] - state.first[:-1]).tolist() == fqi(
        Dataset.concatenate([OFFLINE, online]), CLASS
    ).members.tolist()


def test_compiled_run_learns_and_is_reproducible():
    learner = HyQ(rollout(MDP, uniform_policy(MDP), 500, rng=0), CLASS)
    a, b = (run(learner, MDP, 200, seeds=2, rng=3, jobs=jobs) for jobs in (1, 2))
    np.testing.assert_array_equal(a.regret, b.regret)
    assert a.regret[:, -1].max() < 0.1 * 200


def test_compiled_plans_are_the_plain_ones():
    from theoryrl._jit import plain
    from theoryrl.classes.regression import least_squares_member, target_sums

    counts, rng = OFFLINE.counts(staged=True), np.random.default_rng(0)
    for h in range(3):
        later, fast, slow = rng.random(3), np.empty((3, 2)), np.empty((3, 2))
        args = counts.transitions[h].astype(float), counts.reward_sums[h], later
        target_sums(*args, fast)
        plain(target_sums)(*args, slow)
        np.testing.assert_array_equal(fast, slow)
        visits = counts.visits[h].astype(float)
        members = rng.random((9, 3, 2))
        assert least_squares_member(members, visits, fast) == plain(least_squares_member)(members, visits, fast)


def test_hyq_never_sees_the_model_beyond_its_data():
    # State 2 cannot be reached; what it does must not matter.
    transition = MDP.transition.copy()
    transition[..., :2] /= transition[..., :2].sum(axis=-1, keepdims=True)
    transition[..., 2] = 0
    here = FiniteHorizonMDP(transition, MDP.reward, horizon=3, reward_range=(0, 1))
    transition, reward = transition.copy(), MDP.reward.copy()
    transition[:, 2] = [0.0, 0.0, 1.0]
    reward[..., 2, :] = 0.9
    elsewhere = FiniteHorizonMDP(transition, reward, horizon=3, reward_range=(0, 1))
    learner = HyQ(rollout(here, uniform_policy(here), 10, rng=0), CLASS, check=False)
    assert played(learner, here, 20, 1) == played(learner, elsewhere, 20, 1)


def test_masks_and_single_everything():
    mask = np.array([[True, False], [True, True], [False, True]])
    mdp = FiniteHorizonMDP(MDP.transition, MDP.reward, horizon=3, action_mask=mask)
    cls = complete_class(mdp, 3, 0)
    _, rows = played(HyQ(rollout(mdp, uniform_policy(mdp), 5, rng=0), cls), mdp, 20, 0)
    assert all(mask[s, a] for _, _, s, a, _, _ in rows)
    one = FiniteHorizonMDP(np.ones((1, 1, 1)), np.array([[0.5]]), horizon=1)
    learner = HyQ(rollout(one, np.array([0]), 1, rng=0), complete_class(one, 1, 0))
    assert run(learner, one, 10, rng=0).regret[0, -1] == 0.0


def test_incomplete_classes_are_refused_before_the_run():
    bad = ProductClass([layer[:1] + 0.25 for layer in CLASS.layers])
    with pytest.raises(ValueError, match="check=False"):
        run(HyQ(OFFLINE, bad), MDP, 10)
    assert run(HyQ(OFFLINE, bad, check=False), MDP, 10).regret.size
    assert not HyQ(OFFLINE, bad, check=False).provable and HyQ(OFFLINE, CLASS).provable
    with pytest.raises(TypeError, match="offline must be a Dataset"):
        HyQ([], CLASS)
    with pytest.raises(TypeError, match="cls must be a ProductClass"):
        HyQ(OFFLINE, None)
    with pytest.raises(ValueError, match="the class is for"):
        HyQ(rollout(MDP.with_initial(0), uniform_policy(MDP), 2), complete_class(random_mdp(2, 2, 3, 0), 1, 0))


def test_values_out_of_range_are_refused_by_name():
    first = np.concatenate([CLASS.layers[0], CLASS.layers[0][:1]])
    first[-1, 1, 0] = 3.5
    wide = ProductClass([first, *CLASS.layers[1:]])
    HyQ(OFFLINE, CLASS).require(MDP)
    HyQ(OFFLINE, wide, check=False).require(MDP)
    where = rf"layer 0, member {len(first) - 1} has the value 3.5 at state 1, action 0, not in \[0, 3\]"
    with pytest.raises(ValueError, match=where):
        HyQ(OFFLINE, wide).require(MDP)


def test_bound_term_by_term():
    settings = dict(
        offline_episodes=1000, log_sizes=np.log([6, 3]), concentrability=[2, 3], coverability=[4, 5], delta=0.1
    )
    k = 10**9
    harmonic = math.log(k) + 0.5772156650 + 0.5 / k
    total = 0.0
    for left, union, ratio, cover in ((2, 18, 2, 4), (1, 3, 3, 5)):
        kappa = FIT * left**2 * math.log(union * 2 * k * (k + 1) / 0.1)
        total += k * math.sqrt(ratio * kappa / 1000) + math.sqrt(k * cover * harmonic * (kappa + left**2))
    assert hyq_regret_bound(k, **settings) == pytest.approx(total, rel=1e-12)
    assert hyq_regret_bound(1, **settings) == 2.0
    np.testing.assert_allclose(hyq_regret_bound([1, k], **settings), [2.0, total])
    for change, message in (
        (dict(delta=1), "delta must lie"),
        (dict(coverability=[1]), "coverability must be 2 numbers"),
        (dict(concentrability=[math.nan, 1]), "concentrability must be 2 numbers"),
        (dict(reward_width=math.inf), "reward_width is inf"),
    ):
        with pytest.raises(ValueError, match=message):
            hyq_regret_bound(1, **settings | change)
    with pytest.raises(ValueError, match="episodes must be at least 1"):
        hyq_regret_bound(0, **settings)


@pytest.mark.parametrize("n", [1, 2, 5, 100])
def test_harmonic_potential(n):
    # Lemma 2 on random sequences of distributions, and its equality for a constant sequence.
    rng = np.random.default_rng(n)
    laws = rng.dirichlet(0.3 * np.ones(5), n)
    past = np.cumsum(laws, axis=0)
    harmonic = sum(1 / k for k in range(1, n + 1))
    potential = np.divide(laws**2, past, out=np.zeros_like(laws), where=past > 0).sum()
    assert potential <= laws.max(axis=0).sum() * harmonic * (1 + 1e-12)
    assert harmonic <= math.log(n) + 0.5772156650 + 0.5 / n


@pytest.mark.slow
def test_theorem():
    report = verify("hyq.regret", rng=0)
    assert report.as_expected and "trivial" not in report.note
    control = get("hyq.regret").controls[0]
    for seed in range(10):
        root = np.random.SeedSequence(seed)
        seen = control.protocol(control.model(), rng=root, runs=10, jobs=1, progress=None)
        assert decide(get("hyq.regret"), seen, root).verdict == "refuted"
