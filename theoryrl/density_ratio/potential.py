"""The potential of a sequence of occupancies, and what clipping their ratios loses (docs/theory/glow.md).

Cumulative masses include the round itself: D_t = d_1 + ... + d_t, so that 0 <= d_t / D_t <= 1 wherever d_t > 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp._checks import entry, first, frozen, require_finite


def harmonic(x: ArrayLike) -> NDArray[np.float64]:
    """H(x) = sum_{k >= 1} x / (k (k + x)), the harmonic numbers 1 + 1/2 + ... + 1/n continued to real x >= 0.

    Parameters
    ----------
    x : array
        At least 0.

    Returns
    -------
    ndarray of the shape of `x`

    Raises
    ------
    ValueError
        An entry that is negative or not a number.
    """
    from scipy.special import digamma

    table = np.asarray(x, np.float64)
    if not (table >= 0).all():
        raise ValueError("x must be at least 0")
    return np.asarray(digamma(1.0 + table) + np.euler_gamma)


def potential_bound(rounds: ArrayLike, coverability: ArrayLike) -> NDArray[np.float64]:
    """C H(T / C), the largest potential that T rounds can have at coverability C.

    Parameters
    ----------
    rounds : array
        T, at least 0.
    coverability : array
        C > 0, broadcast against it.

    Returns
    -------
    ndarray
    """
    cover = np.asarray(coverability, np.float64)
    if not ((cover > 0) & (cover < np.inf)).all():
        raise ValueError("coverability must be positive and finite")
    return np.asarray(cover * harmonic(np.asarray(rounds, np.float64) / cover))


def potential(occupancies: ArrayLike) -> NDArray[np.float64]:
    """How much every round and layer adds to the potential.

    E_{z ~ d_t}[d_t(z) / D_t(z)] = sum_z d_t(z)^2 / D_t(z),   D_t = d_1 + ... + d_t

    Summed over rounds it is at most C H(T / C) with C = sum_z max_t d_t(z).

    Parameters
    ----------
    occupancies : (T, H, S, A)
        d_1, ..., d_T; not negative.

    Returns
    -------
    ndarray, shape (T, H)
        1 in the first round.

    Raises
    ------
    ValueError
        Another number of axes, or a negative or non-finite entry, which is named.

    Notes
    -----
    Proof: docs/theory/glow.md#glow-potential. Cost: two passes over the tables.
    """
    flows = _flows(occupancies)
    total = np.cumsum(flows, axis=0)
    share = np.divide(flows, total, out=np.zeros(flows.shape), where=flows > 0)
    return np.asarray((flows * share).sum(axis=(-2, -1)))


def clip_losses(occupancies: ArrayLike, gamma: float) -> NDArray[np.float64]:
    """What clipping w_t = t d_t / D_t at gamma t loses under d_t, for every round and layer.

    E_{d_t}[1 - min(w_t, gamma t) / w_t] = sum_z (d_t(z) - gamma D_t(z))_+

    At most `potential` / (4 gamma); together with (A / gamma) E_mean[min(w, gamma t)^2] / t at most (A / gamma) times
    it for every A >= 1/2.

    Parameters
    ----------
    occupancies : (T, H, S, A)
    gamma : float
        At least 0 and finite.

    Returns
    -------
    ndarray, shape (T, H)
    """
    flows = _flows(occupancies)
    _require_slope(gamma)
    return np.asarray(np.maximum(flows - gamma * np.cumsum(flows, axis=0), 0.0).sum(axis=(-2, -1)))


def clipped_moments(occupancies: ArrayLike, gamma: float) -> NDArray[np.float64]:
    """Second moments of clipped ratios as they enter the sum: E_{D_t / t}[min(w_t, gamma t)^2] / t, w_t = t d_t / D_t.

    It equals sum_z D_t(z) min(d_t(z) / D_t(z), gamma)^2.

    Parameters
    ----------
    occupancies : (T, H, S, A)
    gamma : float
        At least 0 and finite.

    Returns
    -------
    ndarray, shape (T, H)
    """
    flows = _flows(occupancies)
    _require_slope(gamma)
    total = np.cumsum(flows, axis=0)
    share = np.divide(flows, total, out=np.zeros(flows.shape), where=flows > 0)
    return np.asarray((total * np.minimum(share, gamma) ** 2).sum(axis=(-2, -1)))


def _flows(occupancies: Any) -> NDArray[np.float64]:
    flows = frozen(occupancies, np.float64, "occupancies")
    if flows.ndim != 4 or 0 in flows.shape:
        raise ValueError(f"occupancies has shape {flows.shape}, not (T, H, S, A) with at least one of each")
    require_finite(flows, "occupancies")
    if not flows.min() >= 0:
        place = first(flows < 0)
        raise ValueError(f"{entry('occupancies', place)} is negative ({flows[place]})")
    return flows


def _require_slope(gamma: float) -> None:
    if not 0 <= gamma < np.inf:
        raise ValueError(f"gamma must be at least 0 and finite, not {gamma!r}")
