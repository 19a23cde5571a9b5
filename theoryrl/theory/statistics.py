"""The statistics behind verdicts: exact binomial bounds, a test for any stopping time, slopes with intervals."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from theoryrl.mdp._checks import require_int
from theoryrl.mdp.randomness import as_generator
from theoryrl.theory.search import first_true

# Betting alternatives of the e-process: failure probabilities delta + (1 - delta) 2^-j.
_ALTERNATIVES = 2.0 ** -np.arange(8)
_MOST_RUNS = 10**9


def clopper_pearson(failures: int, runs: int, level: float) -> tuple[float, float]:
    """One-sided exact bounds on a failure probability, each wrong with probability at most `level`.

    With K ~ Binomial(n, p): lower = inf{p : P(K >= k) > level}, upper = sup{p : P(K <= k) > level}, that is, the
    level-quantile of Beta(k, n-k+1) and the (1 - level)-quantile of Beta(k+1, n-k); 0 if k = 0 and 1 if k = n. As an
    interval the pair errs with probability at most 2 level. Valid for a number of runs fixed in advance.

    Parameters
    ----------
    failures, runs : int
        k and n, 0 <= k <= n, n >= 1.
    level : float
        In (0, 1).

    Returns
    -------
    lower, upper : float

    Raises
    ------
    ValueError
        If an argument is out of range.

    Source: Clopper and Pearson (1934).
    """
    if not (runs >= 1 and 0 <= failures <= runs):
        raise ValueError(f"{failures} failures in {runs} runs is not a count")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}, not in (0, 1)")
    from scipy.special import betaincinv

    lower = 0.0 if failures == 0 else float(betaincinv(failures, runs - failures + 1, level))
    upper = 1.0 if failures == runs else 1.0 - float(betaincinv(runs - failures, failures + 1, level))
    return lower, upper


def log_wealth(failures: np.ndarray, delta: float) -> np.ndarray:
    """Logarithm of an e-process against H0: every run fails with probability at most delta given the earlier ones.

    W_n = (1/8) sum_{j=0}^{7} prod_{i <= n} (1 + lambda_j (X_i - delta)), X_i = 1 if run i failed, with
    lambda_j = (q_j - delta) / (delta (1 - delta)) and q_j = delta + (1 - delta) 2^-j: the factor is q_j / delta after
    a failure and (1 - q_j) / (1 - delta) after a success, the likelihood ratio of q_j against delta.

    Validity. lambda_j >= 0 and every factor is >= 0 because q_j <= 1. Under H0, with F the past,
    E[1 + lambda_j (X_i - delta) | F] = 1 + lambda_j (P(X_i = 1 | F) - delta) <= 1, so every product is a non-negative
    supermartingale that starts at 1, and so is their average. Ville's inequality gives
    P(some n has W_n >= 1/alpha) <= alpha: whoever rejects as soon as W_n >= 1/alpha, looking after every run and
    stopping when he likes, rejects a true H0 with probability at most alpha.

    Parameters
    ----------
    failures : array_like of bool, shape (n,)
    delta : float
        In (0, 1).

    Returns
    -------
    ndarray, shape (n,)
        log W_1, ..., log W_n.

    Source: Ville (1939); Waudby-Smith and Ramdas (2024) for testing by betting.
    """
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta is {delta}, not in (0, 1)")
    given = np.asarray(failures)
    # What is no outcome, NaN for one, would pass for a failure.
    if given.ndim != 1 or (given.dtype != bool and not (given.dtype.kind in "iuf" and np.isin(given, (0, 1)).all())):
        raise ValueError("failures must be a list of outcomes, each true or false")
    failed = given.astype(bool)
    after_failure = np.log(delta + (1.0 - delta) * _ALTERNATIVES) - math.log(delta)
    with np.errstate(divide="ignore"):
        after_success = np.log1p(-_ALTERNATIVES)  # (1 - q_j) / (1 - delta) = 1 - 2^-j, and 0 at j = 0
    steps = np.where(failed[:, None], after_failure, after_success)
    return np.logaddexp.reduce(np.cumsum(steps, axis=0), axis=1) - math.log(_ALTERNATIVES.size)


def log_wealth_of_mean(values: np.ndarray, mean: float) -> np.ndarray:
    """Logarithm of an e-process against H0: every value has expectation at least `mean` given the earlier ones.

    W_n = (1/12) sum_{j=0}^{11} prod_{i <= n} (1 + lambda_j (mean - X_i)), X_i in [0, 1], lambda_j = 2^-j / (1 - mean).

    Validity. mean - X_i >= mean - 1, so every factor is >= 1 - 2^-j >= 0. Under H0, with F the past,
    E[1 + lambda_j (mean - X_i) | F] <= 1, so every product is a non-negative supermartingale that starts at 1, and so
    is their average: by Ville's inequality it ever reaches 1/alpha with probability at most alpha. For the claim that
    expectations are at most m, use it on 1 - X and 1 - m.

    Parameters
    ----------
    values : array_like, shape (n,)
        In [0, 1].
    mean : float
        In [0, 1).

    Returns
    -------
    ndarray, shape (n,)
        log W_1, ..., log W_n.

    Source: Waudby-Smith and Ramdas (2024), Estimating means of bounded random variables by betting.
    """
    if not 0.0 <= mean < 1.0:
        raise ValueError(f"mean is {mean}, not in [0, 1)")
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or not ((given >= 0.0) & (given <= 1.0)).all():
        raise ValueError("values must be a list of numbers in [0, 1]")
    bets = 2.0 ** -np.arange(12) / (1.0 - mean)
    with np.errstate(divide="ignore"):
        # A product that rounding pushed below 0 is one that is 0.
        steps = np.log(np.maximum(1.0 + bets * (mean - given[:, None]), 0.0))
    return np.logaddexp.reduce(np.cumsum(steps, axis=0), axis=1) - math.log(bets.size)


def runs_needed(delta: float, confidence: float = 0.99, failures: int = 0) -> int | None:
    """The least number of runs after which `failures` failures put the Clopper-Pearson upper bound at or below delta.

    With no failure it is about log(1 / (1 - confidence)) / delta: 90 runs for delta = 0.05 and confidence 0.99.

    Parameters
    ----------
    delta, confidence : float
        In (0, 1).
    failures : int
        Failures that will have been seen by then.

    Returns
    -------
    int or None
        None beyond 10^9 runs.
    """
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta is {delta}, not in (0, 1)")
    level = 1.0 - confidence

    def enough(runs: int) -> bool:
        return clopper_pearson(failures, runs, level)[1] <= delta

    return first_true(enough, failures + 1, _MOST_RUNS)


def runs_to_decide(failures: int, runs: int, delta: float, confirm: float, refute: float) -> int | None:
    """About how many runs decide P(fail) <= delta if failures keep coming at the rate seen so far.

    The least n with upper(k n / runs, n) <= delta at level `confirm` or lower(k n / runs, n) > delta at level `refute`
    (Clopper-Pearson, fractional counts rounded against the decision); None when the rate equals delta or 10^9 runs do
    not suffice.
    """
    if not 0 <= failures <= runs or runs < 1:
        raise ValueError(f"{failures} failures in {runs} runs is not a count")

    def enough(n: int) -> bool:
        if failures <= delta * runs:
            return clopper_pearson(min(n, -(-failures * n // runs)), n, confirm)[1] <= delta
        return clopper_pearson(failures * n // runs, n, refute)[0] > delta

    return first_true(enough, runs + 1, _MOST_RUNS)


class Slope(NamedTuple):
    """A log-log slope with its bootstrap interval."""

    estimate: float
    lower: float
    upper: float


def log_log_slope(
    x: np.ndarray,
    y: np.ndarray,
    rng: np.random.SeedSequence | int,
    level: float = 0.01,
    resamples: int = 2000,
) -> Slope:
    """Least-squares slope of log(mean over seeds of y) on log x, with a percentile bootstrap interval over seeds.

    Seeds (whole rows) are drawn with replacement, so the dependence between the points of one run is kept. The interval
    is asymptotic: its level is nominal, unlike the binomial bounds above.

    Parameters
    ----------
    x : ndarray, shape (m,)
        Positive.
    y : ndarray, shape (seeds, m)
        Finite, with positive means over any resample.
    rng : SeedSequence or int
        The interval is a function of it and the data.
    level : float
        Nominal probability outside the interval, both sides together.
    resamples : int

    Raises
    ------
    ValueError
        If an entry is not finite or a mean is not positive; the entry is named. If x, `level` or `rng` will not do.
    """
    x = np.asarray(x, dtype=np.float64)
    y = np.asarray(y, dtype=np.float64)
    if x.ndim != 1 or y.ndim != 2 or y.shape[1:] != x.shape:
        raise ValueError(f"x has shape {x.shape} and y {y.shape}, not (m,) and (seeds, m)")
    if not ((x > 0.0) & np.isfinite(x)).all() or np.unique(x).size < 2:
        raise ValueError(f"a slope needs two different x, all of them positive and finite, not {x.tolist()}")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}, not in (0, 1)")
    resamples = require_int(resamples, 1, "resamples")
    bad = np.argwhere(~np.isfinite(y))
    if bad.size:
        raise ValueError(f"y[{bad[0, 0]}, {bad[0, 1]}] is {y[tuple(bad[0])]}: a slope needs finite values")
    mean = y.mean(axis=0)
    low = np.flatnonzero(~(mean > 0.0))
    if low.size:
        raise ValueError(f"the mean of y at x = {x[low[0]]:g} is {mean[low[0]]:g}: a slope needs positive values")
    centred = np.log(x) - np.log(x).mean()
    weights = centred / (centred @ centred)
    estimate = float(weights @ np.log(mean))
    picks = as_generator(rng).integers(0, y.shape[0], size=(resamples, y.shape[0]))
    means = np.stack([y[pick].mean(axis=0) for pick in picks])
    if not np.all(means > 0.0):
        raise ValueError("a resample of the seeds has a mean that is not positive: a slope needs positive values")
    slopes = np.log(means) @ weights
    lower, upper = np.quantile(slopes, [level / 2.0, 1.0 - level / 2.0])
    return Slope(estimate, float(lower), float(upper))


def holds(observed: np.ndarray, bound: np.ndarray, allowance: np.ndarray, relation: str = "<=") -> np.ndarray:
    """Whether each instance holds within its allowance; an instance with a NaN does not.

    `observed <= bound` or `observed - bound <= allowance` for "<="; `|observed - bound| <= allowance` for "==". Where
    the two sides are within a factor 2 of each other the difference is exact (Sterbenz), so that the comparison
    itself adds no rounding where it matters.
    """
    with np.errstate(invalid="ignore"):
        difference = observed - bound
        if relation == "==":
            return np.abs(difference) <= allowance
        held = (observed <= bound) | (difference <= allowance)
    return held & ~np.isnan(allowance)


def tightness(observed: np.ndarray, bound: np.ndarray) -> float:
    """The largest observed / bound; where both are negative (values made of costs), bound / observed.

    So 1 means attained and more than 1 exceeded, whatever the sign. Instances with bound 0 and observed <= 0 say
    nothing about tightness and are left out; bound 0 with observed > 0, or a negative bound with observed >= 0, gives
    inf, an infinite bound 0. NaN if a side is NaN somewhere, if both sides are infinite, or if nothing is left.
    """
    if np.isnan(observed).any() or np.isnan(bound).any():
        return math.nan
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.where(bound < 0.0, np.where(observed < 0.0, bound / observed, math.inf), observed / bound)
    kept = (bound != 0.0) | (observed > 0.0)
    return float(np.max(ratio[kept])) if kept.any() else math.nan
