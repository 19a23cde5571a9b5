"""Coverability of all policies and the diameter against the same mathematics in numpy and scipy; no peer has either."""

import numpy as np

import theoryrl as trl
from benchmarks.planning import dense_model
from benchmarks.timing import race
from theoryrl.complexity import coverability, diameter

OURS = "theoryrl"


def numpy_coverability(mdp):
    """One recursion for all targets: V <- max_a P V from the identity, a BLAS product per layer."""
    n_states, n_actions = mdp.n_states, mdp.n_actions
    table = mdp.transition.reshape(n_states * n_actions, n_states)

    def call():
        value, found = np.eye(n_states), [n_actions]
        for _ in range(mdp.horizon - 1):
            value = (table @ value).reshape(n_states, n_actions, n_states).max(axis=1)
            found.append(n_actions * (mdp.initial @ value).sum())
        return np.array(found)

    return call


def scipy_coverability(mdp):
    """The same with a CSR matrix."""
    matrix = mdp.transition.to_scipy()

    def call():
        value, found = np.eye(mdp.n_states), [mdp.n_actions]
        for _ in range(mdp.horizon - 1):
            value = (matrix @ value).reshape(mdp.n_states, mdp.n_actions, mdp.n_states).max(axis=1)
            found.append(mdp.n_actions * (mdp.initial @ value).sum())
        return np.array(found)

    return call


def one_target_at_a_time(mdp):
    """Backward induction per target and layer: what the definition says."""

    def call():
        found = []
        for h in range(mdp.horizon):
            short = mdp.with_horizon(h + 1)
            total = 0.0
            for s in range(mdp.n_states):
                reward = np.zeros((h + 1, mdp.n_states, mdp.n_actions))
                reward[h, s] = 1.0
                total += trl.backward_induction(short.with_reward(reward)).initial_value
            found.append(mdp.n_actions * total)
        return np.array(found)

    return call


def numpy_diameter(mdp, accuracy=1e-12):
    """Policy iteration per target with a dense solver, from the policy that hits at once most often."""
    table, n_states = mdp.transition, mdp.n_states

    def call():
        longest = 0.0
        for target in range(n_states):
            rest = np.flatnonzero(np.arange(n_states) != target)
            inner = table[np.ix_(rest, np.arange(mdp.n_actions), rest)]
            policy = table[rest, :, target].argmax(axis=1)
            times = np.full(len(rest), np.inf)
            while True:
                chain = inner[np.arange(len(rest)), policy]
                new = np.linalg.solve(np.eye(len(rest)) - chain, np.ones(len(rest)))
                if (new >= times * (1 - accuracy)).all():
                    break
                times = new
                policy = (1 + inner @ times).argmin(axis=1)
            longest = max(longest, times.max())
        return np.array(longest)

    return call


def measure():
    """All complexity races."""
    mdp = dense_model(100, 4, 20)
    contenders = {OURS: lambda: coverability(mdp), "numpy matrix product": numpy_coverability(mdp)}
    reference = contenders["numpy matrix product"]()
    yield from race("coverability, dense S=100 A=4 H=20", contenders, reference=reference)
    small = dense_model(20, 4, 20)
    contenders = {OURS: lambda: coverability(small), f"{OURS}, one target at a time": one_target_at_a_time(small)}
    yield from race("coverability, dense S=20 A=4 H=20", contenders, reference=numpy_coverability(small)())
    staged = dense_model(100, 4, 20, staged=True)
    yield from race("coverability, time-varying S=100 A=4 H=20", {OURS: lambda: coverability(staged)})
    for branching in (5, 20):
        sparse = trl.random_mdp(1000, 4, 20, 0, branching=branching, sparse=True)
        contenders = {OURS: lambda m=sparse: coverability(m), "scipy.sparse": scipy_coverability(sparse)}
        case = f"coverability, Garnet S=1000 A=4 b={branching} H=20"
        yield from race(case, contenders, seconds=20, reference=contenders["scipy.sparse"](), rounds=(3, 10))
    large = dense_model(1000, 4, 20)
    contenders = {OURS: lambda: coverability(large), "numpy matrix product": numpy_coverability(large)}
    reference = contenders["numpy matrix product"]()
    yield from race("coverability, dense S=1000 A=4 H=20", contenders, 20, reference, (3, 10))
    contenders = {OURS: lambda: np.array(diameter(mdp)), "numpy policy iteration": numpy_diameter(mdp)}
    yield from race("diameter, dense S=100 A=4", contenders, reference=contenders["numpy policy iteration"]())
