"""Constants (a, b) with which offline oracles are CC-bounded; each is derived in docs/theory/mabo_cr.md.

    J* - J(pihat) <= sum_h { (a / (gamma n)) (CC_h(pi*, mu, gamma n) + CC_h(pihat, mu, gamma n)) + b gamma }

from n tuples per layer whose mean law is mu, in units in which the total reward of an episode lies in [0, 1].
"""

from __future__ import annotations

import math
from typing import NamedTuple

from theoryrl.density_ratio.bounds.constants import self_normalised_constants
from theoryrl.mdp._checks import require_int

SOURCES = ("ours", "paper")


class Constants(NamedTuple):
    """The pair (a, b); b counts once per layer."""

    a: float
    b: float


def mabo_cr_constants(
    *,
    horizon: int,
    n_functions: int,
    log_tests: float,
    delta: float,
    c: float = 0.25,
    noise_width: float = 1.0,
    residual: float = 2.0,
    source: str = "ours",
) -> Constants:
    """Constants of MABO.CR, with probability at least 1 - delta for all calls that `log_tests` counts together.

    ours: a = max(A, R), b = 2 B L,   A = (e - 1) c + R (e - 2), B = c + width^2 / (8 c) + R, L = log(5 nF H N / delta)
    paper: a = 40, b = 56 H^2 log(24 nF N H^2 / delta), of the printed form with the one-layer copies and c = 8

    N = exp(log_tests).

    Parameters
    ----------
    horizon : int
    n_functions : int
        nF; the class contains Q*.
    log_tests : float
        The logarithm of the number of (call, weight) pairs a layer can meet: log(nW) for one call with a list of nW
        weights, log(nW T) for T calls, `weights.log_tests(ratios, T)` for ratios against what was played.
    delta : float in (0, 1)
    c : float
        As given to MABO.CR.
    noise_width : float
        Width of an interval that holds r + V*(s') given (s, a): 1 if all totals lie in [0, 1].
    residual : float
        R, a bound on |f_h(s, a) - r - max f_{h+1}(s', .)|, from 1 to 2: 2 in general, 1 if values of layer h + 1 leave
        room for the reward before, as they do when every reward is scaled by the horizon.
    source : {"ours", "paper"}

    Returns
    -------
    Constants

    Raises
    ------
    ValueError
        A parameter out of range.
    """
    horizon, size = require_int(horizon, 1, "horizon"), require_int(n_functions, 1, "n_functions")
    _require(source, delta)
    if not 1 <= residual <= 2:
        raise ValueError(f"residual is {residual}, not in [1, 2]")
    if not (log_tests >= 0 and math.isfinite(log_tests)):
        raise ValueError(f"log_tests is {log_tests}, not finite and at least 0")
    if source == "paper":
        return Constants(40.0, 56.0 * horizon**2 * (math.log(24.0 * size * horizon**2 / delta) + log_tests))
    spread, level = self_normalised_constants(c, noise_width, residual)
    return Constants(max(spread, residual), 2 * level * (math.log(5.0 * size * horizon / delta) + log_tests))


def second_moment_constants(kappa: float) -> Constants:
    """Constants of an oracle whose residuals have E_mu[residual_h^2] <= kappa / n in every layer: (2, kappa / 4).

    Parameters
    ----------
    kappa : float
        At least 0; the residuals lie in [-2, 1].

    Returns
    -------
    Constants

    Raises
    ------
    ValueError
        A negative or infinite number, or NaN.

    Notes
    -----
    docs/theory/mabo_cr.md#second-moments, Lemma 3.
    """
    if not (kappa >= 0 and math.isfinite(kappa)):
        raise ValueError(f"kappa is {kappa}, not finite and at least 0")
    return Constants(2.0, kappa / 4)


def fqi_constants(
    *,
    horizon: int,
    log_pairs: float,
    delta: float,
    noise_width: float = 2.0,
    calls: int = 1,
    source: str = "ours",
) -> Constants:
    """Constants of fitted Q iteration in a complete class, for every gamma at once.

    ours: a = 2, b = kappa / 4,   kappa = log(P H / delta) / (1 - exp(-1 / (2 width^2))), for all n at once
    paper: a = 6, b = 1024 log(2 P H T / delta), the consistent version of its steps

    P = exp(log_pairs), T = calls.

    Parameters
    ----------
    horizon : int
    log_pairs : float
        The largest of log(|F_h| |F_{h+1}|) over layers (F_H has one member); for the paper log|F|.
    delta : float in (0, 1)
    noise_width : float
        Width of an interval that holds r + max f_{h+1}(s', .) given (s, a), at least 1: 2 in general, 1 if all values
        of layer h + 1 are below 1 - r.
    calls : int
        T, for the paper's constants. Ours hold for every beginning of one sequence of trajectories.
    source : {"ours", "paper"}

    Returns
    -------
    Constants
        (a, b), b once per layer.

    Raises
    ------
    ValueError
        A number out of range, or another `source`.

    Notes
    -----
    Amortila, Foster, Jiang, Sekhari and Xie (2024), Theorem F.3; ours: docs/theory/mabo_cr.md.
    """
    horizon, calls = require_int(horizon, 1, "horizon"), require_int(calls, 1, "calls")
    _require(source, delta)
    if not (log_pairs >= 0 and math.isfinite(log_pairs)):
        raise ValueError(f"log_pairs is {log_pairs}, not finite and at least 0")
    if not 1 <= noise_width < math.inf:
        raise ValueError(f"noise_width is {noise_width}, not finite and at least 1")
    union = log_pairs + math.log(horizon / delta)
    if source == "paper":
        return Constants(6.0, 1024.0 * (union + math.log(2.0 * calls)))
    return second_moment_constants(union / -math.expm1(-1 / (2 * noise_width**2)))


def likelihood_constants(
    *,
    horizon: int,
    n_models: int,
    delta: float,
    noise_width: float = 2.0,
    calls: int = 1,
    source: str = "ours",
) -> Constants:
    """Constants of the plan of the most likely model, for every gamma at once.

    ours: a = 2, b = kappa / 4,   kappa = 2 width^2 log(nM H / delta), for all n at once
    paper: a = 6, b = 8 log(nM H T / delta)

    Parameters
    ----------
    horizon : int
    n_models : int
        nM; the truth is among them, layer by layer.
    delta : float in (0, 1)
    noise_width : float
        Width, at most 2, of an interval that holds r + V(s') for the optimal values V of every combination of the
        models' layers: 1 if total rewards lie in [0, 1] in all of these, 2 if V does.
    calls : int
        T, for the paper's constants.
    source : {"ours", "paper"}

    Returns
    -------
    Constants
        (a, b), b once per layer.

    Raises
    ------
    ValueError
        A number out of range, or another `source`.

    Notes
    -----
    Amortila, Foster, Jiang, Sekhari and Xie (2024), Theorem F.5; ours: docs/theory/mabo_cr.md.
    """
    horizon, calls = require_int(horizon, 1, "horizon"), require_int(calls, 1, "calls")
    _require(source, delta)
    if not 0 < noise_width <= 2:
        raise ValueError(f"noise_width is {noise_width}, not in (0, 2]")
    union = math.log(require_int(n_models, 1, "n_models") * horizon / delta)
    if source == "paper":
        return Constants(6.0, 8.0 * (union + math.log(calls)))
    return second_moment_constants(2.0 * noise_width**2 * union)


def _require(source: str, delta: float) -> None:
    if source not in SOURCES:
        raise ValueError(f"source must be 'ours' or 'paper', not {source!r}")
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}, not in (0, 1)")
