"""What every learner owes to whoever runs it, whatever its algorithm: one list, one set of promises."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from theoryrl._jit import plain
from theoryrl.classes import (
    FiniteClass,
    ProductClass,
    WeightClass,
    complete_class,
    mixture_ratio_class,
    realizable_class,
)
from theoryrl.density_ratio import (
    GLOW,
    FullWeights,
    HyGLOW,
    OccupancyRatios,
    RatioTable,
    occupancy_ratios,
    ratio_table,
)
from theoryrl.mdp import (
    Dataset,
    FiniteHorizonMDP,
    backward_induction,
    occupancy,
    random_mdp,
    rollout,
    uniform_policy,
)
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler
from theoryrl.online import (
    BPIUCBVI,
    EULER,
    GOLF,
    LSVIUCB,
    OLIVE,
    OPPO,
    PSRL,
    RFUCRL,
    RLSVI,
    UCBB,
    UCBH,
    UCBVI,
    UCBVIRTDP,
    UCRL2,
    EpsilonGreedy,
    FixedPolicy,
    HyQ,
    Problem,
    RFExpress,
    RMax,
    Uniform,
    driver,
    run,
)
from theoryrl.online.verbs import act, chance, observe, plan, sample, upper_value

K = 24  # the number of episodes of most runs here
MASK = np.array([[True, False, True], [True, True, True], [False, True, True], [True, True, False]])


def table(rng, *shape):
    """Numbers in [0, 1] that are multiples of 1/16, both ends included, so that changes of unit are exact."""
    values = rng.integers(0, 17, shape) / 16
    values.flat[:2] = 0.0, 1.0
    return values


def model(*, staged: bool, **changes: Any) -> FiniteHorizonMDP:
    """Four states of which the last is never reached, three actions some of which are forbidden, three steps."""
    rng = np.random.default_rng(7)
    lead = (3,) if staged else ()
    transition = rng.dirichlet([1.0, 1.0, 1.0, 1.0], (*lead, 4, 3))
    transition[..., 3] = 0.0
    transition /= transition.sum(axis=-1, keepdims=True)
    settings = dict(horizon=3, initial=np.array([0.5, 0.25, 0.25, 0.0]), action_mask=MASK, reward_range=(0.0, 1.0))
    return FiniteHorizonMDP(transition, table(rng, *lead, 4, 3), **settings | changes)


MODELS = {"staged": model(staged=True), "pooled": model(staged=False)}


def one_hot(mdp):
    pairs = mdp.n_states * mdp.n_actions
    return np.eye(pairs).reshape(mdp.n_states, mdp.n_actions, pairs)


def offline(mdp):
    return rollout(mdp, uniform_policy(mdp), 10, rng=0)


def unit(mdp):
    """The width of the range of rewards, or 1 if it has none."""
    return (mdp.reward_range[1] - mdp.reward_range[0]) or 1.0


def guesses(mdp):
    """Q* and eight more, none of which is close to being consistent."""
    return realizable_class(mdp, 8, kind="random", rng=1)


def pairs_of_policies(mdp):
    """All ratios against mixtures of up to two of the greedy policies of `guesses`."""
    cls = guesses(mdp)
    members = np.unique(occupancy_ratios(cls, mdp).row, return_index=True)[1]
    return mixture_ratio_class(mdp, cls.greedy(mdp.action_mask)[members], 2)


def hybrid(mdp, weights, **settings):
    """HyGLOW with as many offline tuples as it can use."""
    data = rollout(mdp, uniform_policy(mdp), 3 * K, rng=0)
    return HyGLOW(data, guesses(mdp), weights, 3 * K, gamma=0.1, **settings)


# From the model for which it is to be made (classes, features and offline data must come from somewhere) to settings.
LEARNERS: dict[str, Callable[[FiniteHorizonMDP], Any]] = {
    "ucbvi": lambda m: UCBVI(),
    "ucbvi, bernstein": lambda m: UCBVI(bonus="bernstein"),
    "ucbvi, azar-ch": lambda m: UCBVI(bonus="azar-ch", episodes=K),
    "ucbvi, azar-bf": lambda m: UCBVI(bonus="azar-bf", episodes=K),
    "ucbvi, doubling": lambda m: UCBVI(replan="doubling"),
    "ucbvi, narrow": lambda m: UCBVI(scale=0.05),
    "ucbvi, bernstein, narrow": lambda m: UCBVI(bonus="bernstein", scale=0.02, replan="doubling"),
    "ucbvi-rtdp": lambda m: UCBVIRTDP(),
    "ucbvi-rtdp, narrow": lambda m: UCBVIRTDP(bonus="bernstein", scale=0.02),
    "euler": lambda m: EULER(),
    "euler, narrow": lambda m: EULER(scale=0.02),
    "ucrl2": lambda m: UCRL2(),
    "ucrl2, narrow": lambda m: UCRL2(scale=0.1),
    "rmax": lambda m: RMax(epsilon=0.5 * unit(m)),
    "rmax, 3 visits": lambda m: RMax(epsilon=0.5 * unit(m), visits=3),
    "ucb-h": lambda m: UCBH(),
    "ucb-h, narrow": lambda m: UCBH(scale=0.05),
    "ucb-b": lambda m: UCBB(),
    "ucb-b, narrow": lambda m: UCBB(scale=0.01),
    "epsilon-greedy": lambda m: EpsilonGreedy(epsilon=0.5, decay=0.5),
    "oppo": lambda m: OPPO(episodes=K),
    "oppo, narrow": lambda m: OPPO(episodes=K, scale=0.05, eta=0.7),
    "psrl": lambda m: PSRL(),
    "psrl, sparse prior": lambda m: PSRL(prior=0.1),
    "rlsvi": lambda m: RLSVI(),
    "rlsvi, no noise": lambda m: RLSVI(scale=0.0),
    "lsvi-ucb": lambda m: LSVIUCB(one_hot(m)),
    "lsvi-ucb, narrow": lambda m: LSVIUCB(one_hot(m), scale=0.02, replan="doubling"),
    "golf": lambda m: GOLF(complete_class(m, 5, 1)),
    "golf, list, full": lambda m: GOLF(
        realizable_class(m, 8, kind="random", rng=1), test="full", scale=0.02, check=False
    ),
    "olive": lambda m: OLIVE(realizable_class(m, 8, kind="random", rng=1), 0.5 * unit(m)),
    "olive, uniform, short": lambda m: OLIVE(
        realizable_class(m, 8, kind="random", rng=1), 0.5 * unit(m), variant="v", scale=1e-5
    ),
    "hyq": lambda m: HyQ(offline(m), complete_class(m, 5, 1)),
    "glow": lambda m: GLOW(guesses(m), occupancy_ratios(guesses(m), m), 3 * K, gamma=0.1, initial=m.initial),
    "glow, list, full, narrow": lambda m: GLOW(
        guesses(m), pairs_of_policies(m), 2 * K, gamma=0.5, trajectories=2, test="full", nested=True, scale=0.02
    ),
    "glow, pairs, scale-free": lambda m: GLOW(
        guesses(m), ratio_table(guesses(m), m), 3 * K, coverability=4.0, schedule="scale_free", anytime=True
    ),
    "glow, all weights, narrow": lambda m: GLOW(guesses(m), FullWeights(), 3 * K, scale=0.05),
    "hyglow": lambda m: hybrid(m, occupancy_ratios(guesses(m), m), offline_law=occupancy(m, uniform_policy(m))),
    "hyglow, list, sum": lambda m: hybrid(m, pairs_of_policies(m), form="sum", c=0.05),
    "bpi-ucbvi": lambda m: BPIUCBVI(epsilon=0.3 * unit(m)),
    "rf-ucrl": lambda m: RFUCRL(),
    "rf-express": lambda m: RFExpress(scale=0.01),
    "uniform": lambda m: Uniform(),
    "fixed policy": lambda m: FixedPolicy(np.argmax(m.action_mask, axis=1)),
}
every_learner = pytest.mark.parametrize("name", LEARNERS)
OPTIMISTIC = (UCBVI, UCBVIRTDP, EULER, UCRL2, RMax, UCBH, UCBB, LSVIUCB, GOLF, OLIVE, GLOW, BPIUCBVI)


def problem_of(mdp):
    return Problem(mdp.n_states, mdp.n_actions, mdp.horizon, *mdp.reward_range, mdp.stationary, mdp.action_mask)


def unchecked(settings):
    """The same settings without the look at the model before the run."""
    return dataclasses.replace(settings, check=False) if hasattr(settings, "check") else settings


def leaves(state):
    """All arrays and numbers of a state, nested ones included."""
    for item in state:
        if isinstance(item, tuple):
            yield from leaves(item)
        else:
            yield np.asarray(item)


def same_bits(one, other):
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(leaves(one), leaves(other), strict=True))


def episodes_of(state, mdp, episodes, seed, labels=None):
    """Play by the verbs in Python, state s shown as labels[s]; yields every episode's (h, s, a) and chances."""
    labels = np.arange(mdp.n_states) if labels is None else labels
    tables = sampler(mdp)
    environment, own = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    for episode in range(episodes):
        sample(state, own)
        plan(state, episode)
        s, steps, chances = int(draw_initial(tables, environment)), [], []
        for h in range(mdp.horizon):
            a = int(act(state, h, labels[s], own))
            chances.append(chance(state, h, labels[s], a))
            reward, s_next = draw_step(tables, h, s, a, environment)
            observe(state, h, labels[s], a, reward, labels[s_next])
            steps.append((h, s, a))
            s = int(s_next)
        yield steps, chances


@every_learner
@pytest.mark.parametrize("kind", MODELS)
def test_compiled_and_plain_python_agree_to_the_bit_also_when_a_run_is_cut(name, kind):
    mdp = MODELS[kind]
    settings, truth, tables, marks = LEARNERS[name](mdp), driver.judge(mdp), sampler(mdp), np.array([1, 5, 9])
    outcomes = []
    for play, cuts in ((driver.play, (0, 9)), (driver.play, (0, 1, 5, 9)), (plain(driver._cached), (0, 4, 9))):
        streams = [np.random.default_rng([3, role]) for role in range(2)]
        state, record = settings.init(problem_of(mdp)), driver.tally(3, truth)
        for first, last in itertools.pairwise(cuts):
            play(state, truth, tables, record, marks, first, last, True, *streams)
        outcomes.append((*state, *record))
    assert same_bits(outcomes[0], outcomes[1]) and same_bits(outcomes[0], outcomes[2])


@every_learner
@pytest.mark.parametrize("kind", MODELS)
def test_what_was_not_visited_cannot_matter(name, kind):
    mdp = MODELS[kind]
    settings = unchecked(LEARNERS[name](mdp))
    here = run(settings, mdp, K, rng=5, keep_states=True)
    # What this very run visits, found again in Python: streams are those of `run`.
    streams = np.random.SeedSequence(5).spawn(1)[0].spawn(2)
    environment, own = (np.random.Generator(np.random.PCG64(stream)) for stream in streams)
    visited = np.zeros((3, 4, 3), bool)
    state, tables = settings.init(problem_of(mdp)), sampler(mdp)
    for episode in range(K):
        sample(state, own)
        plan(state, episode)
        s = draw_initial(tables, environment)
        for h in range(3):
            a = act(state, h, s, own)
            visited[h, s, a] = True
            reward, s_next = draw_step(tables, h, s, a, environment)
            observe(state, h, s, a, reward, s_next)
            s = s_next
    assert same_bits(state, here.states[0])
    rng = np.random.default_rng(1)
    rest = ~visited if mdp.transition.ndim == 4 else ~visited.any(axis=0)
    transition, reward = mdp.transition.copy(), mdp.reward.copy()
    transition[rest] = rng.dirichlet(np.ones(4), int(rest.sum()))
    reward[rest] = rng.random(int(rest.sum()))
    other = dataclasses.replace(mdp, transition=transition, reward=reward)
    assert not np.allclose(backward_induction(mdp).value, backward_induction(other).value)
    there = run(settings, other, K, rng=5, keep_states=True)
    assert same_bits(here.states[0], there.states[0])
    assert np.array_equal(here.collected, there.collected)


@every_learner
def test_seeds_reproduce_and_threads_do_not_matter(name):
    mdp = MODELS["staged"]
    settings = LEARNERS[name](mdp)
    one, two, fewer = (
        run(settings, mdp, K, seeds=seeds, rng=11, jobs=jobs, checkpoints=range(1, K + 1), keep_states=True)
        for seeds, jobs in ((3, 1), (3, 3), (2, 2))
    )
    for i in range(3):
        assert same_bits(one.states[i], two.states[i]) and (i == 2 or same_bits(one.states[i], fewer.states[i]))
    assert np.array_equal(one.regret, two.regret) and np.array_equal(one.regret[:2], fewer.regret)
    assert np.array_equal(one.collected, two.collected)
    assert not np.array_equal(one.collected[0], one.collected[1])


@every_learner
@pytest.mark.parametrize("kind", MODELS)
def test_chances_are_a_distribution_on_allowed_actions_and_cover_what_is_played(name, kind):
    mdp = MODELS[kind]
    state = LEARNERS[name](mdp).init(problem_of(mdp))
    for steps, played in episodes_of(state, mdp, K, 2):
        for h in range(3):
            for s in range(4):
                chances = np.array([chance(state, h, s, a) for a in range(3)])
                assert (chances >= 0.0).all() and not chances[~MASK[s]].any()
                assert abs(chances.sum() - 1.0) <= 4e-16
        assert min(played) > 0.0 and all(MASK[s, a] for _, s, a in steps)


@every_learner
@pytest.mark.parametrize("kind", MODELS)
def test_what_stands_in_forbidden_rows_is_never_read(name, kind):
    mdp = MODELS[kind]
    transition, reward = mdp.transition.copy(), mdp.reward.copy()
    transition[..., ~MASK, :], reward[..., ~MASK] = np.nan, 1e300
    nonsense = dataclasses.replace(mdp, transition=transition, reward=reward)
    one, other = (run(LEARNERS[name](m), m, K, rng=4, watch=True, keep_states=True) for m in (mdp, nonsense))
    assert same_bits(one.states[0], other.states[0])
    assert np.array_equal(one.regret, other.regret) and np.array_equal(
        one.least_margin, other.least_margin, equal_nan=True
    )


def relabelled_weights(weights, order):
    if isinstance(weights, WeightClass):
        return WeightClass(weights.values[:, :, order])
    if isinstance(weights, OccupancyRatios):
        return OccupancyRatios(weights.masses[:, :, :, order], weights.row)
    return RatioTable(weights.values[:, :, :, order], weights.row) if isinstance(weights, RatioTable) else weights


def relabelled(settings, labels):
    """Settings that say of state labels[s] what `settings` say of state s."""
    order = np.argsort(labels)
    if isinstance(settings, LSVIUCB):
        return dataclasses.replace(settings, features=settings.features[order])
    if isinstance(settings, FixedPolicy):
        return FixedPolicy(settings.policy[order])
    changes = {}
    if isinstance(settings, HyQ | HyGLOW):
        data = settings.offline
        moved = [labels[column] for column in (data.state, data.next_state)]
        columns = (data.trajectory, data.step, moved[0], data.action, data.reward, moved[1])
        changes["offline"] = Dataset(*columns, n_states=4, n_actions=3, horizon=3)
    if isinstance(getattr(settings, "cls", None), FiniteClass):
        changes["cls"] = FiniteClass(settings.cls.values[:, :, order])
        if isinstance(settings, GLOW | HyGLOW):
            changes |= {"weights": relabelled_weights(settings.weights, order)}
        if getattr(settings, "initial", None) is not None:
            changes["initial"] = settings.initial[order]
        if getattr(settings, "offline_law", None) is not None:
            changes["offline_law"] = settings.offline_law[:, order]
    elif hasattr(settings, "cls"):
        changes["cls"] = ProductClass([layer[:, order] for layer in settings.cls.layers])
    return dataclasses.replace(settings, **changes) if changes else settings


# The others draw noise state by state, in the order of their numbers: the same in law, not draw by draw.
@pytest.mark.parametrize("name", [name for name in LEARNERS if name not in ("psrl", "psrl, sparse prior", "rlsvi")])
@pytest.mark.parametrize("kind", MODELS)
def test_names_of_states_do_not_matter(name, kind):
    mdp, labels = MODELS[kind], np.array([2, 3, 1, 0])
    settings = LEARNERS[name](mdp)
    renamed = problem_of(mdp)._replace(action_mask=np.ascontiguousarray(MASK[np.argsort(labels)]))
    state, twin = settings.init(problem_of(mdp)), relabelled(settings, labels).init(renamed)
    plays = episodes_of(state, mdp, 3 * K, 6), episodes_of(twin, mdp, 3 * K, 6, labels)
    for (steps, chances), (others, their_chances) in zip(*plays, strict=True):
        assert steps == others and np.allclose(chances, their_chances, rtol=1e-12)
        values = [[upper_value(state, h, s), upper_value(twin, h, labels[s])] for h in range(3) for s in range(4)]
        assert np.allclose(*np.transpose(values), rtol=1e-12, atol=1e-12)


@every_learner
@pytest.mark.parametrize(("scale", "shift"), [(4.0, -2.0), (2.0**-30, 0.0), (1024.0, 512.0)])
def test_the_unit_of_reward_does_not_matter(name, scale, shift):
    mdp = MODELS["staged"]
    # All rewards are exact in either unit, and so is the way from one to the other.
    other = mdp.with_reward(scale * mdp.reward + shift, reward_range=(shift, shift + scale))
    settings = LEARNERS[name](mdp)
    one = run(settings, mdp, 3 * K, rng=8, checkpoints=range(1, 3 * K + 1), watch=True)
    two = run(LEARNERS[name](other), other, 3 * K, rng=8, checkpoints=range(1, 3 * K + 1), watch=True)
    assert np.array_equal(two.collected, scale * one.collected + shift * 3 * one.checkpoints)
    assert np.allclose(two.regret, scale * one.regret, rtol=1e-9, atol=1e-10 * scale)
    assert np.allclose(two.least_margin, scale * one.least_margin, rtol=1e-9, atol=1e-10 * scale)


@every_learner
@pytest.mark.parametrize("kind", MODELS)
def test_upper_values_lie_between_the_optimal_and_the_largest_conceivable_ones(name, kind):
    base = MODELS[kind]
    mdp = base.with_reward(4.0 * base.reward - 2.0, reward_range=(-2.0, 2.0))
    settings = LEARNERS[name](mdp)
    state, optimal = settings.init(problem_of(mdp)), backward_induction(mdp).value
    most = 2.0 * np.arange(3, 0, -1)[:, np.newaxis] * (1 + 1e-12)
    for _ in episodes_of(state, mdp, 3 * K, 9):
        upper = np.array([[upper_value(state, h, s) for s in range(4)] for h in range(3)])
        if not isinstance(settings, OPTIMISTIC):
            assert (upper == np.inf).all()
            continue
        assert (upper <= most).all()
        if settings.provable:  # with probability at least 0.95 for each, and far more as a rule
            assert (upper >= optimal[:3] - 1e-12).all()


@every_learner
def test_settings_can_be_copied_pickled_and_read(name):
    mdp = MODELS["staged"]
    settings = LEARNERS[name](mdp)
    first = run(settings, mdp, 5, rng=3, keep_states=True).states[0]
    for twin in (pickle.loads(pickle.dumps(settings)), copy.deepcopy(settings), dataclasses.replace(settings)):
        assert type(twin) is type(settings) and twin.provable == settings.provable
        assert same_bits(run(twin, mdp, 5, rng=3, keep_states=True).states[0], first)
        if type(settings).__eq__ is not object.__eq__ and not hasattr(settings, "cls"):
            assert twin == settings and hash(twin) == hash(settings)
        values = (*vars(settings).values(), *vars(twin).values())
        assert not any(value.flags.writeable for value in values if isinstance(value, np.ndarray))
    assert repr(settings).startswith(type(settings).__name__ + "(")
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(settings, (*(field.name for field in dataclasses.fields(settings)), "delta")[0], 0.1)


@every_learner
def test_a_state_can_be_put_aside_and_taken_up_again(name):
    mdp = MODELS["pooled"]
    truth, tables, marks = driver.judge(mdp), sampler(mdp), np.array([9])
    play, settings = plain(driver._cached), LEARNERS[name](mdp)
    whole, parts = (settings.init(problem_of(mdp)) for _ in range(2))
    records = [driver.tally(1, truth) for _ in range(2)]
    streams = [[np.random.default_rng([3, role]) for role in range(2)] for _ in range(2)]
    play(whole, truth, tables, records[0], marks, 0, 9, False, *streams[0])
    play(parts, truth, tables, records[1], marks, 0, 4, False, *streams[1])
    parts, record, streams[1] = pickle.loads(pickle.dumps((parts, records[1], streams[1])))
    play(parts, truth, tables, record, marks, 4, 9, False, *streams[1])
    assert same_bits(whole, parts) and same_bits(records[0], record)


WRONG = {
    "delta": (math.nan, 0.0, 1.0, 1, -0.5, 2.0, math.inf),
    "scale": (math.nan, -1.0, math.inf),
    "epsilon": (math.nan, -1.0, math.inf),
    "decay": (math.nan, -1.0, math.inf),
    "eta": (math.nan, -1.0, math.inf),
    "prior": (math.nan, 0.0, -1.0, math.inf),
    "visits": (0, -3, 2.5),
    "episodes": (0, -3, 2.5),
    "rank": (0, -3, 2.5),
    "bonus": ("bennett", ""),
    "replan": ("never", ""),
    "test": ("none", ""),
    "variant": ("w", ""),
    "iterations": (0, -3, 2.5),
    "trajectories": (0, -3, 2.5),
    "gamma": (math.nan, 0.0, -1.0, math.inf),
    "c": (math.nan, 0.0, -1.0, math.inf),
    "noise_width": (math.nan, 0.0, -1.0, math.inf),
    "total_reward": (math.nan, 0.0, -1.0, math.inf),
    "coverability": (math.nan, 0.5, math.inf, [2.0, 2.0]),
    "concentrability": (math.nan, 0.5, math.inf, [2.0, 2.0]),
    "offline_law": (np.full((3, 4, 3), 0.5), np.full((2, 4, 3), 1 / 12), np.full((3, 4, 3), math.nan)),
    "form": ("min", ""),
    "log_tests": (math.nan, -1.0, math.inf),
    "initial": (np.full(3, 1 / 3), np.full(4, 0.5), np.full(4, math.nan)),
    "tie_order": ([0, 1, 2], np.zeros(9, int), np.arange(1, 10)),
    "schedule": ("best", ""),
    "features": (np.zeros((3, 2)), np.full((4, 3, 2), np.nan)),
    "policy": (np.zeros((1, 2, 3), int), np.array([0.5, 1.0])),
}
CONTENT = {"cls", "offline", "weights", "check", "nested", "anytime"}


@every_learner
def test_every_bad_setting_is_refused_in_one_line_that_names_it(name):
    settings = LEARNERS[name](MODELS["staged"])
    for field in dataclasses.fields(settings):
        assert field.name in WRONG or field.name in CONTENT
        for value in WRONG.get(field.name, ()):
            with pytest.raises(ValueError, match=field.name) as caught:
                dataclasses.replace(settings, **{field.name: value})
            assert "\n" not in str(caught.value)
    for content in {"cls", "offline", "weights"} & {field.name for field in dataclasses.fields(settings)}:
        for value in (None, np.zeros((1, 3, 4, 3))):
            with pytest.raises(TypeError, match=content):
                dataclasses.replace(settings, **{content: value})


@every_learner
def test_what_does_not_fit_the_model_is_refused_in_one_line_before_anything_is_played(name):
    settings = LEARNERS[name](MODELS["staged"])
    others = random_mdp(5, 3, 3, rng=0, staged=True), random_mdp(4, 2, 3, rng=0), random_mdp(4, 3, 2, rng=0)
    for place, mdp in enumerate(others):
        # What a setting spells out has the sizes (S, A, H) of the class, (S, A) of the features, or (S,) of the policy.
        spelled = 3 if hasattr(settings, "cls") else {LSVIUCB: 2, FixedPolicy: 1}.get(type(settings), 0)
        if place >= spelled:
            assert np.isfinite(run(settings, mdp, 3).regret).all()
            continue
        for each in (settings, unchecked(settings)):
            with pytest.raises(ValueError) as caught:
                run(each, mdp, 3)
            assert "\n" not in str(caught.value)


@every_learner
def test_only_the_constants_of_the_theorem_are_provable(name):
    settings = LEARNERS[name](MODELS["staged"])
    names = {field.name for field in dataclasses.fields(settings)}
    untouched = getattr(settings, "scale", 1.0) == 1.0 and getattr(settings, "check", True)
    untouched &= getattr(settings, "bonus", "") != "azar-bf"
    untouched &= all(getattr(settings, key, None) is None for key in ("eta", "visits", "log_tests"))
    assert settings.provable is untouched
    assert run(settings, MODELS["staged"], 1).provable is untouched
    for key, value in (
        ("scale", 0.5),
        ("scale", 2.0),
        ("check", False),
        ("eta", 0.1),
        ("visits", 10**9),
        ("log_tests", 1.0),
    ):
        if key in names:
            assert dataclasses.replace(settings, **{key: value}).provable is False
    if "delta" in names:
        assert dataclasses.replace(settings, delta=0.01).provable is untouched


SMALL = {
    "one of everything": FiniteHorizonMDP(np.ones((1, 1, 1)), np.array([[0.5]]), horizon=1),
    "one state": FiniteHorizonMDP(np.ones((1, 2, 1)), np.array([[0.25, 0.75]]), horizon=3, reward_range=(0.0, 1.0)),
    "one action": random_mdp(3, 1, 3, rng=1),
    "one step": random_mdp(3, 2, 1, rng=1),
    "rewards all the same": FiniteHorizonMDP(
        random_mdp(2, 2, 2, rng=1).transition, np.full((2, 2), 0.5), horizon=2, reward_range=(0.5, 0.5)
    ),
    "outcomes": random_mdp(3, 2, 2, rng=1, reward_law="outcome", staged=True).with_initial([0.5, 0.5, 0.0]),
}


@every_learner
@pytest.mark.parametrize("kind", SMALL)
def test_sizes_of_one_and_rewards_of_no_width(name, kind):
    mdp = SMALL[kind]
    settings = LEARNERS[name](mdp)
    if name == "olive, uniform, short":  # so short that it may well be left with nothing, which is a fault
        settings = dataclasses.replace(settings, scale=1e-3)
    result = run(settings, mdp, K, rng=2, watch=True)
    most = mdp.horizon * (mdp.reward_range[1] - mdp.reward_range[0]) * result.checkpoints
    assert (result.regret >= -1e-12).all() and (result.regret <= most + 1e-12).all()
    assert not np.isnan(result.least_margin).any()
    if result.provable:
        assert (result.least_margin >= -1e-12).all()


def test_rewards_whose_sums_overflow_are_refused_before_anything_is_played():
    mdp = FiniteHorizonMDP(np.ones((1, 1, 1)), np.array([[-1e303]]), horizon=1, reward_range=(-1e303, 0.0))
    assert np.isfinite(run(Uniform(), mdp, 20).collected).all()
    with pytest.raises(ValueError, match=r"rewards up to 1e\+303 in 100000 episodes add up"):
        run(Uniform(), mdp, 100_000)
