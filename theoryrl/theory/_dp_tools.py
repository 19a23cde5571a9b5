"""What the dp.* protocols share: instances, policies, enclosed values.

Every quantity is a float with a radius that is derived, never tuned (docs/theory/dynamic_programming.md, "Rounding").
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp.certify import Certificate, certify
from theoryrl.mdp.model import DiscountedMDP, FiniteHorizonMDP
from theoryrl.mdp.random import random_mdp
from theoryrl.mdp.rounding import SAFE, U
from theoryrl.theory.theorem import ExactObservations

DISCOUNT = 0.9
ENUMERATED = 1024
# Enclosures are accepted up to this width over the largest possible value; rows off 1 by 1e-9 need about 1e-9 H.
NARROW = 1e-5

Model = FiniteHorizonMDP | DiscountedMDP

PAGE = "docs/theory/dynamic_programming.md"
# What the entries on finite-horizon models share.
FINITE: dict[str, Any] = {
    "family": "dp",
    "claim": "exact",
    "expected": "verified",
    "accepts": "finite-horizon",
    "default_runs": 4,
}
NOTATION = (
    r"$M = (S, A, H, P, r, \mu)$ is a finite-horizon MDP with layers $h = 0, \dots, H - 1$, $V^\pi_h(s)$ the "
    r"expected reward of policy $\pi$ from state $s$ at layer $h$ on, $J(\pi) = \sum_s \mu(s) V^\pi_0(s)$."
)


class Enclosed(NamedTuple):
    """The truth lies within `radius` of `mid`, entry by entry."""

    mid: NDArray[np.float64]
    radius: NDArray[np.float64]


class Instances:
    """Instances of a claim as they come."""

    def __init__(self, models: Sequence[str]) -> None:
        self.models = tuple(models)
        self.rows: list[tuple[str, float, float, float]] = []

    def add(self, label: str, observed: float, bound: float, allowance: float) -> None:
        """One instance; the allowance also covers the subtraction of its sides and its own roundings."""
        slack = (float(allowance) + 4 * U * (abs(observed) + abs(bound))) * SAFE + 1e-300
        self.rows.append((label, float(observed), float(bound), slack))

    def observations(self, relation: Any = "<=") -> ExactObservations:
        """All of them, as a protocol returns them."""
        labels, observed, bound, allowance = zip(*self.rows, strict=True)
        return ExactObservations(observed, bound, allowance, labels, relation, self.models)


def value_of(mdp: Model, policy: Any = None) -> Enclosed:
    """V^pi, or V* without a policy, with its radius."""
    certificate = _certificate(mdp, policy)
    low, high = certificate.lower, certificate.upper
    mid = 0.5 * low + 0.5 * high
    return Enclosed(mid, np.nextafter(np.maximum(high - mid, mid - low), math.inf) + U * np.abs(mid))


def at_start(mdp: Model, policy: Any = None) -> tuple[float, float]:
    """The value at the initial distribution, with its radius."""
    certificate = _certificate(mdp, policy)
    mid = 0.5 * certificate.initial_lower + 0.5 * certificate.initial_upper
    return mid, math.nextafter(max(certificate.initial_upper - mid, mid - certificate.initial_lower), math.inf)


def _certificate(mdp: Model, policy: Any) -> Certificate:
    """A certificate that is narrow: a wide one would make every claim hold."""
    certificate = certify(mdp, policy=policy)
    steps = mdp.horizon if isinstance(mdp, FiniteHorizonMDP) else 1.0 / (1.0 - mdp.discount)
    width, scale = float(np.max(certificate.upper - certificate.lower)), steps * float(np.abs(mdp.reward).max())
    if not width <= NARROW * scale + 1e-300:
        raise ValueError(
            f"the enclosure has width {width:.3g} at values up to {scale:.3g}: too wide to check a theorem"
        )
    return certificate


def backup(mdp: Model, h: int, value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Action values r_h + [gamma] P_h value, shape (S, A); -inf where forbidden."""
    if mdp.is_sparse:
        rows = mdp.transition.to_scipy()
        future = (rows[h] if mdp.transition.staged else rows) @ value
    else:
        with np.errstate(invalid="ignore"):  # forbidden rows may hold anything
            future = mdp.transition_layers[h % len(mdp.transition_layers)] @ value
    reward = mdp.reward_layers[h % len(mdp.reward_layers)]
    discount = mdp.discount if isinstance(mdp, DiscountedMDP) else 1.0
    return np.where(mdp.action_mask, reward + discount * future.reshape(reward.shape), -np.inf)


# ---- policies


def policies(mdp: FiniteHorizonMDP, rng: np.random.Generator, count: int) -> Iterator[tuple[str, NDArray]]:
    """All deterministic policies of a tiny model, else `count` random ones, half deterministic and half stochastic."""
    allowed = [np.flatnonzero(row) for row in mdp.action_mask]
    number = math.prod(len(row) for row in allowed) ** mdp.horizon if mdp.horizon * mdp.n_states <= 12 else math.inf
    if number <= ENUMERATED:
        for index, choice in enumerate(itertools.product(*(allowed * mdp.horizon))):
            yield f"policy {index} of {number}", np.reshape(choice, (mdp.horizon, mdp.n_states))
        return
    for index in range(count):
        yield (f"random policy {index}", random_policy(mdp, rng, stochastic=index % 2 == 1))


def random_policy(mdp: Model, rng: np.random.Generator, *, stochastic: bool) -> NDArray:
    """A random policy; probabilities are multiples of 1/1024, so that they sum to 1 exactly."""
    layers = mdp.horizon if isinstance(mdp, FiniteHorizonMDP) else 1
    weights = rng.random((layers, mdp.n_states, mdp.n_actions)) * mdp.action_mask
    if stochastic:
        shares = np.floor(weights / weights.sum(axis=-1, keepdims=True) * 1024)
        np.put_along_axis(shares, np.argmax(weights, axis=-1)[..., np.newaxis], 0.0, axis=-1)
        rest = 1024 - shares.sum(axis=-1, keepdims=True)
        np.put_along_axis(shares, np.argmax(weights, axis=-1)[..., np.newaxis], rest, axis=-1)
        table = shares / 1024
    else:
        table = np.argmax(weights, axis=-1)
    return table if isinstance(mdp, FiniteHorizonMDP) else table[0]


# ---- models


def finite_instances(rng: np.random.Generator, runs: int) -> Iterator[FiniteHorizonMDP]:
    """Small models of every kind: tiny, stationary, time-varying, sparse, with ties, masked with negative rewards."""
    for index in range(runs):
        yield random_mdp(2, 2, 3, rng, staged=index % 2 == 1).renamed(f"tiny {index}")
        sizes = int(rng.integers(3, 9)), int(rng.integers(2, 5)), int(rng.integers(2, 9))
        yield random_mdp(*sizes, rng).renamed(f"stationary {index}")
        yield random_mdp(*sizes, rng, staged=True).renamed(f"time-varying {index}")
        sparse = random_mdp(*sizes, rng, branching=2, sparse=True)
        yield sparse.with_initial(rng.dirichlet(np.ones(sizes[0]))).renamed(f"sparse {index}")
        yield sparse.with_reward(np.round(sparse.reward)).renamed(f"ties {index}")
        mask = rng.random(sparse.reward.shape) < 0.6
        mask[np.arange(sizes[0]), rng.integers(0, sizes[1], sizes[0])] = True
        yield FiniteHorizonMDP(
            sparse.transition,
            10 * sparse.reward - 9,
            horizon=sizes[2],
            action_mask=mask,
            name=f"masked, negative {index}",
        )


def discounted_instances(rng: np.random.Generator, runs: int) -> Iterator[DiscountedMDP]:
    """The stationary ones of `finite_instances` at several discounts."""
    discounts = itertools.cycle([0.9, 0.5, 0.99, 0.0])
    for mdp in finite_instances(rng, runs):
        if mdp.stationary:
            discount = next(discounts)
            yield mdp.with_discount(discount).renamed(f"{mdp.name}, discount {discount:g}")


def finite_models(model: FiniteHorizonMDP | None, rng: np.random.Generator, runs: int) -> list[FiniteHorizonMDP]:
    """The user's model alone, or the default instances."""
    return list(finite_instances(rng, runs)) if model is None else [_in_means(model)]


def discounted_models(model: Model | None, rng: np.random.Generator, runs: int) -> list[DiscountedMDP]:
    """The same for discounted theorems; a finite-horizon model gets discount 0.9 and says so in its name."""
    if model is None:
        return list(discounted_instances(rng, runs))
    model = _in_means(model)
    if isinstance(model, DiscountedMDP):
        return [model]
    return [model.with_discount(DISCOUNT).renamed(f"{model.name or repr(model)} with discount {DISCOUNT:g}")]


def _in_means(model: Any) -> Any:
    """The model with its stored mean rewards: all these theorems are about means."""
    return model if model.outcome_reward is None else model.with_reward(model.reward)


def names(models: Sequence[Model], given: Any) -> tuple[str, ...]:
    """Names for the report: of the model that was run, or one line for the default instances."""
    if given is None:
        return (f"{len(models)} random models",)
    return tuple(model.name or repr(model) for model in models)


def is_stationary(model: Any) -> str | None:
    """Assumption of the discounted theorems."""
    return None if model.stationary else "the model is time-varying and has no discounted counterpart"
