"""From observations to a verdict: the only place where one is made."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from theoryrl.theory.statistics import (
    clopper_pearson,
    holds,
    log_log_slope,
    log_wealth,
    log_wealth_of_mean,
    runs_to_decide,
    tightness,
)
from theoryrl.theory.theorem import (
    ExactObservations,
    MeanObservations,
    Observations,
    ProbabilityObservations,
    RateObservations,
    Theorem,
)

# A true probability claim is refuted by the e-process or by the binomial bound with probability at most this each.
REFUTE_LEVEL = 1e-6
# A false probability claim is called consistent with probability at most this.
CONFIRM_LEVEL = 0.01
# Nominal probability outside the bootstrap interval of a slope, and the fewest seeds that make one worth reading.
SLOPE_LEVEL = 0.01
SLOPE_SEEDS = 5


class Verdict(StrEnum):
    """What a check can say of a claim."""

    VERIFIED = "verified"
    CONSISTENT = "consistent"
    REFUTED = "refuted"
    INCONCLUSIVE = "inconclusive"
    NOT_APPLICABLE = "not-applicable"


class Decision(NamedTuple):
    """A verdict, its tightness (the largest observed / bound) and a line that says what decided it."""

    verdict: Verdict
    tightness: float
    note: str


def decide(theorem: Theorem, observations: Observations, rng: np.random.SeedSequence) -> Decision:
    """The verdict on `theorem` that follows from `observations`.

    Parameters
    ----------
    theorem : Theorem
        Its claim says which rule applies, its delta which failure probability.
    observations : ExactObservations, ProbabilityObservations, MeanObservations or RateObservations
    rng : SeedSequence
        For the bootstrap of a slope.

    Raises
    ------
    TypeError
        If the observations are not of the kind that the theorem claims.
    """
    kind = getattr(observations, "claim", None)
    about_mean = isinstance(observations, MeanObservations)
    if kind != theorem.claim or (kind == "probability" and about_mean != (theorem.delta is None)):
        wanted = theorem.claim if theorem.claim != "probability" or theorem.delta is not None else "an expectation"
        raise TypeError(f"{theorem.key} claims {wanted}, but its protocol returned {type(observations).__name__}")
    if isinstance(observations, ExactObservations):
        return decide_exact(observations)
    if isinstance(observations, MeanObservations):
        return decide_mean(observations)
    if isinstance(observations, ProbabilityObservations):
        assert theorem.delta is not None  # else the kinds above differ
        return decide_probability(observations, theorem.delta)
    return decide_rate(observations, rng)


def decide_exact(seen: ExactObservations) -> Decision:
    """`verified` if every instance holds within its rounding allowance, else `refuted` with the worst one named.

    A NaN on either side or in an allowance refutes. The tightness of an identity that holds is 1.
    """
    held = holds(seen.observed, seen.bound, seen.allowance, seen.relation)
    ratio = tightness(seen.observed, seen.bound)
    if held.all():
        if seen.relation == "==":
            return Decision(Verdict.VERIFIED, 1.0, f"{held.size} identities hold within rounding")
        return Decision(Verdict.VERIFIED, ratio, f"{held.size} inequalities hold")
    broken = np.flatnonzero(~held)
    with np.errstate(invalid="ignore"):
        excess = np.abs(seen.observed - seen.bound)[broken] - seen.allowance[broken]
    # NaN first: argmax stops at it.
    worst = int(broken[int(np.argmax(excess))])
    label = f" ({seen.labels[worst]})" if seen.labels else ""
    sign = "<=" if seen.relation == "<=" else "=="
    note = (
        f"{broken.size} of {held.size} fail; worst is instance {worst}{label}: "
        f"{seen.observed[worst]:.6g} {sign} {seen.bound[worst]:.6g} is false"
    )
    return Decision(Verdict.REFUTED, math.nan if seen.relation == "==" else ratio, note)


def decide_probability(seen: ProbabilityObservations, delta: float) -> Decision:
    """`refuted`, `consistent` or `inconclusive` for the claim that a run fails with probability at most delta.

    Refuted: the e-process reached 1 / REFUTE_LEVEL at some run, or the Clopper-Pearson lower bound at REFUTE_LEVEL
    exceeds delta; a true claim meets this with probability at most 2 REFUTE_LEVEL. Consistent: the Clopper-Pearson
    upper bound at CONFIRM_LEVEL is at most delta, undecided runs counted as failures. Else inconclusive, with about how
    many runs would decide.
    """
    runs, failures = seen.runs, int(seen.failures.sum())
    ratio = tightness(seen.observed, seen.bound)
    wealth = float(log_wealth(seen.failures, delta).max())
    lower = clopper_pearson(failures, runs, REFUTE_LEVEL)[0]
    undecided = int(seen.undecided.sum())
    upper = clopper_pearson(failures + undecided, runs, CONFIRM_LEVEL)[1]
    seen_so_far = f"{failures} failures in {runs} runs"
    if undecided:
        seen_so_far += f", {undecided} of them undecided"
    if wealth >= -math.log(REFUTE_LEVEL) or lower > delta:
        note = f"{seen_so_far}, delta = {delta:g}: e-value {_power(wealth)}, failure probability above {lower:.3g}"
        return Decision(Verdict.REFUTED, ratio, note)
    if upper <= delta:
        note = f"{seen_so_far}: failure probability at most {upper:.3g} <= {delta:g}"
        return Decision(Verdict.CONSISTENT, ratio, note)
    if undecided and clopper_pearson(failures, runs, CONFIRM_LEVEL)[1] <= delta:
        note = f"{seen_so_far}: too many of those to say that the failure probability is at most {delta:g}"
        return Decision(Verdict.INCONCLUSIVE, ratio, note)
    more = runs_to_decide(failures, runs, delta, CONFIRM_LEVEL, REFUTE_LEVEL)
    need = f"about {more} runs would decide" if more else "no number of runs would decide at this rate"
    return Decision(
        Verdict.INCONCLUSIVE, ratio, f"{seen_so_far}: failure probability in [{lower:.3g}, {upper:.3g}]; {need}"
    )


def decide_mean(seen: MeanObservations) -> Decision:
    """`refuted`, `consistent` or `inconclusive` for the claim that an expectation stays on its side of the bound.

    Refuted: the e-process against the claim reached 1 / REFUTE_LEVEL at some run, or a value is NaN. Consistent: the
    e-process against its opposite reached 1 / CONFIRM_LEVEL. A true claim is refuted with probability at most
    REFUTE_LEVEL, a false one called consistent with probability at most CONFIRM_LEVEL. The tightness is mean / bound,
    of a lower bound bound / mean.
    """
    values, upper = seen.observed, seen.relation == "<="
    if np.isnan(values).any():
        return Decision(Verdict.REFUTED, math.nan, f"the value of run {int(np.argmax(np.isnan(values)))} is NaN")
    mean, limit = float(values.mean()), seen.bound + (seen.allowance if upper else -seen.allowance)
    sides = (values.mean(keepdims=True), np.array([seen.bound]))
    ratio = tightness(*(sides if upper else sides[::-1]))
    width = seen.high - seen.low
    # In units of the range, and turned round if need be, the claim is that the mean of `unit` is at least `least`.
    unit = np.clip((seen.high - values if upper else values - seen.low) / width, 0.0, 1.0)
    least = (seen.high - limit if upper else limit - seen.low) / width
    known = f"mean {mean:.6g} of {seen.runs} runs, claimed {seen.relation} {seen.bound:.6g}"
    if not least > 0.0 and not math.isnan(least):
        return Decision(Verdict.CONSISTENT, ratio, f"{known}: no value in the range could be on the other side")
    if not least < 1.0:
        return Decision(Verdict.REFUTED, ratio, f"{known}: no value in the range could be on this side")
    against = float(log_wealth_of_mean(unit, least).max())
    if against >= -math.log(REFUTE_LEVEL):
        return Decision(Verdict.REFUTED, ratio, f"{known}: e-value {_power(against)} against it")
    wealth = log_wealth_of_mean(1.0 - unit, 1.0 - least)
    if float(wealth.max()) >= -math.log(CONFIRM_LEVEL):
        return Decision(Verdict.CONSISTENT, ratio, f"{known}: e-value {_power(float(wealth.max()))} for it")
    rates = (float(wealth[-1]) / -math.log(CONFIRM_LEVEL), against / -math.log(REFUTE_LEVEL))
    need = f"about {math.ceil(seen.runs / max(rates))} runs would decide" if max(rates) > 0.0 else "too close to tell"
    return Decision(Verdict.INCONCLUSIVE, ratio, f"{known}; {need}")


def decide_rate(seen: RateObservations, rng: np.random.SeedSequence) -> Decision:
    """`consistent` if the slope's interval lies within tolerance of the predicted exponent, `refuted` if it misses it.

    The band is [predicted - tolerance, predicted + tolerance], without its lower end for upper-bound rates. Neither
    inside nor disjoint, fewer than SLOPE_SEEDS seeds, or values without a logarithm: `inconclusive`. The tightness is
    slope / predicted.
    """
    if seen.runs < SLOPE_SEEDS:
        note = f"{seen.runs} seeds are too few for an interval; at least {SLOPE_SEEDS} are needed"
        return Decision(Verdict.INCONCLUSIVE, math.nan, note)
    try:
        slope = log_log_slope(seen.x, seen.y, rng, SLOPE_LEVEL)
    except ValueError as error:
        return Decision(Verdict.INCONCLUSIVE, math.nan, str(error))
    low = -math.inf if seen.upper else seen.predicted - seen.tolerance
    high = seen.predicted + seen.tolerance
    ratio = slope.estimate / seen.predicted if seen.predicted > 0.0 else math.nan
    band = f"at most {high:.3g}" if seen.upper else f"in [{low:.3g}, {high:.3g}]"
    note = f"slope {slope.estimate:.3f}, interval [{slope.lower:.3f}, {slope.upper:.3f}], predicted {band}"
    if low <= slope.lower and slope.upper <= high:
        return Decision(Verdict.CONSISTENT, ratio, note)
    if slope.upper < low or slope.lower > high:
        return Decision(Verdict.REFUTED, ratio, note)
    room = min(abs(slope.estimate - low), abs(slope.estimate - high))
    half = max(slope.upper - slope.estimate, slope.estimate - slope.lower)
    # The interval shrinks like 1 / sqrt(seeds).
    need = f"about {math.ceil(seen.runs * (half / room) ** 2) + 1} seeds would decide" if room > 0.0 else "on the edge"
    return Decision(Verdict.INCONCLUSIVE, ratio, f"{note}; {need}")


def _power(log_value: float) -> str:
    """exp(log_value) as a short decimal, without overflow."""
    return f"{math.exp(log_value):.3g}" if log_value < 700.0 else f"1e{log_value / math.log(10.0):.0f}"
