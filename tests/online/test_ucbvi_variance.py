"""The variance in the Bernstein bonus, which rules only once a pair has been visited thousands of times."""

from __future__ import annotations

import math

import numpy as np

from theoryrl.online import UCBVI, Problem
from theoryrl.online.verbs import observe, plan


def test_variance_rules_once_samples_are_many():
    n, delta = 20_000, 0.05
    state = UCBVI(delta, "bernstein").init(Problem(2, 1, 2, 0.0, 1.0, False, np.ones((2, 1), bool)))
    for i in range(n):
        observe(state, 0, 0, 0, 0.0, i % 2)
        observe(state, 1, i % 2, 0, float(i % 2), 0)
    plan(state, 0)
    assert not plan(state, 1)  # nothing was seen in between: Q must not fall a second time

    def log(visits):
        return math.log(2 * 5 * 2 * 1 * 2 * visits * (visits + 1) / delta)

    low = 14 * log(n / 2) / (3 * (n / 2))  # the reward's bonus where every reward was 0; where every one was 1, the cap
    assert np.allclose(state.value[1], [low, 1.0], rtol=1e-12, atol=0)
    root = 10 / 3 * math.sqrt(((1 - low) / 2) ** 2 * log(n) / n)
    assert root > 35 / 3 * log(n) / n
    expected = (low + 1) / 2 + root + 14 * log(n) / (3 * n)
    assert expected < 2
    assert abs(state.q[0, 0, 0] - expected) <= 1e-12
