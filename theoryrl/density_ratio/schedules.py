"""The schedules of GLOW: clipping levels gamma_t, penalties alpha_t, thresholds beta_t.

With gamma_t = gamma t, n = K (t - 1) and L_W = log(4 H / delta) + log(number of tests):

    self_normalised   alpha_t = c / gamma_t,  beta_t = b^2 gamma_t L_W / (8 c n)
    paper             alpha_t = 8 / gamma_t,  beta_t = 36 gamma_t log(6 |F| |W| T H / delta) / n
    scale_free        no alpha; the threshold grows with P, the mean square of the clipped weight:
                      b sqrt((P + gamma_t^2 / n) (L_W + (1/2) log(1 + n P / gamma_t^2)) / (2 n))

The first and the last are proved on page GLOW. The scale-free one comes from a normal mixture over alpha; the plain
b sqrt(L_W P / (2 n)), the least of the self-normalised thresholds over all alpha, does not hold when the data decide P.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

import math

from theoryrl._jit import kernel

SELF_NORMALISED, PAPER, SCALE_FREE = 0, 1, 2
SCHEDULES = {"self_normalised": SELF_NORMALISED, "paper": PAPER, "scale_free": SCALE_FREE}


@kernel("strict")
def levels(schedule, t, n, gamma, c, width, log_level):
    """gamma_t, alpha_t and beta_t of round t with n > 0 tuples a layer; scale-free: gamma_t, 0 and L_W."""
    ceiling = gamma * t
    if schedule == SELF_NORMALISED:
        return ceiling, c / ceiling, width * width * ceiling * log_level / (8.0 * c * n)
    if schedule == PAPER:
        return ceiling, 8.0 / ceiling, 36.0 * ceiling * log_level / n
    return ceiling, 0.0, log_level


@kernel("strict")
def threshold(schedule, penalty, n, ceiling, alpha, beta, width, scale):
    """What the mean weighted residual may be: alpha penalty + scale beta, or the scale-free one of a normal mixture.

    scale b sqrt((penalty + gamma_t^2 / n) (L_W + (1/2) log(1 + n penalty / gamma_t^2)) / (2 n))
    """
    if schedule != SCALE_FREE:
        return alpha * penalty + scale * beta
    floor = ceiling * ceiling
    inside = (penalty + floor / n) * (beta + 0.5 * math.log(1.0 + n * penalty / floor)) / (2.0 * n)
    return scale * width * math.sqrt(inside)


def paper_slope(iterations: int, coverability: float, log_level: float, trajectories: int = 1) -> float:
    """The slope gamma of Theorem 3.1: min(1, sqrt(K C_cov / (T log(6 |F| |W| T H / delta)))).

    Parameters
    ----------
    iterations, trajectories : int
        T and K.
    coverability : float
        C_cov, the largest over the layers.
    log_level : float
        The logarithm.
    """
    return min(1.0, math.sqrt(trajectories * coverability / (iterations * log_level)))
