"""Exact probabilities in integers, and both sides of an inequality as floats with what rounding can do to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from theoryrl.theory.theorem import ExactObservations

UNIT = 2.0**-53
# Above what underflow can lose on either side: both are below 2^-1022 there and off by a few units of 2^-1074.
UNDERFLOW = 2.0**-1070


class Collector:
    """Gathers instances `probability <= factor exp(exponent)` whose ingredients are exact rationals."""

    def __init__(self) -> None:
        self.observed: list[float] = []
        self.bound: list[float] = []
        self.allowance: list[float] = []
        self.labels: list[str] = []

    def add(self, label: str, probability: Fraction, exponent: Fraction | float, factor: int = 1) -> None:
        """One instance.

        A Fraction is converted with one rounding, so the left side errs by at most u p. The exponent x errs by u |x|,
        which moves exp by a factor e^{u |x|}; exp itself is within 1 ulp <= 2 u of the true value (libm), the product
        with the factor adds u. Twice the first-order sum covers the higher orders while u |x| is small.
        """
        observed = float(probability)
        x = float(exponent)
        bound = factor * math.exp(x)
        self.observed.append(observed)
        self.bound.append(bound)
        spread = (abs(x) + 3.0) * bound if bound > 0.0 else 0.0
        self.allowance.append(2.0 * UNIT * (observed + spread) + UNDERFLOW)
        self.labels.append(label)

    def observations(self, models: tuple[str, ...] = ()) -> ExactObservations:
        """What has been gathered."""
        return ExactObservations(self.observed, self.bound, self.allowance, labels=tuple(self.labels), models=models)


def sum_weights(laws: Sequence[Sequence[int]]) -> list[int]:
    """Weights of the sum of independent variables: law i puts weight laws[i][j] on the value j."""
    total = [1]
    for law in laws:
        longer = [0] * (len(total) + len(law) - 1)
        for value, weight in enumerate(law):
            if weight:
                for old, mass in enumerate(total):
                    longer[old + value] += weight * mass
        total = longer
    return total


def moments(laws: Sequence[Sequence[int]], scale: int) -> tuple[Fraction, Fraction]:
    """Mean and variance of the sum of independent variables; law i puts weight laws[i][j] on the value j / scale."""
    mean = variance = Fraction(0)
    for law in laws:
        total = sum(law)
        first = Fraction(sum(j * weight for j, weight in enumerate(law)), total * scale)
        second = Fraction(sum(j * j * weight for j, weight in enumerate(law)), total * scale * scale)
        mean += first
        variance += second - first * first
    return mean, variance


def l1_weights(weights: Sequence[int], n: int) -> tuple[dict[int, int], int]:
    """Law of the l1 distance between the empirical distribution of n draws and the one drawn from.

    Outcome i has probability weights[i] / b, b their sum. Returns ({d: mass}, n b): the distance is d / (n b) with
    probability mass / b^n.
    """
    b = sum(weights)
    states = {(n, 0): 1}
    for index, weight in enumerate(weights):
        last = index == len(weights) - 1
        new: dict[tuple[int, int], int] = {}
        for (left, distance), mass in states.items():
            for k in (left,) if last else range(left + 1):
                key = (left - k, distance + abs(k * b - weight * n))
                new[key] = new.get(key, 0) + mass * math.comb(left, k) * weight**k
        states = new
    return {distance: mass for (_, distance), mass in states.items() if mass}, n * b


def crossing_weights(laws: Sequence[Mapping[int, int]], steps: int) -> list[list[int]]:
    """Largest chance that a walk from 0 reaches level d within r steps when the law of each step may be chosen.

    A law maps an integer step to its weight; all laws have the same total b. Entry [r][d], d >= 0, is the weight out
    of b^r: W_r(d) = b^r for d <= 0, else max over laws of sum_j weight_j W_{r-1}(d - j). The choice may depend on all
    that has happened, and the best one depends on the distance to the level alone.
    """
    b = sum(laws[0].values())
    highest = max(max(law) for law in laws)
    table = [[1] + [0] * (steps * highest)]
    for r in range(1, steps + 1):
        before, row = table[-1], [b**r]
        for d in range(1, steps * highest + 1):
            row.append(max(_average(law, before, d) for law in laws))
        table.append(row)
    return table


def _average(law: Mapping[int, int], before: Sequence[int], d: int) -> int:
    total = 0
    for step, weight in law.items():
        distance = d - step
        if distance <= 0:
            total += weight * before[0]
        elif distance < len(before):  # further away than all remaining steps together: chance 0
            total += weight * before[distance]
    return total


def random_weights(generator: np.random.Generator, size: int) -> list[int]:
    """Integer weights from 0 to 9, at least one of them positive."""
    weights = [int(weight) for weight in generator.integers(0, 10, size)]
    weights[int(generator.integers(size))] += 1
    return weights
