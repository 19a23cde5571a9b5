"""Concentrability of given data: how much less often than a policy the data sees a pair; plain and clipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.complexity.coverability import largest_occupancy
from theoryrl.mdp._checks import ROW_TOLERANCE, Sealed, entry, first, frozen, require_finite
from theoryrl.mdp.model import FiniteHorizonMDP

# Uncovered pairs that a repr names before it only counts them.
NAMED = 3


@dataclass(frozen=True, eq=False, repr=False)
class Concentrability(Sealed):
    """How well data covers policies.

    Attributes
    ----------
    value : float
        The largest ratio over all layers; infinite when a pair that can be reached is not in the data.
    per_layer : (H,)
    ratio : (H, S, A)
        sup_pi d_h^pi(s, a) / mu_h(s, a), with 0 / 0 = 0.
    uncovered : tuple of (h, s, a)
        The pairs with positive probability under some policy and none in the data.
    worst : (h, s, a)
        Where the ratio is largest; the first such entry.
    """

    value: float
    per_layer: NDArray[np.float64]
    ratio: NDArray[np.float64]
    uncovered: tuple[tuple[int, int, int], ...]
    worst: tuple[int, int, int]

    def __repr__(self) -> str:
        names = ", ".join(str(place) for place in self.uncovered[:NAMED])
        more = ", ..." if len(self.uncovered) > NAMED else ""
        missing = f", {len(self.uncovered)} uncovered: {names}{more}" if self.uncovered else ""
        return f"Concentrability(value={self.value:.6g}, worst={self.worst}{missing})"


def concentrability(mdp: FiniteHorizonMDP, data: ArrayLike, policies: Any = None) -> Concentrability:
    """Concentrability coefficient of a data distribution.

    C_conc(mu) = max_h sup_{pi in Pi} max_{s, a} d_h^pi(s, a) / mu_h(s, a),   0 / 0 = 0,   x / 0 = inf

    With one policy in place of the set it is the single-policy coefficient of that policy, e.g. of an optimal one.

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    data : (H, S, A) or (S, A)
        mu: at every layer a distribution over pairs; (S, A) is used at every layer.
    policies : list or tuple of policies, or one policy, optional
        Default: all policies. See `largest_occupancy`.

    Returns
    -------
    Concentrability

    Raises
    ------
    ValueError
        If the data is no distribution: the entry or layer is named.

    Notes
    -----
    Munos (2003), Error bounds for approximate policy iteration; with all policies of a class Chen and Jiang (2019),
    Information-theoretic considerations in batch reinforcement learning; single-policy: Rashidinejad et
    al. (2021), Bridging offline reinforcement learning and imitation learning.
    Cost: `largest_occupancy`.
    """
    largest = largest_occupancy(mdp, policies)
    mu = frozen(data, np.float64, "data")
    if mu.shape not in (largest.shape, largest.shape[1:]):
        raise ValueError(f"data has shape {mu.shape}, not {largest.shape} or {largest.shape[1:]}")
    _require_measure(mu, "data")
    total = mu.sum(axis=(-2, -1))
    off = ~(np.abs(total - 1) <= ROW_TOLERANCE)
    if off.any():
        where = entry("data", first(off)) if mu.ndim == 3 else "data"
        raise ValueError(f"{where} sums to {total[off][0] if mu.ndim == 3 else total:.12g}, not 1")
    ratio = _ratio(largest, np.broadcast_to(mu, largest.shape))
    ratio.flags.writeable = False
    per_layer = ratio.max(axis=(1, 2))
    per_layer.flags.writeable = False
    uncovered = tuple((int(h), int(s), int(a)) for h, s, a in np.argwhere((largest > 0) & (mu == 0)))
    h, s, a = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
    return Concentrability(float(per_layer.max()), per_layer, ratio, uncovered, (int(h), int(s), int(a)))


def clipped_concentrability(occupancy: ArrayLike, data: ArrayLike, gamma: float) -> NDArray[np.float64]:
    """Clipped concentrability of every layer.

    CC_h(pi, mu, gamma) = E_{(s, a) ~ d_h^pi} [ min{d_h^pi(s, a) / mu_h(s, a), gamma} ],   x / 0 = inf

    Never above gamma, non-decreasing in it, and for gamma = inf the second moment of d^pi / mu under mu.

    Parameters
    ----------
    occupancy : (..., S, A)
        d^pi, e.g. of `theoryrl.occupancy`.
    data : (..., S, A)
        mu, broadcast against it; any non-negative measure.
    gamma : float
        Clipping level, positive; inf for none.

    Returns
    -------
    ndarray, shape (...)
        One number per layer, a number for one layer.

    Raises
    ------
    ValueError
        A negative or non-finite entry is named; a level that is not positive.

    Notes
    -----
    Amortila, Foster, Jiang, Sekhari and Xie (2024), Harnessing density ratios for online reinforcement learning.
    Cost: one pass over the tables.
    """
    flow, mu = _measures(occupancy, data)
    if not gamma > 0:
        raise ValueError(f"gamma must be positive, not {gamma!r}")
    with np.errstate(invalid="ignore"):  # 0 * inf: pairs without mass count nothing
        terms = np.where(flow > 0, flow * np.minimum(_ratio(flow, mu), gamma), 0.0)
    return np.asarray(terms.sum(axis=(-2, -1)))


def clip_loss(occupancy: ArrayLike, data: ArrayLike, gamma: float) -> NDArray[np.float64]:
    """Probability mass that clipping the ratio at gamma loses, per layer.

    E_{d}[1 - min(w, gamma) / w] = sum_{s, a} (d(s, a) - gamma mu(s, a))_+,   w = d / mu

    At most CC(pi, mu, gamma) / gamma, and at most E_d[d / mu] / (4 gamma).

    Parameters
    ----------
    occupancy : (..., S, A)
        d.
    data : (..., S, A)
        mu, broadcast against it; any non-negative measure.
    gamma : float
        Clipping level, at least 0 and finite.

    Returns
    -------
    ndarray, shape (...)

    Raises
    ------
    ValueError
        A negative or non-finite entry is named; a level that is negative or not finite.

    Notes
    -----
    The change of measure in the proof of Theorem 3.1 of Amortila et al. (2024), as an identity
    (docs/theory/complexity.md). Cost: one pass over the tables.
    """
    flow, mu = _measures(occupancy, data)
    if not 0 <= gamma < np.inf:
        raise ValueError(f"gamma must be non-negative and finite, not {gamma!r}")
    return np.asarray(np.maximum(flow - gamma * mu, 0.0).sum(axis=(-2, -1)))


def _measures(occupancy: ArrayLike, data: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    flow, mu = frozen(occupancy, np.float64, "occupancy"), frozen(data, np.float64, "data")
    if flow.ndim < 2 or mu.ndim < 2:
        raise ValueError(f"occupancy and data have shapes {flow.shape} and {mu.shape}, not (..., S, A)")
    _require_measure(flow, "occupancy")
    _require_measure(mu, "data")
    try:
        flow, mu = np.broadcast_arrays(flow, mu)
    except ValueError:
        raise ValueError(f"occupancy and data have shapes {flow.shape} and {mu.shape}") from None
    return flow, mu


def _require_measure(table: NDArray[np.float64], name: str) -> None:
    require_finite(table, name)
    if not table.min() >= 0:
        place = first(table < 0)
        raise ValueError(f"{entry(name, place)} is negative ({table[place]})")


def _ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entry by entry, 0 / 0 = 0 and x / 0 = inf."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(numerator > 0, numerator / denominator, 0.0)
