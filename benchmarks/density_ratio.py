"""GLOW: what an iteration costs, early and late, by kind of weights and number of tests; one thread, CPU time.

S = 64, A = 4, H = 4, 16 members, 16 weights or one per member. No peer has GLOW; the contender of one test of all
members is the textbook, numpy over the raw tuples, and numpy's matrix product over the sums.
"""

from functools import partial

import numpy as np

import theoryrl as trl
from benchmarks.golf import episode_costs, problem_of
from benchmarks.timing import race
from theoryrl._jit import compiled
from theoryrl.classes import WeightClass, realizable_class
from theoryrl.density_ratio import GLOW, FullWeights, occupancy_ratios, ratio_table
from theoryrl.density_ratio import _glow_kernels as kernels
from theoryrl.density_ratio.schedules import SELF_NORMALISED
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler
from theoryrl.online.verbs import act, observe, plan

T = 102_000
MOMENTS = (1000, 100_000)
GAMMA = 0.003
TUPLES = 1000


def instance(n_members=16, n_weights=16):
    """A dense random model with noisy rewards, a realizable class, log-normal weights."""
    mdp = trl.random_mdp(64, 4, 4, rng=1, reward_law="bernoulli")
    cls = realizable_class(mdp, n_members - 1, kind="random", rng=2)
    weights = WeightClass(np.exp(np.random.default_rng(0).standard_normal((n_weights, 4, 64, 4))))
    return mdp, cls, weights


def by_weights():
    """Every kind of weights, lazy and full; of lazy tests the candidates that failed before stay out or come back."""
    mdp, cls, weights = instance()
    kinds = {
        "list of 16": weights,
        "ratios of own occupancies": occupancy_ratios(cls, mdp),
        "table of pairs": ratio_table(cls, mdp),
        "all weights": FullWeights(),
    }
    for name, each in kinds.items():
        slope = {} if isinstance(each, FullWeights) else {"gamma": GAMMA}
        for how in ({"test": "lazy"}, {"test": "lazy", "nested": True}, {"test": "full"}):
            learner = GLOW(cls, each, T, initial=mdp.initial, check=False, **slope, **how)
            label = f"{name}, {how['test']}{', nested' if 'nested' in how else ''}"
            yield from episode_costs("GLOW, S=64 A=4 H=4 nF=16", label, learner, mdp, MOMENTS)
    for schedule in ("paper", "scale_free"):
        learner = GLOW(cls, weights, T, GAMMA, schedule=schedule, test="full", check=False)
        yield from episode_costs("GLOW, S=64 A=4 H=4 nF=16", f"list of 16, full, {schedule}", learner, mdp, MOMENTS)


def by_size():
    """Full tests of lists: linear in the number of members times weights."""
    for members, n in ((16, 4), (16, 64), (64, 16)):
        mdp, cls, weights = instance(members, n)
        learner = GLOW(cls, weights, T, GAMMA, test="full", check=False)
        label = f"nF={members} nW={n}, full"
        yield from episode_costs("GLOW, S=64 A=4 H=4", label, learner, mdp, MOMENTS[:1])


@partial(compiled, order="strict", cache=False)
def test_all(weights, residual, visits, visited, n_visited, n, gamma_t, alpha, beta, size, offset, excess):
    """What `plan` does with a list of weights and test="full"."""
    mean, penalty = np.zeros(weights.shape[2]), np.zeros(weights.shape[2])
    for h in range(weights.shape[0]):
        place, seen = visited[h], n_visited[h]
        kernels.second_moments(weights[h], gamma_t, visits[h], place, seen, n, penalty)
        for f in range(residual.shape[2]):
            kernels.weighted_residuals(weights[h], gamma_t, residual[h], f, place, seen, n, mean)
            excess[f, h] = kernels.largest_excess(
                SELF_NORMALISED, mean, penalty, n, seen, gamma_t, alpha, beta, 1.0, 1.0, size, offset
            )


def against_numpy():
    """All members once, from the sums as `plan` does it, as matrix products, and from the raw tuples."""
    mdp, cls, weights = instance()
    learner = GLOW(cls, weights, T, GAMMA, test="full", check=False)
    state, tables, rng = learner.init(problem_of(mdp)), sampler(mdp), np.random.default_rng(0)
    data = [[] for _ in range(mdp.horizon)]
    for episode in range(TUPLES):
        plan(state, episode)
        s = draw_initial(tables, rng)
        for h in range(mdp.horizon):
            a = int(act(state, h, s, rng))
            reward, t = draw_step(tables, h, s, a, rng)
            observe(state, h, s, a, reward, t)
            data[h].append((s, a, reward / mdp.horizon, t))
            s = t
    columns = [tuple(np.array(column) for column in zip(*rows, strict=True)) for rows in data]
    values, best = cls.values / mdp.horizon, cls.state_values() / mdp.horizon
    gamma_t, alpha, beta = learner.levels(TUPLES + 1)
    clipped = np.minimum(weights.values, gamma_t)
    flat = np.ascontiguousarray(clipped.reshape(16, 4, -1).transpose(1, 0, 2))

    def from_sums():
        excess = np.empty((cls.size, mdp.horizon))
        test_all(
            *(state.weights, state.residual, state.visits, state.visited, state.n_visited),
            *(float(TUPLES), gamma_t, alpha, beta, state.size, state.offset, excess),
        )
        return excess

    def from_products():
        mean = flat @ state.residual / TUPLES
        penalty = np.einsum("hwx,hx->hw", flat**2, state.visits) / TUPLES
        return (mean - alpha * penalty[..., np.newaxis]).max(axis=1).T - beta

    def from_tuples():
        excess = []
        for h, (s, a, r, t) in enumerate(columns):
            w = clipped[:, h, s, a]
            residual = values[:, h, s, a] - r - best[:, h + 1, t]
            excess.append((w @ residual.T / TUPLES - alpha * (w**2).mean(axis=1)[:, np.newaxis]).max(axis=0) - beta)
        return np.array(excess).T

    contenders = {"theoryrl": from_sums, "numpy (BLAS) over the sums": from_products, "numpy, raw tuples": from_tuples}
    yield from race("one test of all members, nF=nW=16, 1000 tuples a layer", contenders, 3, reference=from_tuples())


def measure():
    """Iterations by weights and by size, then a single test."""
    yield from by_weights()
    yield from by_size()
    yield from against_numpy()
