"""What the bounds of GLOW are computed from, checked once, and the sum itself with its two kinds of T kept apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.density_ratio.bounds.constants import (
    ErrorConstants,
    constants_at,
    require_positive,
    tuned_constants,
)
from theoryrl.density_ratio.bounds.counts import list_log_tests, mixture_log_tests, shares
from theoryrl.density_ratio.potential import harmonic, potential_bound
from theoryrl.mdp._checks import require_int
from theoryrl.online._settings import require_level

SCHEDULES = ("self_normalised", "scale_free", "paper")
# The schedule of the paper: alpha_t = 8 / gamma_t, beta_t = 36 gamma_t log(6 |F| ...) / n_t.
PAPER_C, PAPER_LEVEL, PAPER_SHARE = 8.0, 36.0, 6
LARGEST = 2**62


@dataclass(frozen=True)
class Setting:
    """Everything a bound of GLOW depends on but T and gamma; the fields are the parameters of `glow_regret_bound`."""

    coverability: Any
    n_functions: int
    delta: float
    horizon: int | None = None
    n_weights: int | None = None
    n_policies: int | None = None
    n_models: int = 1
    log_tests: float | Callable[[Any], Any] | None = None
    trajectories: int = 1
    schedule: str = "self_normalised"
    c: float = 0.25
    noise_width: float = 1.0
    residual: float = 2.0
    tuned: bool = False
    known_start: bool = False
    anytime: bool = False
    misspecification: float = 0.0
    total_reward: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "coverability", require_layers(self.coverability, self.horizon, "coverability", 1.0))
        require_int(self.n_functions, 1, "n_functions")
        require_int(self.trajectories, 1, "trajectories")
        require_level(self.delta)
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, not {self.schedule!r}")
        for name in ("c", "noise_width", "residual", "total_reward"):
            require_positive(name, getattr(self, name))
        if not 0 <= self.misspecification < math.inf:
            raise ValueError(f"misspecification must be finite and at least 0, not {self.misspecification!r}")
        if self.schedule == "paper" and not self.noise_width <= 48:
            raise ValueError(f"noise_width must be at most 48 for the level of the paper, not {self.noise_width!r}")
        given = [name for name in ("n_weights", "n_policies", "log_tests") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of n_weights, n_policies and log_tests, not {' and '.join(given) or 'none'}")

    @property
    def constants(self) -> ErrorConstants:
        """A, kappa, B at exponents 1, or at the best ones."""
        c = PAPER_C if self.schedule == "paper" else self.c
        if self.tuned:
            return tuned_constants(self.noise_width, self.residual, c)
        return constants_at(c, self.noise_width, self.residual)

    def log_level(self, rounds: Any) -> NDArray[np.float64]:
        """L_W = log(4 H / delta) + log(number of tests)."""
        if self.n_weights is not None:
            tests = list_log_tests(rounds, self.n_weights, anytime=self.anytime)
        elif self.n_policies is not None:
            tests = mixture_log_tests(rounds, self.n_policies, self.n_models, anytime=self.anytime)
        else:
            tests = np.asarray(self.log_tests(rounds) if callable(self.log_tests) else self.log_tests, np.float64)
            if not ((tests >= 0) & (tests < np.inf)).all():
                raise ValueError(f"log_tests must be finite and at least 0, not {tests!r}")
        return math.log(4 * len(self.coverability) / self.delta) + tests + np.zeros(np.shape(rounds))

    def potential(self, rounds: Any) -> NDArray[np.float64]:
        """sum_h C_h H(T / C_h)."""
        return np.asarray(potential_bound(np.asarray(rounds)[..., np.newaxis], self.coverability).sum(axis=-1))

    def price(self, rounds: Any) -> NDArray[np.float64]:
        """What multiplies gamma T / K, over all layers: H B L, or its counterpart of the scale-free test."""
        used = self.constants
        tests = self.log_level(rounds)
        level = tests + math.log(self.n_functions)
        noise = self.noise_width**2 / (8 * used.c)
        total = used.level * level
        if self.schedule == "scale_free":
            # The penalty's c counts once more, and the noise is charged at L'' instead of L.
            mixed = tests + 0.5 * np.log1p(self.trajectories * (rounds - 1))
            total = total + used.c + noise * (mixed - level)
        elif self.schedule == "paper":
            # beta_t in the place of b^2 gamma_t L_W / (8 c n_t).
            total = total - noise * level + PAPER_LEVEL * (level + math.log(PAPER_SHARE / 4))
        return np.asarray(len(self.coverability) * total)

    def slope(self, rounds: Any) -> NDArray[np.float64]:
        """gamma* = sqrt(kappa K sum_h C_h H(T / C_h) / (T price))."""
        ratio = self.constants.clipped * self.trajectories * self.potential(rounds) / (rounds * self.price(rounds))
        return np.asarray(np.sqrt(ratio))

    def per_round(self, rounds: Any, planned: Any, gamma: float | None) -> NDArray[np.float64]:
        """The bound over T, in units of the total reward: it falls with T = `rounds` and grows with `planned`.

        The levels are those of `planned` rounds, and gamma without a value is gamma*.
        """
        used, layers = self.constants, len(self.coverability)
        potential = self.potential(rounds) / rounds
        price = self.price(planned) / self.trajectories
        if gamma is None:
            main = 2 * np.sqrt(used.clipped * potential * price)
        else:
            main = used.clipped * potential / gamma + gamma * price
        start = 0.0
        if not self.known_start:
            union = shares(planned) if self.anytime else np.log(planned)
            log = math.log(4 * self.n_functions / self.delta) + union
            start = 2 * np.sqrt(2 * log / (self.trajectories * rounds))
        wrong = layers * self.misspecification * (2 * used.moment + 2 + harmonic(rounds) / rounds)
        return np.asarray(1 / rounds + start + potential + main + wrong)

    def regret(
        self, rounds: NDArray[np.float64], planned: NDArray[np.float64], gamma: float | None
    ) -> NDArray[np.float64]:
        """The bound on sum_t (J* - J(pi_t)) in units of reward, never more than the trivial one."""
        if gamma is None and not np.array_equal(rounds, planned):
            chosen = self.slope(planned)
            bound = np.array(
                [self.per_round(t, p, float(g)) for t, p, g in zip(rounds.flat, planned.flat, chosen.flat, strict=True)]
            ).reshape(rounds.shape)
        else:
            bound = self.per_round(rounds, planned, gamma)
        return np.asarray(self.total_reward * rounds * np.fmin(1.0, bound))


def require_layers(values: ArrayLike, horizon: int | None, name: str, least: float) -> NDArray[np.float64]:
    """One number per layer, finite and at least `least`; one number stands for `horizon` layers."""
    table = np.asarray(values, np.float64)
    if table.ndim == 0:
        if horizon is None:
            raise ValueError(f"horizon must be given with one number for {name}")
        table = np.full(require_int(horizon, 1, "horizon"), float(table))
    if table.ndim != 1 or table.size == 0 or (horizon is not None and table.size != horizon):
        raise ValueError(f"{name} has shape {np.shape(values)}, not (H,)" + (f" with H = {horizon}" if horizon else ""))
    if not ((table >= least - 1e-9) & (table < np.inf)).all():
        raise ValueError(f"{name} must be finite and at least {least:g}, not {values!r}")
    return np.maximum(table, least)


def least_rounds(per_round: Callable[[float, float], float], epsilon: float) -> int | None:
    """The least T with per_round(T, T) <= epsilon, of a function that falls in its first argument, grows in its second.

    A range of T without a solution is left out once per_round(largest, least) > epsilon shows that it has none, else
    halved: no monotony of the bound itself is needed. None if there is no T up to 2^62.
    """
    waiting = [(1, LARGEST)]
    while waiting:
        low, high = waiting.pop()
        if per_round(float(high), float(low)) > epsilon:
            continue
        if low == high:
            return low
        middle = max(low, math.isqrt(low * high)) if high > 2 * low else (low + high) // 2
        waiting += [(middle + 1, high), (low, middle)]
    return None
