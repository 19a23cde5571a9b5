"""The pigeonhole sum over visits, checked at its worst trajectories (proof: docs/theory/concentration.md)."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from theoryrl.theory._exact import UNIT
from theoryrl.theory.theorem import Control, ExactObservations, Progress, Proof, Theorem


def visits_bound(items: Any, steps: Any) -> Any:
    """2 sqrt(X T)."""
    return 2.0 * np.sqrt(np.multiply(items, steps))


def visit_sum(trajectory: Sequence[int], block: int = 1) -> float:
    """sum_t 1 / sqrt(max(1, N_t(x_t))), N_t(x) the visits to x before t (before t's block of `block` steps)."""
    frozen: dict[int, int] = {}
    counts: dict[int, int] = {}
    terms = []
    for t, x in enumerate(trajectory):
        if t % block == 0:
            frozen = dict(counts)
        terms.append(1.0 / math.sqrt(max(1, frozen.get(x, 0))))
        counts[x] = counts.get(x, 0) + 1
    return math.fsum(terms)


def largest_sum(items: int, steps: int) -> float:
    """The largest visit sum over all trajectories of `steps` visits to `items` items.

    n visits to one item give g(n) = sum_{i < n} 1 / sqrt(max(1, i)), whose increments do not grow; the most comes from
    visits spread as evenly as possible.
    """
    often, rest = divmod(steps, items)
    terms = [1.0 / math.sqrt(max(1, i)) for i in range(often)]
    each = math.fsum(terms)
    return math.fsum(
        [(items - rest) * each, rest * (each + 1.0 / math.sqrt(max(1, often)))] if rest else [items * each]
    )


_GRID = [(x, t) for x in (1, 2, 3, 7, 20, 1000) for t in (1, 2, 3, 10, 100, 4000)]


def _trajectories(rng: np.random.SeedSequence, runs: int) -> Iterator[tuple[str, int, list[int]]]:
    """(label, number of items, trajectory): uneven visits in random order."""
    generator = np.random.default_rng(rng)
    for index in range(runs):
        items, steps = int(generator.integers(1, 21)), int(generator.integers(1, 201))
        law = generator.dirichlet(np.full(items, 10.0 ** generator.uniform(-1.0, 1.0)))
        path = np.minimum(np.searchsorted(np.cumsum(law), generator.random(steps)), items - 1)
        yield f"random {index}: X={items}, T={steps}", items, path.tolist()


def visits(
    model: Any,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    constant: float = 2.0,
    items_forgotten: bool = False,
    block: int = 1,
) -> ExactObservations:
    """The visit sum against constant sqrt(X T): its exact maximum on a grid of (X, T), then random trajectories.

    With a model X is its number of state-action pairs. `items_forgotten` puts 1 for X in the bound; `block` freezes the
    counts within blocks of so many steps.
    """
    grid = _GRID
    if model is not None:
        pairs = model.n_states * model.n_actions
        grid = [(pairs, factor * pairs) for factor in (1, 2, 10, 1000)] + [(pairs, 1)]
    labels, observed, size = [], [], []
    if block == 1:
        for items, steps in grid:
            labels.append(f"worst trajectory: X={items}, T={steps}")
            observed.append(largest_sum(items, steps))
            size.append((1 if items_forgotten else items) * steps)
    for label, items, path in _trajectories(rng, runs):
        labels.append(label)
        observed.append(visit_sum(path, block))
        size.append((1 if items_forgotten else items) * len(path))
    left = np.array(observed)
    bound = constant * np.sqrt(np.array(size, dtype=np.float64))
    # Left: two roundings in a term, one in its sum, three more in largest_sum; right: a root and a product.
    allowance = 7.0 * UNIT * left + 3.0 * UNIT * bound
    models = (model.name or repr(model),) if model is not None else ()
    return ExactObservations(left, bound, allowance, labels=tuple(labels), models=models)


THEOREMS: tuple[Theorem, ...] = (
    Theorem(
        key="pigeonhole.visits",
        family="concentration",
        title="Pigeonhole bound on a sum over visits",
        statement=(
            r"Let $x_1, \dots, x_T$ be any sequence in a set of $X \ge 1$ items, $T \ge 1$, and "
            r"$N_t(x) = |\{i < t : x_i = x\}|$ the number of visits to $x$ before $t$. Then "
            r"$$\sum_{t=1}^T \frac{1}{\sqrt{\max(1, N_t(x_t))}} \le 2 \sqrt{X T}.$$"
            "\n\nWith a model, $X$ is its number of state-action pairs."
        ),
        source="derived here: docs/theory/concentration.md#pigeonhole",
        claim="exact",
        expected="verified",
        bound=visits_bound,
        protocol=visits,
        controls=(
            Control("constant-1.9", "1.9 sqrt(X T): 2 is sharp", functools.partial(visits, constant=1.9)),
            Control("items-forgotten", "2 sqrt(T): X left out", functools.partial(visits, items_forgotten=True)),
            Control(
                "frozen-counts",
                "counts updated only every 20 steps, as at the end of an episode",
                functools.partial(visits, block=20),
            ),
        ),
        proof=Proof("written", "docs/theory/concentration.md#pigeonhole"),
        default_runs=100,
        accepts="any",
    ),
)
