"""Models and classes on which learning from density ratios shows what it can do and what it needs.

Every model pays at most 1 an episode (`largest_total` is 1), so that `total_reward=1` suits all of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theoryrl.classes.builders import optimal_values, realizable_class
from theoryrl.classes.values import FiniteClass
from theoryrl.density_ratio.members import member_values
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.random import random_mdp
from theoryrl.mdp.randomness import Rng

# How many candidates are looked at for members whose policies lose what is asked for.
CANDIDATES = 400
# A model of which members with 3 different policies lose between .224 and .280.
SLOPE_SEED = 8


def last_reward(n_states: int, n_actions: int, horizon: int, rng: Rng) -> FiniteHorizonMDP:
    """A random model whose only reward is that of the last step, Bernoulli with uniform means."""
    model = random_mdp(n_states, n_actions, horizon, rng)
    reward = np.zeros((horizon, n_states, n_actions))
    reward[-1] = model.reward_layers[0]
    return FiniteHorizonMDP(
        model.transition,
        reward,
        horizon=horizon,
        initial=model.initial,
        reward_law="bernoulli",
        name=f"random, S={n_states} A={n_actions} H={horizon}",
    )


def wrong_optimists(
    mdp: FiniteHorizonMDP, n_wrong: int, *, gaps: tuple[float, float] = (0.0, np.inf), rng: Rng = 0
) -> FiniteClass:
    """Q* and members that promise more, err at one layer only, and whose policies lose between gaps[0] and gaps[1].

    Elsewhere they agree with their own backups, so that only data where they err can refute them.

    Raises
    ------
    ValueError
        The model has too few of them.
    """
    found = realizable_class(mdp, CANDIDATES, kind="consistent", ceiling=1.0, rng=rng)
    regret = member_values(mdp, found, 1.0).regret
    good = np.flatnonzero((regret >= gaps[0]) & (regret <= gaps[1]))[:n_wrong]
    if len(good) < n_wrong:
        raise ValueError(f"{len(good)} of {CANDIDATES} candidates lose between {gaps[0]} and {gaps[1]}, not {n_wrong}")
    return FiniteClass(found.values[np.append(0, good)])


def slope_instance(n_members: int = 4) -> tuple[FiniteHorizonMDP, FiniteClass]:
    """Four states, two actions, three layers; members that lose between .22 and .33: to compare slopes gamma on."""
    model = last_reward(4, 2, 3, rng=SLOPE_SEED)
    return model, wrong_optimists(model, n_members - 1, gaps=(0.22, 0.33), rng=SLOPE_SEED)


def bandit(means: ArrayLike) -> FiniteHorizonMDP:
    """One state, one step, Bernoulli arms of these means."""
    reward = np.atleast_1d(np.asarray(means, np.float64))
    return FiniteHorizonMDP(
        np.ones((1, reward.size, 1)), reward[np.newaxis], horizon=1, reward_law="bernoulli", name="bandit"
    )


def arm_class(rows: ArrayLike) -> FiniteClass:
    """Members of a bandit from the values they give the arms, (nF, A)."""
    return FiniteClass(np.asarray(rows, np.float64)[:, np.newaxis, np.newaxis])


def two_arms(gap: float) -> tuple[FiniteHorizonMDP, FiniteClass]:
    """Arms worth 1/2 and 1/2 - gap; the truth, and a member that overrates the worse arm by 2 gap."""
    return bandit([0.5, 0.5 - gap]), arm_class([[0.5, 0.5 - gap], [0.5, 0.5 + gap]])


def disjoint_paths(
    n_paths: int, gap: float, horizon: int = 2, *, best: float = 0.5
) -> tuple[FiniteHorizonMDP, FiniteClass]:
    """The first action chooses one of k paths that never meet; each ends in a Bernoulli reward.

    Path 0 yields `best` and the others best - gap. Member 0 is Q*, member i believes that path i yields best + gap, or
    1. The greedy policies are the k paths, so that the coverability of every layer is k. State 0 is the start, and
    1 + i the path i; after the first layer all actions do the same.
    """
    transition = np.zeros((n_paths + 1, n_paths, n_paths + 1))
    transition[0, np.arange(n_paths), 1 + np.arange(n_paths)] = 1.0
    for state in range(1, n_paths + 1):
        transition[state, :, state] = 1.0
    worth = np.where(np.arange(n_paths) == 0, best, best - gap)
    reward = np.zeros((horizon, n_paths + 1, n_paths))
    if horizon == 1:
        reward[0, 0] = worth
    else:
        reward[-1, 1:] = worth[:, np.newaxis]
    model = FiniteHorizonMDP(
        transition, reward, horizon=horizon, reward_law="bernoulli", name=f"{n_paths} disjoint paths, H={horizon}"
    )
    values = np.repeat(optimal_values(model)[np.newaxis], n_paths, axis=0)
    for i in range(1, n_paths):
        values[i, 0, 0, i] = min(1.0, best + gap)
        values[i, 1:, 1 + i] = min(1.0, best + gap)
    return model, FiniteClass(values)


def combination_lock(horizon: int = 4) -> tuple[FiniteHorizonMDP, FiniteClass]:
    """At layer h = 0, 1, ... only action h + 1 mod 2 turns the lock; after the last layer it pays .8.

    The other action leads to a dead end worth nothing, at the first layer with .1 on the way. Member 0 is Q*; member k
    believes that leaving at layer k - 1 is worth .95 and, up to there, that this is worth reaching: along the optimal
    policy it has no Bellman error, so that data of that policy alone cannot tell it from Q*. State 0 is the lock, state
    1 the dead end. Nothing is random.
    """
    right = (np.arange(horizon) + 1) % 2
    transition = np.zeros((horizon, 2, 2, 2))
    transition[..., 1] = 1.0
    transition[np.arange(horizon), 0, right] = [1.0, 0.0]
    reward = np.zeros((horizon, 2, 2))
    reward[-1, 0, right[-1]] = 0.8
    reward[0, 0, 1 - right[0]] = 0.1
    model = FiniteHorizonMDP(transition, reward, horizon=horizon, name=f"combination lock, H={horizon}")
    values = np.repeat(optimal_values(model)[np.newaxis], horizon + 1, axis=0)
    for k in range(1, horizon + 1):
        values[k, np.arange(k - 1), 0, right[: k - 1]] = 0.95
        values[k, k - 1, 0, 1 - right[k - 1]] = 0.95
    return model, FiniteClass(values)


def costly_instance(n_members: int = 16) -> tuple[FiniteHorizonMDP, FiniteClass]:
    """Four states, two actions, three layers, uneven rows; Q* and those of 63 wrong optimists whose policies lose most.

    With 16 members they lose between .33 and .51 an episode and err by .38 to .54 along their own policies.
    """
    rng = np.random.default_rng(35)
    transition, reward = rng.dirichlet(np.full(4, 0.3), (4, 2)), np.zeros((3, 4, 2))
    reward[-1] = rng.random((4, 2))
    model = FiniteHorizonMDP(transition, reward, horizon=3, reward_law="bernoulli", name="costly members")
    found = realizable_class(model, 63, kind="consistent", ceiling=1.0, rng=35)
    costliest = np.argsort(member_values(model, found, 1.0).value, kind="stable")[: n_members - 1]
    return model, FiniteClass(found.values[np.append(0, costliest)])
