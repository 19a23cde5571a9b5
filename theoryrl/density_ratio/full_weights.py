r"""The class of all weights, W_h = [0, infinity)^(S A): GLOW's test in closed form, and a level for it without a union.

For a value function f the residual at z = (s, a) is m_z = f_h(z) - rbar_z - Phat_z V^f_{h+1}, from the N_z tuples seen
at z (n = sum_z N_z in the layer). The supremum over clipped weights separates over z:

sup_w (1/n) sum_z N_z (w_z m_z - alpha w_z^2) = sum_z (N_z / n) g(m_z),   0 <= w_z <= gamma.

Proofs: docs/theory/density_ratio_tabular.md. All numbers are in the units of `problem.py`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.classes._shape import mask_of
from theoryrl.density_ratio.problem import Units
from theoryrl.mdp._checks import entry, first, frozen, require_finite
from theoryrl.mdp.dataset import Dataset
from theoryrl.offline._data import start_of, tables

# Rewards that are in units already.
AS_GIVEN = Units(0.0, 1.0)


class TabularData(NamedTuple):
    """What a tabular method reads of a data set, in units.

    Attributes
    ----------
    visits : (H, S, A)
        N_z, not negative.
    reward : (H, S, A)
        rbar_z, the mean reward in units; 0 where N_z = 0.
    transition : (H, S, A, S)
        Phat_z, frequencies of successors; a row of zeros where N_z = 0.
    initial : (S,)
        Where an episode starts.
    action_mask : (S, A) bool
        What is allowed; N_z = 0 elsewhere.
    """

    visits: NDArray[np.float64]
    reward: NDArray[np.float64]
    transition: NDArray[np.float64]
    initial: NDArray[np.float64]
    action_mask: NDArray[np.bool_]


class FullWeightTest(NamedTuple):
    """GLOW's test with all weights.

    Attributes
    ----------
    statistic : (..., H)
        sup_w E_D[residual w - alpha w^2] of every layer; 0 for a layer without data.
    weight : (..., H, S, A)
        Weights that attain it; 0 where there are no data.
    passed : (...)
        Whether no layer exceeds its level.
    """

    statistic: NDArray[np.float64]
    weight: NDArray[np.float64]
    passed: NDArray[np.bool_]


class MixtureTest(NamedTuple):
    """The test at the mixture level.

    Attributes
    ----------
    statistic : (..., H)
        sum_z N_z^2 / (N_z + rho) (m_z)_+^2.
    level : (H,)
    passed : (...)
        Whether no layer exceeds its level.
    """

    statistic: NDArray[np.float64]
    level: NDArray[np.float64]
    passed: NDArray[np.bool_]


def tabular_data(
    data: Dataset,
    *,
    units: Units = AS_GIVEN,
    action_mask: ArrayLike | None = None,
    initial: ArrayLike | int | None = None,
    staged: bool = True,
) -> TabularData:
    """Counts, mean rewards and frequencies of a data set, in units.

    Parameters
    ----------
    data : Dataset
    units : Units
        r' = (r - low) / scale; see `units_of`. Default: rewards are in units already.
    action_mask : (S, A) bool, optional
    initial : (S,) distribution or int, optional
        The start; default the frequencies of the states at step 0.
    staged : bool
        With False every layer gets the data of all layers, which needs stationary dynamics. The noise r + V*_{h+1}(s')
        of a pair that is out of reach at layer h may then be wider than 1; see `noise_width` of `mixture_level`.

    Returns
    -------
    TabularData

    Raises
    ------
    ValueError
        A row with a forbidden action, or without a row at step 0 no start; the row is named.
    """
    mask = mask_of(action_mask, data.n_states, data.n_actions)
    start = start_of(data, initial)
    forbidden = ~mask[data.state, data.action]
    if forbidden.any():
        row = first(forbidden)[0]
        raise ValueError(f"action[{row}] = {data.action[row]} is forbidden in state {data.state[row]}")
    counts = tables(data, staged)
    seen = np.maximum(counts.visits, 1.0)
    mean = np.where(counts.visits > 0, (counts.reward_sums / seen - units.low) / units.scale, 0.0)
    return TabularData(counts.visits, mean, counts.transitions / seen[..., np.newaxis], start, mask)


def mean_residuals(values: ArrayLike, data: TabularData) -> NDArray[np.float64]:
    """m_z = f_h(z) - rbar_z - Phat_z V^f_{h+1}, V^f_h(s) = max over allowed a of f_h(s, a), V^f_H = 0.

    Parameters
    ----------
    values : (..., H, S, A)
        One or more f in units; entries of forbidden pairs are not read.
    data : TabularData

    Returns
    -------
    ndarray, shape (..., H, S, A)
        0 where there are no data.

    Raises
    ------
    ValueError
        A shape that does not fit, or a value that is not finite; the entry is named.
    """
    table = frozen(values, np.float64, "values")
    if table.ndim < 3 or table.shape[-3:] != data.visits.shape:
        raise ValueError(f"values has shape {table.shape}, not (..., {', '.join(map(str, data.visits.shape))})")
    table = np.where(data.action_mask, table, 0.0)
    require_finite(table, "values")
    best = np.where(data.action_mask, table, -np.inf).max(axis=-1)
    later = np.zeros(best.shape)
    later[..., :-1, :] = best[..., 1:, :]
    backup = data.reward + np.einsum("hsat,...ht->...hsa", data.transition, later)
    return np.where(data.visits > 0, table - backup, 0.0)


def best_weights(residual: ArrayLike, alpha: float, ceiling: float, *, signed: bool = False) -> NDArray[np.float64]:
    """The weight that maximises w m - alpha w^2 over 0 <= w <= gamma, or with `signed` over |w| <= gamma.

    w* = min((m)_+ / (2 alpha), gamma);   signed: sign(m) min(|m| / (2 alpha), gamma)

    Parameters
    ----------
    residual : array
        m.
    alpha : float
        The price of a weight's square, at least 0.
    ceiling : float
        gamma, at least 0; infinity is allowed if alpha > 0.
    signed : bool
        Whether weights may be negative.

    Raises
    ------
    ValueError
        alpha or gamma out of range, or alpha = 0 without a ceiling: the supremum would be infinite.
    """
    m = _checked(residual, alpha, ceiling)
    size = np.abs(m) if signed else np.maximum(m, 0.0)
    with np.errstate(over="ignore"):
        free = size / (2 * alpha) if alpha > 0 else np.where(size > 0, np.inf, 0.0)
    weight = np.minimum(free, ceiling)
    return np.where(m < 0, -weight, weight) if signed else weight


def best_gain(residual: ArrayLike, alpha: float, ceiling: float, *, signed: bool = False) -> NDArray[np.float64]:
    """What the best weight gains, g(m) = max of w m - alpha w^2 over 0 <= w <= gamma (Huber's function if `signed`).

    g(m) = 0 for m <= 0,   m^2 / (4 alpha) for m <= 2 alpha gamma,   gamma m - alpha gamma^2 beyond

    Parameters
    ----------
    residual, alpha, ceiling, signed
        As in `best_weights`.
    """
    m = _checked(residual, alpha, ceiling)
    size = np.abs(m) if signed else np.maximum(m, 0.0)
    # With no ceiling nothing is clipped; without a price everything is.
    clipped = size > 2 * alpha * ceiling if math.isfinite(ceiling) else np.zeros(size.shape, bool)
    with np.errstate(over="ignore"):
        free = np.divide(size * size, 4 * alpha, out=np.zeros(size.shape), where=~clipped & (size > 0))
    return np.where(clipped, ceiling * (size - alpha * ceiling), free) if math.isfinite(ceiling) else free


def _checked(residual: ArrayLike, alpha: float, ceiling: float) -> NDArray[np.float64]:
    if not 0 <= alpha < math.inf:
        raise ValueError(f"alpha must be at least 0 and finite, not {alpha!r}")
    if not ceiling >= 0:
        raise ValueError(f"ceiling must be at least 0, not {ceiling!r}")
    if alpha == 0 and ceiling == math.inf:
        raise ValueError("with alpha = 0 and no ceiling the supremum over weights is infinite")
    m = frozen(residual, np.float64, "residual")
    require_finite(m, "residual")
    return m


def full_weight_test(
    values: ArrayLike,
    data: TabularData,
    *,
    alpha: float,
    ceiling: float,
    level: ArrayLike = math.inf,
    signed: bool = False,
) -> FullWeightTest:
    """GLOW's test with the class of all weights, for one or more f.

    sup_w E_D[hatDelta_h f w - alpha w^2] = sum_z (N_z / n) g(m_z) <= beta_h,   0 <= w <= gamma

    For f in [0, 1] and alpha = c / gamma clipping is inactive when c >= 1/2 (signed: c >= 1), and the test reads
    sum_z N_z (m_z)_+^2 <= 4 alpha beta_h n (signed: m_z^2). With `signed` it is what MABO.CR minimises over all
    weights.

    Parameters
    ----------
    values : (..., H, S, A)
        In units.
    data : TabularData
    alpha, ceiling : float
        alpha_t and gamma_t.
    level : float or (H,)
        beta_t. No level makes this test valid for an infinite class by a union; see `mixture_test`.
    signed : bool
        Weights of both signs, clipped to |w| <= gamma.

    Returns
    -------
    FullWeightTest

    Raises
    ------
    ValueError
        As `mean_residuals` and `best_weights`, or a level that is NaN.
    """
    residual = mean_residuals(values, data)
    share = _shares(data.visits)
    statistic = (share * best_gain(residual, alpha, ceiling, signed=signed)).sum(axis=(-2, -1))
    weight = np.where(data.visits > 0, best_weights(residual, alpha, ceiling, signed=signed), 0.0)
    limit = np.broadcast_to(np.asarray(level, np.float64), statistic.shape[-1:])
    if np.isnan(limit).any():
        raise ValueError("level is nan")
    return FullWeightTest(statistic, weight, (statistic <= limit).all(axis=-1))


def mixture_level(
    visits: ArrayLike, *, delta: float, noise_width: float = 1.0, prior: float = 1.0
) -> NDArray[np.float64]:
    r"""The level of the test over all weights that Q* passes at all times with probability 1 - delta.

    level_h = (b^2 / 2) [log(H / delta) + (1/2) sum_z log(1 + N_z / rho)]

    With probability at least 1 - delta the residuals m of Q* keep sum_z N_z^2 / (N_z + rho) m_z^2 <= level_h for all h
    and all n at once, however the data are collected. No union over weights, values or rounds is paid.

    Parameters
    ----------
    visits : (H, S, A)
        N_z, not negative.
    delta : float
        In (0, 1).
    noise_width : float
        b > 0: r + V*_{h+1}(s') lies in an interval of this length given (s, a); 1 in units.
    prior : float
        rho > 0, chosen before the data: the number of visits at which the level is sharpest is of this order.

    Returns
    -------
    ndarray, shape (H,)

    Raises
    ------
    ValueError
        A parameter out of range, or a count that is negative.

    Notes
    -----
    Proof: docs/theory/density_ratio_tabular.md#mixture-level. It gives optimism only: the error lemma of GLOW for the
    class of all weights needs a count of its own.
    """
    counts = _counts(visits)
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie in (0, 1), not {delta!r}")
    _positive(noise_width, "noise_width")
    _positive(prior, "prior")
    spread = np.log1p(counts / prior).sum(axis=(-2, -1))
    return np.asarray(0.5 * noise_width**2 * (math.log(len(counts) / delta) + 0.5 * spread))


def mixture_precision(visits: ArrayLike, prior: float = 1.0) -> NDArray[np.float64]:
    """N_z^2 / (N_z + rho), the weights of squared residuals in `mixture_test`; same shape as `visits`."""
    counts = _counts(visits)
    _positive(prior, "prior")
    return np.asarray(counts * (counts / (counts + prior)))


def mixture_test(
    values: ArrayLike,
    data: TabularData,
    *,
    delta: float,
    noise_width: float = 1.0,
    prior: float = 1.0,
) -> MixtureTest:
    """Whether sum_z N_z^2 / (N_z + rho) (m_z)_+^2 <= level_h at every layer, for one or more f.

    Q* passes at all times with probability at least 1 - delta.

    Parameters
    ----------
    values : (..., H, S, A)
        In units.
    data : TabularData
    delta, noise_width, prior
        As in `mixture_level`.

    Returns
    -------
    MixtureTest

    Raises
    ------
    ValueError
        As `mean_residuals` and `mixture_level`.

    Notes
    -----
    docs/theory/density_ratio_tabular.md.
    """
    excess = np.maximum(mean_residuals(values, data), 0.0)
    statistic = (mixture_precision(data.visits, prior) * excess**2).sum(axis=(-2, -1))
    level = mixture_level(data.visits, delta=delta, noise_width=noise_width, prior=prior)
    return MixtureTest(statistic, level, (statistic <= level).all(axis=-1))


def _counts(visits: ArrayLike) -> NDArray[np.float64]:
    counts = frozen(visits, np.float64, "visits")
    if counts.ndim != 3 or 0 in counts.shape:
        raise ValueError(f"visits has shape {counts.shape}, not (H, S, A) with at least one of each")
    require_finite(counts, "visits")
    if not counts.min() >= 0:
        raise ValueError(f"{entry('visits', first(counts < 0))} is negative ({counts[first(counts < 0)]})")
    return counts


def _shares(visits: NDArray[np.float64]) -> NDArray[np.float64]:
    """N_z / n of every layer; 0 in a layer without data."""
    total = visits.sum(axis=(-2, -1), keepdims=True)
    return np.divide(visits, total, out=np.zeros(visits.shape), where=total > 0)


def _positive(value: Any, name: str) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, not {value!r}")
