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

# Differences below this share of what they are computed from are ties: they keep the current action, so that no cycle
# arises. NOISE is the share of the values themselves that rounding may have moved.
TIE, NOISE = 1e-10, 1e-14
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
    OverflowError
        If the best policy takes more than 1e250 steps, or collects more than that, until it settles.
    RuntimeError
        If a thousand rounds are not enough.

    Notes
    -----
    Policy iteration on gain, bias and the next term of the Laurent expansion: Puterman (1994), sections 9.2 and
    10.2-10.3 (Veinott 1966). What an action changes is computed from differences of values and policies are evaluated
    by elimination without subtractions of probabilities, so that rare transitions keep their effect. Two actions are
    treated as equal where this change differs by less than 1e-10 of its terms or 1e-14 of the values that differ. The
    bias span in learning: Bartlett and Tewari (2009), REGAL. Cost: per round three eliminations (S^3) and backups
    (S^2 A).
    """
    require_model(mdp)
    require_stationary(mdp, "the average reward")
    if mdp.reward.ndim == 3:
        raise ValueError("the average reward needs rewards that do not change over time; these are time-varying")
    table, mask = stationary_tables(mdp), mdp.action_mask
    reward = np.where(mask, mdp.reward, 0.0)
    every, none = np.arange(mdp.n_states), np.zeros(mask.shape)
    policy = np.where(mask, reward, -np.inf).argmax(axis=1)
    seen: set[bytes] = set()
    for _ in range(ROUNDS):
        chain = table[every, policy]
        limit, sufficed = limiting_matrix(chain)
        gain = limit @ reward[every, policy]
        bias, held = _deviation(chain, limit, reward[every, policy] - gain)
        changes = [_change(table, none, gain), _change(table, reward, bias)]
        new = _improved(changes, mask, policy)
        if (new == policy).all():
            after, _ = _deviation(chain, limit, -bias)
            new = _improved([*changes, _change(table, none, after)], mask, policy)
        seen.add(policy.tobytes())
        # Policies in a circle differ by ties alone.
        if new.tobytes() in seen:
            if not (sufficed and held):
                raise OverflowError(f"the steps or rewards until the best chain settles are over {kernels.MOST:g}")
            for array in (gain, bias, policy):
                array.flags.writeable = False
            return AveragePlan(gain, bias, policy.astype(np.int64), float(bias.max() - bias.min()))
        policy = new
    raise RuntimeError(f"policy iteration has not settled after {ROUNDS} rounds")


def _change(table: NDArray, reward: NDArray, value: NDArray) -> tuple[NDArray, NDArray]:
    """r(s, a) + sum_t P(t | s, a) (v(t) - v(s)), (S, A), and what counts as nothing next to it."""
    differences = value - value[:, np.newaxis]
    change = reward + (table @ differences[:, :, np.newaxis])[..., 0]
    terms = np.abs(reward) + (table @ np.abs(differences)[:, :, np.newaxis])[..., 0]
    sizes = np.abs(value) + np.abs(value)[:, np.newaxis]
    np.fill_diagonal(sizes, 0.0)
    return change, TIE * terms + NOISE * (table @ sizes[:, :, np.newaxis])[..., 0]


def _deviation(chain: NDArray, limit: NDArray, cost: NDArray) -> tuple[NDArray, bool]:
    """The solution w of w = c + P w with P* w = 0, for P* c = 0; and whether floats sufficed."""
    result, sufficed = np.zeros(len(chain)), True
    known = np.zeros(len(chain), bool)
    for states in closed_classes(chain > 0):
        # Up to a constant: what is paid until the chain is in the state where it is most often. The cost there, which
        # may be all rounding, is not used.
        often = states == states[limit[states[0], states].argmax()]
        sufficed &= _absorb(chain, states[~often], states[often], cost, result)
        known[states] = True
    sufficed &= _absorb(chain, np.flatnonzero(~known), np.flatnonzero(known), cost, result)
    return result - limit @ result, sufficed


def _absorb(chain: NDArray, inside: NDArray, outside: NDArray, cost: NDArray, result: NDArray) -> bool:
    """result[inside] = what is paid until `outside` is reached, plus the result there; whether floats sufficed."""
    inner = np.ascontiguousarray(chain[np.ix_(inside, inside)])
    out = chain[np.ix_(inside, outside)]
    paid = cost[inside] + out @ result[outside]
    sufficed = bool(kernels.absorption_times(inner, out.sum(axis=1), paid))
    result[inside] = paid
    return sufficed


def limiting_matrix(chain: NDArray[np.float64]) -> tuple[NDArray[np.float64], bool]:
    """P*, the Cesaro limit of the powers of a chain (S, S); and whether floats sufficed."""
    classes = closed_classes(chain > 0)
    limit = np.zeros(chain.shape)
    transient = np.ones(len(chain), bool)
    laws = [stationary_of(chain, states) for states in classes]
    for states, law in zip(classes, laws, strict=True):
        limit[states] = law
        transient[states] = False
    inside, sufficed = np.flatnonzero(transient), True
    for states, law in zip(classes, laws, strict=True):
        # Probability of ending in this class.
        ends = np.zeros(len(chain))
        ends[states] = 1.0
        sufficed &= _absorb(chain, inside, np.flatnonzero(~transient), np.zeros(len(chain)), ends)
        limit[inside] += ends[inside, np.newaxis] * law
    return limit, sufficed


def _improved(changes: list[tuple[NDArray, NDArray]], mask: NDArray[np.bool_], policy: NDArray) -> NDArray:
    """Lexicographically best actions; the current one stays unless some term is better by more than a tie."""
    every = np.arange(len(policy))
    open_ones = mask.copy()
    new = policy.copy()
    settled = np.zeros(len(policy), bool)
    for change, tie in changes:
        values = np.where(open_ones, change, -np.inf)
        best = values.argmax(axis=1)
        top, slack = values[every, best], tie[every, best]
        better = ~settled & (top > values[every, policy] + slack + tie[every, policy])
        new = np.where(better, best, new)
        settled |= better
        open_ones &= change >= (top - slack)[:, np.newaxis] - tie
    return new
