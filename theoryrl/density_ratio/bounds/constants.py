"""The constants of the self-normalised analysis and how to choose what is free in them."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple


class ErrorConstants(NamedTuple):
    """Constants of the error lemma, and what they were computed from.

    Attributes
    ----------
    c : float
        The schedule's: alpha_t = c / gamma_t.
    sigma, tau : float
        The free exponents of the analysis, sigma / gamma_t^2 for second moments and tau / (R gamma_t) for residuals.
    moment : float
        A, the factor of the second moment.
    clipped : float
        kappa, the factor of the potential once the clip loss is counted: A, or 1 / (4 (1 - A)) for A < 1/2.
    level : float
        B, the factor of gamma_t L / n.
    """

    c: float
    sigma: float
    tau: float
    moment: float
    clipped: float
    level: float


def self_normalised_constants(
    c: float = 0.25, noise_width: float = 1.0, residual: float = 2.0, sigma: float = 1.0, tau: float = 1.0
) -> tuple[float, float]:
    """A and B of the error lemma: E_mean[Delta f w] <= (A / gamma_t) E_mean[w^2] + B gamma_t L / n for f that pass.

    A = c (e^sigma - 1) / sigma + R (e^tau - 1 - tau) / tau,   B = c / sigma + b^2 / (8 c) + R / tau

    Parameters
    ----------
    c : float
        alpha_t gamma_t of the schedule.
    noise_width : float
        b: given (s, a), r + V*(s') lies in an interval of this length.
    residual : float
        R, a bound on |f(s, a) - r - max f(s', .)|: 2 in general, 1 if the class guarantees it.
    sigma, tau : float
        Exponents of the analysis; the schedule does not depend on them.

    Returns
    -------
    A, B : float

    Raises
    ------
    ValueError
        A number that is not positive and finite.

    Notes
    -----
    Proof: docs/theory/glow.md#glow-bellman-error.
    """
    for name, value in (
        ("c", c),
        ("noise_width", noise_width),
        ("residual", residual),
        ("sigma", sigma),
        ("tau", tau),
    ):
        require_positive(name, value)
    moment = c * math.expm1(sigma) / sigma + residual * (math.expm1(tau) - tau) / tau
    return moment, c / sigma + noise_width**2 / (8 * c) + residual / tau


def clipped_constant(moment: float) -> float:
    """kappa(A) = sup_u (A min(u, 1)^2 + (u - 1)_+) / u^2: what A becomes when the clip loss is counted.

    A if A >= 1/2 (clipping costs nothing), else 1 / (4 (1 - A)).

    Parameters
    ----------
    moment : float
        A >= 0.

    Returns
    -------
    float, at least 1/4.

    Raises
    ------
    ValueError
        A negative number or NaN.

    Notes
    -----
    docs/theory/glow.md#glow-clip-loss.
    """
    if not 0 <= moment < math.inf:
        raise ValueError(f"moment must be at least 0 and finite, not {moment!r}")
    return moment if moment >= 0.5 else 1 / (4 * (1 - moment))


def constants_at(
    c: float, noise_width: float, residual: float = 2.0, sigma: float = 1.0, tau: float = 1.0
) -> ErrorConstants:
    """All constants for given exponents."""
    moment, level = self_normalised_constants(c, noise_width, residual, sigma, tau)
    return ErrorConstants(c, sigma, tau, moment, clipped_constant(moment), level)


@lru_cache(maxsize=256)
def tuned_constants(noise_width: float = 1.0, residual: float = 2.0, c: float | None = None) -> ErrorConstants:
    """The constants with the least product kappa B, over sigma and tau, and over c too unless it is given.

    Parameters
    ----------
    noise_width, residual : float
        b and R.
    c : float, optional
        The schedule's c, if it is given.

    Returns
    -------
    ErrorConstants
        Whatever the accuracy of the search, the bounds hold at what it found.
    """
    from scipy.optimize import minimize

    for name, value in (("noise_width", noise_width), ("residual", residual), ("c", 1.0 if c is None else c)):
        require_positive(name, value)

    def at(logs: list[float]) -> ErrorConstants:
        sigma, tau = math.exp(logs[0]), math.exp(logs[1])
        return constants_at(math.exp(logs[2]) if c is None else c, noise_width, residual, sigma, tau)

    def product(logs: list[float]) -> float:
        if not max(abs(x) for x in logs) <= 30:
            return math.inf
        found = at(logs)
        return found.clipped * found.level

    start = [math.log(0.3), math.log(0.3)] + ([math.log(0.1 * noise_width)] if c is None else [])
    options = {"xatol": 1e-10, "fatol": 1e-14, "maxiter": 4000, "maxfev": 4000}
    best = minimize(product, start, method="Nelder-Mead", options=options)
    best = minimize(product, best.x, method="Nelder-Mead", options=options)
    return at(list(best.x))


def require_positive(name: str, value: float) -> None:
    """Refuse a number that is not positive and finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, not {value!r}")
