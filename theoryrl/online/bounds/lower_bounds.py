"""Lower bounds with every constant written out: what no learner can beat; proofs on the page Lower bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp._checks import require_int
from theoryrl.online.bounds._common import checked

# A sum over episodes is exact for this many terms, then in blocks that grow by this factor.
EXACT_TERMS = 256
GROWTH = 1.02
# Kullback-Leibler divergence of a fair coin from one of bias e: at most 2 c e^2 for e <= 1/4.
COIN = 4.0 * math.log(4.0 / 3.0)


def domingues_lower_bound(
    episodes: ArrayLike,
    *,
    n_states: int,
    n_actions: int,
    horizon: int,
    epsilon: float | None = None,
    waiting: int | None = None,
    reward_width: float = 1.0,
) -> NDArray[np.float64]:
    """No learner's expected regret after K episodes is smaller on every MDP with one kernel per layer.

    With N = W L A hidden triples (W waits, L = A^(d-1) leaves), pay time P = H - W - d and a gain e of the hidden one,
    the mean over the N instances `hard_episodic` of the expected regret of any learner is at least

        e P sum_{k=1}^{K} max{0, 1 - 1/N - g((k - 1) kl / N)},
        g(x) = min{sqrt(x/2), sqrt(1 - exp(-x))},  kl = -log(1 - 4 e^2) / 2.

    Without `epsilon` the largest of these over full trees that S states can hold, W and e (some of each, which can only
    make it smaller): for K >= 8 N at least 0.349 (1 - 1/N)^2 P sqrt(N K), and sqrt(H^3 S A K) / 51 if S is the size of
    such a model, d >= 2 and H >= 3 d.

    Parameters
    ----------
    episodes : int or array of ints, at least 1
        K.
    n_states, n_actions, horizon : int
        S, A, H; the bound is 0 where no such model fits (S < 4, A < 2 or H < 3).
    epsilon : float in (0, 1/2), optional
        The bound of the one family with this gain, the largest tree that fits and `waiting`.
    waiting : int, optional
        W, with `epsilon` only; default as in `hard_episodic`.
    reward_width : float
        high - low of the reward range.

    Returns
    -------
    ndarray of the shape of `episodes`

    Raises
    ------
    ValueError
        If a number is out of its range.

    Notes
    -----
    Domingues, Menard, Kaufmann and Valko (2021), Theorem 9, with 1/48 in its range; derived here with averages over
    instances, in the documentation.
    """
    counts = checked(episodes, n_states, n_actions, horizon, 0.5, reward_width)
    if epsilon is not None and not 0 < epsilon < 0.5:
        raise ValueError(f"epsilon must lie in (0, 1/2), not {epsilon!r}")
    if waiting is not None and epsilon is None:
        raise ValueError("waiting without epsilon: name both, or neither")
    shapes = list(_tree_shapes(n_states, n_actions, horizon))
    if epsilon is not None:
        if not shapes:
            return np.zeros(counts.shape)
        depth, _, _ = shapes[-1]
        longest = horizon - depth - 1
        waits = min(max(1, horizon // 3), longest) if waiting is None else require_int(waiting, 1, "waiting")
        if waits > longest:
            raise ValueError(f"waiting must be at most {longest}, not {waits}")
        triples, pays = waits * n_actions**depth, horizon - waits - depth
        return reward_width * epsilon * pays * _each(counts, lambda k: _missed(k, triples, epsilon))

    def best(k: float) -> float:
        value = 0.0
        for _, triples, pays in shapes:
            centre = 0.75 * (1 - 1 / triples) * math.sqrt(triples / (COIN * k))
            for gain in {min(factor * centre, 0.45) for factor in (0.7, 1.0, 1.4, 2.0)}:
                value = max(value, gain * pays * _missed(k, triples, gain))
        return value

    return reward_width * _each(counts, best)


def jao_lower_bound(
    episodes: ArrayLike,
    *,
    n_states: int,
    n_actions: int,
    horizon: int,
    delta: float | None = None,
    epsilon: float | None = None,
    reward_width: float = 1.0,
) -> NDArray[np.float64]:
    """No learner's expected regret after K episodes is smaller on every MDP with stationary dynamics.

    With M = S // 2 copies of two states that are left with probability d, or d + e under the hidden action of the
    copy, the mean over all choices of hidden actions (`jao_copies`) of the expected regret of any learner is at least

        e sum_{h<H} w_h sum_{k=1}^{K} max{0, q_h (1 - 1/A) - g((n (k - 1) / M + n_h) kl(d, d + e) / A)},
        q_h = (1 + (1 - 2d)^h) / 2,  n_h = q_0 + ... + q_{h-1},  n = n_H,
        w_h = 1 + x + ... + x^(H-h-2),  x = 1 - 2d - e,  g(x) = min{sqrt(x/2), sqrt(1 - exp(-x))},

    kl being the divergence of coins. Without `delta` and `epsilon` the largest over a grid of them, which is of order
    H sqrt(S A K).

    Parameters
    ----------
    episodes : int or array of ints, at least 1
        K.
    n_states, n_actions, horizon : int
        S, A, H; the bound is 0 for S < 2, A < 2 or H < 2.
    delta, epsilon : float, optional
        d in (0, 1) and e in (0, 1 - d), both or neither.
    reward_width : float
        high - low of the reward range.

    Returns
    -------
    ndarray of the shape of `episodes`

    Raises
    ------
    ValueError
        If a number is out of its range.

    Notes
    -----
    After Jaksch, Ortner and Auer (2010), Theorem 5; derived here, in the documentation.
    """
    counts = checked(episodes, n_states, n_actions, horizon, 0.5, reward_width)
    if (delta is None) != (epsilon is None):
        raise ValueError("name delta and epsilon both, or neither")
    if delta is not None and epsilon is not None:
        if not (0 < delta < 1 and 0 < epsilon < 1 - delta):
            raise ValueError(f"delta and epsilon must be positive with a sum below 1, not {delta!r} and {epsilon!r}")
        leave, gain = float(delta), float(epsilon)
        return reward_width * _each(counts, lambda k: _copies(k, n_states // 2, n_actions, horizon, leave, gain))
    return reward_width * _each(counts, lambda k: jao_hardest(k, n_states, n_actions, horizon)[0])


def jao_hardest(episodes: float, n_states: int, n_actions: int, horizon: int) -> tuple[float, float, float]:
    """The largest bound of `jao_lower_bound` on its grid, and the delta and epsilon where it is."""
    best = (0.0, 0.5, 0.25)
    for leave in (0.5 / np.array([1, 1.5, 2, 3, 4, 6, 8, 12, 16, 32, 64]) / max(1.0, horizon / 16)).tolist():
        for ratio in 2.0 ** -np.arange(-1, 12):
            gain = float(leave * ratio)
            if leave + gain < 1:
                value = _copies(episodes, n_states // 2, n_actions, horizon, leave, gain)
                best = max(best, (value, leave, gain))
    return best


def bpi_lower_bound(
    epsilon: float, *, n_states: int, n_actions: int, horizon: int, delta: float, reward_width: float = 1.0
) -> float:
    """No (epsilon, delta)-correct learner stops after fewer episodes, in expectation, on every MDP.

    Correct: on every MDP of these sizes it stops, and the policy it then recommends loses more than epsilon with
    probability at most delta. With N triples and pay time P as in `domingues_lower_bound`, e = 2 epsilon / P < 1/2 and
    delta <= 1 - 1/N,

        max over MDPs of E[tau] >= N kl(1/N, 1 - delta) / kl(1/2, 1/2 + e),

    about H^2 N log(1/delta) / (8 epsilon^2); the largest over W and the trees that fit, 0 where none does.

    Parameters
    ----------
    epsilon : float, positive, in units of reward
    n_states, n_actions, horizon : int
        S, A, H.
    delta : float in (0, 1)
    reward_width : float
        high - low of the reward range.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If a number is out of its range.

    Notes
    -----
    Domingues, Menard, Kaufmann and Valko (2021), Theorem 7; derived here, in the documentation.
    """
    checked(1, n_states, n_actions, horizon, delta, reward_width)
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise ValueError(f"epsilon must be positive and finite, not {epsilon!r}")
    largest = 0.0
    for _, triples, pays in _tree_shapes(n_states, n_actions, horizon):
        gain = 2 * epsilon / (pays * reward_width) if reward_width > 0 else math.inf
        if gain < 0.5 and delta <= 1 - 1 / triples:
            largest = max(largest, triples * coin_divergence(1 / triples, 1 - delta) / coin_divergence(0.5, 0.5 + gain))
    return largest


def coin_divergence(p: float, q: float) -> float:
    """kl(p, q) = p log(p / q) + (1 - p) log((1 - p) / (1 - q)), with 0 log 0 = 0 and infinity where q cannot be p."""
    total = 0.0
    for left, right in ((p, q), (1 - p, 1 - q)):
        if left > 0:
            total += left * math.log(left / right) if right > 0 else math.inf
    return total


def distance_bound(divergence: NDArray[np.float64]) -> NDArray[np.float64]:
    """g(x): the total variation between two laws of divergence x is at most this; concave and increasing.

    min{sqrt(x / 2), sqrt(1 - exp(-x))}: Pinsker; Bretagnolle and Huber (1979).
    """
    return np.minimum(np.sqrt(divergence / 2), np.sqrt(-np.expm1(-divergence)))


def largest_tree(n_states: int, n_actions: int, horizon: int) -> int:
    """Depth of the largest full A-ary tree that fits S states and H layers with W >= 1; 0 if none does."""
    depth, size = 0, 0
    while n_actions >= 2 and size + n_actions**depth + 3 <= n_states and depth + 3 <= horizon:
        size += n_actions**depth
        depth += 1
    return depth


def _tree_shapes(n_states: int, n_actions: int, horizon: int) -> Iterator[tuple[int, int, int]]:
    """(depth, N, P) for every tree that fits, W = H // 3 and the W next to (H - d) / 3, where P sqrt(W) is largest."""
    for depth in range(1, largest_tree(n_states, n_actions, horizon) + 1):
        third = (horizon - depth) / 3
        for waits in sorted({max(1, horizon // 3), max(1, math.floor(third)), max(1, math.ceil(third))}):
            if waits <= horizon - depth - 1:
                yield depth, waits * n_actions**depth, horizon - waits - depth


def _missed_term(k: NDArray[np.float64], triples: int, gain: float) -> NDArray[np.float64]:
    """Least chance, averaged over the hidden triples, that episode k (from 1) misses."""
    return 1 - 1 / triples - distance_bound((k - 1) * coin_divergence(0.5, 0.5 + gain) / triples)


def _missed(episodes: float, triples: int, gain: float) -> float:
    return _sum_of_falling(lambda k: _missed_term(k, triples, gain), episodes)


def _copies(episodes: float, copies: int, n_actions: int, horizon: int, leave: float, gain: float) -> float:
    if copies < 1 or n_actions < 2:
        return 0.0
    steps = np.arange(horizon)
    at_start = (1 + (1 - 2 * leave) ** steps) / 2
    before = np.concatenate([[0.0], np.cumsum(at_start)])
    powers = (1 - 2 * leave - gain) ** np.arange(max(horizon - 1, 0))
    weights = np.concatenate([np.cumsum(powers)[::-1], [0.0]])
    divergence = coin_divergence(leave, leave + gain) / n_actions

    def term(h: int, k: NDArray[np.float64]) -> NDArray[np.float64]:
        seen = before[-1] * (k - 1) / copies + before[h]
        return at_start[h] * (1 - 1 / n_actions) - distance_bound(seen * divergence)

    sums = [_sum_of_falling(partial(term, h), episodes) for h in range(horizon - 1)]
    return gain * float(weights[:-1] @ sums) if sums else 0.0


def _each(counts: NDArray[np.float64], function: Callable[[float], float]) -> NDArray[np.float64]:
    return np.array([function(float(k)) for k in counts.ravel()]).reshape(counts.shape)


def _sum_of_falling(term: Callable[[NDArray[np.float64]], NDArray[np.float64]], count: float) -> float:
    """A lower bound on sum_{k=1}^{count} max(0, term(k)) of falling terms: late blocks at the value of their end."""
    whole = math.floor(count)
    ends = [float(k) for k in range(1, min(whole, EXACT_TERMS) + 1)]
    while ends[-1] < whole:
        ends.append(float(min(whole, math.ceil(ends[-1] * GROWTH))))
    marks = np.array(ends)
    return float(np.diff(marks, prepend=0.0) @ np.maximum(term(marks), 0.0))
