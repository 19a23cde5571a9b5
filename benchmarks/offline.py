"""Off-policy estimates and fits against plain numpy on the same columns; same answers, checked in the race."""

import numpy as np

import theoryrl as trl
from benchmarks.timing import race
from theoryrl.classes import complete_class

OURS = "theoryrl"


def setting():
    """Twenty states, four actions, twenty steps; 10,000 trajectories (200,000 rows) of the uniform policy."""
    rng = np.random.default_rng(0)
    mdp = trl.random_mdp(20, 4, 20, rng)
    behaviour = np.full((20, 20, 4), 0.25)
    target = rng.dirichlet(np.ones(4), (20, 20))
    return mdp, target, behaviour, trl.rollout(mdp, behaviour, 10_000, rng=0, jobs=1)


def numpy_per_decision(data, target, behaviour):
    """Ratios per row, a cumulative product along trajectories."""
    ratio = (target / behaviour)[data.step, data.state, data.action].reshape(-1, data.horizon)
    return (np.cumprod(ratio, axis=1) * data.reward.reshape(-1, data.horizon)).sum(axis=1).mean()


def numpy_doubly_robust(data, target, behaviour, q):
    """The backward recursion, a vector of trajectories at a time."""
    shape = (-1, data.horizon)
    state, action, reward = data.state.reshape(shape), data.action.reshape(shape), data.reward.reshape(shape)
    ratio, value = target / behaviour, (target * q).sum(axis=-1)
    total = np.zeros(len(state))
    for h in range(data.horizon - 1, -1, -1):
        s, a = state[:, h], action[:, h]
        total = value[h, s] + ratio[h, s, a] * (reward[:, h] + total - q[h, s, a])
    return total.mean()


def numpy_evaluation(data, target):
    """Mean targets per pair by bincount over the rows of each layer."""
    n_pairs, later = data.n_states * data.n_actions, np.zeros(data.n_states)
    for h in range(data.horizon - 1, -1, -1):
        rows = data.step == h
        pair = data.state[rows] * data.n_actions + data.action[rows]
        visits = np.bincount(pair, minlength=n_pairs)
        sums = np.bincount(pair, weights=data.reward[rows] + later[data.next_state[rows]], minlength=n_pairs)
        q = (sums / np.maximum(visits, 1)).reshape(data.n_states, -1)
        later = (target[h] * q).sum(axis=-1)
    start = np.bincount(data.state[data.step == 0], minlength=data.n_states)
    return float(start @ later) / start.sum()


def numpy_fqi(data, cls):
    """Squared losses of every member over the rows of each layer."""
    chosen, later = np.zeros(data.horizon, np.int64), np.zeros(data.n_states)
    for h in range(data.horizon - 1, -1, -1):
        rows = data.step == h
        fitted = cls.layers[h][:, data.state[rows], data.action[rows]]
        chosen[h] = np.argmin(((fitted - (data.reward[rows] + later[data.next_state[rows]])) ** 2).sum(axis=1))
        later = cls.layers[h][chosen[h]].max(axis=-1)
    return chosen


def measure():
    """One race per method."""
    mdp, target, behaviour, data = setting()
    q, cls = trl.evaluate_q(mdp, target), complete_class(mdp, 2, 0)
    offline = trl.offline
    yield from race(
        "per-decision importance sampling, 200,000 rows",
        {
            OURS: lambda: offline.importance_sampling(data, target, behaviour).value,
            "numpy": lambda: numpy_per_decision(data, target, behaviour),
        },
        reference=numpy_per_decision(data, target, behaviour),
    )
    yield from race(
        "doubly robust, 200,000 rows",
        {
            OURS: lambda: offline.doubly_robust(data, target, behaviour, q).value,
            "numpy": lambda: numpy_doubly_robust(data, target, behaviour, q),
        },
        reference=numpy_doubly_robust(data, target, behaviour, q),
    )
    yield from race(
        "tabular fitted evaluation, 200,000 rows",
        {
            OURS: lambda: offline.fqe(data, target).estimate.value,
            "numpy": lambda: numpy_evaluation(data, target),
        },
        reference=numpy_evaluation(data, target),
    )
    yield from race(
        f"fitted Q iteration, 200,000 rows, {sum(cls.sizes)} members",
        {OURS: lambda: offline.fqi(data, cls).members, "numpy": lambda: numpy_fqi(data, cls)},
        reference=numpy_fqi(data, cls),
    )
