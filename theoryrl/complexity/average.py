"""The average-reward view: optimal gain, bias of a bias-optimal policy, and its span."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theoryrl.complexity import _kernels as kernels
from theoryrl.complexity._graphs import Model, closed_classes, require_stationary, stationary_tables
from theoryrl.complexity.mixing import stationary_of
from theoryrl.mdp._checks import Sealed
from theoryrl.mdp.model import require_model

# Differences below this share of the largest value are ties: they keep the current action, so that no cycle arises.
TIE = 1e-10
ROUNDS = 1000


@dataclass(frozen=True, eq=False, repr=False)
class AveragePlan(Sealed):
    """A stationary model solved for the long run.

    Attributes
    ----------
    gain : (S,)
        Largest long-run average reward per step from every state; the same everywhere in a communicating model.
    bias : (S,)
        Of a bias-optimal policy: the largest bias among the policies with that gain.
    policy : int64 (S,)
    span : float
        max bias - min bias.
    """

    gain: NDArray[np.float64]
    bias: NDArray[np.float64]
    policy: NDArray[np.int64]
    span: float

    def __repr__(self) -> str:
        low, high = float(self.gain.min()), float(self.gain.max())
        gain = f"{high:.6g}" if high - low <= TIE * max(1.0, abs(high)) else f"{low:.6g} to {high:.6g}"
        return f"AveragePlan(gain={gain}, span={self.span:.6g})"


def average_reward(mdp: Model) -> AveragePlan:
    """Optimal gain and bias of a stationary model without horizon or discount.

    g(s) = lim_n E^pi[R_0 + ... + R_{n-1}] / n,   b(s) = E^pi[sum_n (R_n - g(s_n))] (Cesaro),
    g* = max_pi g^pi,   b* = max{b^pi : g^pi = g*},   sp(b*) = max b* - min b*

    In a communicating model g* + b*(s) = max_a (r(s, a) + sum_t P(t | s, a) b*(t)), and sp(b*) <= w D with D the
    diameter and w the width of the mean rewards.

    Parameters
    ----------
    mdp : FiniteHorizonMDP or DiscountedMDP
        With stationary transitions and rewards.

    Returns
    -------
    AveragePlan

    Raises
    ------
    ValueError
        A time-varying model.
    RuntimeError
        If a thousand rounds are not enough.

    Notes
    -----
    Policy iteration on gain, bias and the next term of the Laurent expansion: Puterman (1994), sections 9.2 and
    10.2-10.3 (Veinott 1966). Two actions whose terms differ by less than 1e-10 of the largest one are treated as
    equal. The bias span in learning: Bartlett and Tewari (2009), REGAL. Cost: per round one S x S inverse (S^3) and
    backups (S^2 A).
    """
    require_model(mdp)
    require_stationary(mdp, "the average reward")
    if mdp.reward.ndim == 3:
        raise ValueError("the average reward needs rewards that do not change over time; these are time-varying")
    table, mask = stationary_tables(mdp), mdp.action_mask
    reward = np.where(mask, mdp.reward, -np.inf)
    every = np.arange(mdp.n_states)
    policy = reward.argmax(axis=1)
    for _ in range(ROUNDS):
        gain, bias, after = _laurent(table[every, policy], reward[every, policy])
        stages = (table @ gain, reward + table @ bias, table @ after - bias[:, np.newaxis])
        new = _improved(stages, mask, policy)
        if (new == policy).all():
            for array in (gain, bias, policy):
                array.flags.writeable = False
            return AveragePlan(gain, bias, policy.astype(np.int64), float(bias.max() - bias.min()))
        policy = new
    raise RuntimeError(f"policy iteration has not settled after {ROUNDS} rounds")


def _laurent(chain: NDArray, reward: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Gain P* r, bias D r and the next term -D D r, with P* the limiting and D the deviation matrix of the chain."""
    limit = limiting_matrix(chain)
    inverse = np.linalg.inv(np.eye(len(chain)) - chain + limit)
    gain = limit @ reward
    bias = inverse @ (reward - gain)
    bias -= limit @ bias
    after = -(inverse @ bias)
    after -= limit @ after
    return gain, bias, after


def limiting_matrix(chain: NDArray[np.float64]) -> NDArray[np.float64]:
    """P*, the Cesaro limit of the powers of a chain (S, S)."""
    classes = closed_classes(chain > 0)
    limit = np.zeros(chain.shape)
    transient = np.ones(len(chain), bool)
    laws = [stationary_of(chain, states) for states in classes]
    for states, law in zip(classes, laws, strict=True):
        limit[states] = law
        transient[states] = False
    inside = np.flatnonzero(transient)
    for states, law in zip(classes, laws, strict=True):
        # Probability of ending in this class: the "time" that counts only the step into it.
        inner = np.ascontiguousarray(chain[np.ix_(inside, inside)])
        leave = chain[np.ix_(inside, np.flatnonzero(~transient))].sum(axis=1)
        ends = chain[np.ix_(inside, states)].sum(axis=1)
        kernels.absorption_times(inner, leave, ends)
        limit[inside] += ends[:, np.newaxis] * law
    return limit


def _improved(stages: tuple[NDArray, ...], mask: NDArray[np.bool_], policy: NDArray) -> NDArray:
    """Lexicographically best actions; the current one stays unless some stage is better by more than a tie."""
    every = np.arange(len(policy))
    open_ones = mask.copy()
    new = policy.copy()
    settled = np.zeros(len(policy), bool)
    for stage in stages:
        scale = TIE * max(1e-300, float(np.abs(stage[mask]).max()))
        values = np.where(open_ones, stage, -np.inf)
        best = values.max(axis=1)
        better = ~settled & (best > values[every, policy] + scale)
        new = np.where(better, values.argmax(axis=1), new)
        settled |= better
        open_ones &= stage >= best[:, np.newaxis] - scale
    return new
