"""Hoeffding, Bernstein, Weissman, Azuma against exact probabilities (proofs: docs/theory/concentration.md)."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from theoryrl.theory._exact import Collector, crossing_weights, l1_weights, moments, random_weights, sum_weights
from theoryrl.theory.theorem import Assumption, Control, ExactObservations, Progress, Proof, Theorem

PAGE = "docs/theory/concentration.md"
HALF, THIRD = Fraction(1, 2), Fraction(1, 3)

# ---- sums of independent variables


def hoeffding_bound(n: Any, t: Any) -> Any:
    """exp(-2 n t^2): the chance that the mean of n independent variables in [0, 1] exceeds its expectation by t."""
    return np.exp(-2.0 * n * np.square(t))


def bernstein_bound(n: Any, t: Any, variance: Any) -> Any:
    """exp(-n t^2 / (2 (v + t/3))): as Hoeffding's, for variables of average variance v, n t > 0."""
    return np.exp(-n * np.square(t) / (2.0 * (variance + t / 3.0)))


class _Sum(NamedTuple):
    """Independent variables; variable i puts weight laws[i][j] on the value j / scale."""

    label: str
    laws: list[list[int]]
    scale: int


def _sums(rng: np.random.SeedSequence, runs: int) -> Iterator[_Sum]:
    """The grid (n = 1 to 40, p from 0 to 1 with values next to the ends, laws that differ), then random ones."""
    for n in (1, 2, 3, 10, 40):
        for p, q in ((0, 1), (1, 1000), (1, 10), (1, 3), (1, 2), (9, 10), (999, 1000), (1, 1)):
            yield _Sum(f"n={n}, Bernoulli({p}/{q})", [[q - p, p]] * n, 1)
    for n in (1, 5, 20):
        for law in ([1, 2, 1], [1, 0, 1], [97, 1, 2]):
            yield _Sum(f"n={n}, weights {law} on 0, 1/2, 1", [law] * n, 2)
    yield _Sum("n=10, Bernoulli(i/11)", [[11 - i, i] for i in range(1, 11)], 1)
    generator = np.random.default_rng(rng)
    for index in range(runs):
        n, scale = int(generator.integers(1, 13)), int(generator.integers(1, 4))
        yield _Sum(f"random {index}: n={n}", [random_weights(generator, scale + 1) for _ in range(n)], scale)


def hoeffding(
    model: Any,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    rate: int = 2,
    span: int = 1,
    two_sided: bool = False,
) -> ExactObservations:
    """P(mean - E mean >= t) against exp(-rate n t^2), at every t that the law can reach.

    `span` stretches the variables to [0, span] without telling the bound; `two_sided` puts |mean - E mean| on the left.
    """
    collector = Collector()
    for case in _sums(rng, runs):
        n, weights = len(case.laws), sum_weights(case.laws)
        mean, _ = moments(case.laws, case.scale)
        total = sum(weights)
        for k, tail in _upper_tails(weights):
            t = (Fraction(k, case.scale) - mean) / n
            if t > 0:
                if two_sided:
                    tail += sum(weights[: _last_at_most(2 * mean * case.scale - k) + 1])
                collector.add(
                    f"{case.label}, t={float(span * t):.4g}", Fraction(tail, total), -rate * n * (span * t) ** 2
                )
    return collector.observations()


def bernstein(
    model: Any,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    rate: Fraction = HALF,
    linear: Fraction = THIRD,
) -> ExactObservations:
    """P(mean - E mean >= t) against exp(-rate n t^2 / (v + linear t)), at every t that the law can reach."""
    collector = Collector()
    for case in _sums(rng, runs):
        n, weights = len(case.laws), sum_weights(case.laws)
        mean, variance = moments(case.laws, case.scale)
        total = sum(weights)
        for k, tail in _upper_tails(weights):
            t = (Fraction(k, case.scale) - mean) / n
            scale = variance / n + linear * t
            if t > 0:
                exponent = -rate * n * t**2 / scale if scale else -math.inf
                collector.add(f"{case.label}, t={float(t):.4g}", Fraction(tail, total), exponent)
    return collector.observations()


def _upper_tails(weights: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(k, weight of the values >= k) from the highest value down."""
    tail = 0
    for k in range(len(weights) - 1, -1, -1):
        tail += weights[k]
        yield k, tail


def _last_at_most(value: Fraction) -> int:
    """The largest integer <= value, or -1 if that is negative."""
    return max(math.floor(value), -1)


# ---- empirical distributions


def weissman_bound(n: Any, t: Any, outcomes: Any) -> Any:
    """(2^S - 2) exp(-n t^2 / 2): the chance that n draws from S outcomes miss their law by t in l1."""
    return (2.0**outcomes - 2.0) * np.exp(-n * np.square(t) / 2.0)


_UNIFORM = ((2, 1), (2, 2), (2, 40), (3, 1), (3, 10), (4, 1), (4, 6), (5, 5), (16, 3))
_SKEWED: tuple[tuple[int, ...], ...] = ((1, 999), (1, 9), (0, 1, 1), (1, 1, 98), (1, 2, 3, 4))
# Of a model: so many distinct rows, of so many successors (beyond that the bound says nothing for the n in question),
# with an n for which no more than so many count vectors are possible.
_MOST_ROWS = 30
_MOST_OUTCOMES = 100
_MOST_COUNTS = 3000


def _draws_of_rows(model: Any) -> Iterator[tuple[str, list[int], int]]:
    """(label, integer weights, n) from the random rows of a model."""
    for label, weights in _model_rows(model):
        for n in (1, 2, 4, 8, 16):
            if n == 1 or math.comb(n + len(weights) - 1, n) <= _MOST_COUNTS:
                yield f"{label}, n={n}", weights, n


def _draws(rng: np.random.SeedSequence, runs: int) -> Iterator[tuple[str, list[int], int]]:
    """(label, integer weights, n): a grid, then random laws."""
    for size, n in _UNIFORM:
        yield f"uniform on {size}, n={n}", [1] * size, n
    for skewed in _SKEWED:
        for n in (1, 2, 5, 10):
            yield f"weights {skewed}, n={n}", list(skewed), n
    generator = np.random.default_rng(rng)
    for index in range(runs):
        size, n = int(generator.integers(2, 5)), int(generator.integers(1, 7))
        yield f"random {index}: S={size}, n={n}", random_weights(generator, size), n


def _model_rows(model: Any) -> Iterator[tuple[str, list[int]]]:
    """Positive weights of the model's random rows as integers, each distinct multiset once; a row is w / sum(w)."""
    seen: set[tuple[float, ...]] = set()
    pairs = model.n_states * model.n_actions
    sparse = model.is_sparse
    rows = model.transition if sparse else model.transition.reshape(-1, model.n_states)
    for row in range(rows.n_rows if sparse else len(rows)):
        state, action = divmod(row % pairs, model.n_actions)
        if not model.action_mask[state, action]:
            continue
        values = rows.data[slice(*rows.indptr[row : row + 2])] if sparse else rows[row]
        key = tuple(sorted(float(value) for value in values[values > 0]))
        if 2 <= len(key) <= _MOST_OUTCOMES and key not in seen:
            seen.add(key)
            exact = [Fraction(value) for value in key]
            common = math.lcm(*(value.denominator for value in exact))
            layer = f"h={row // pairs}, " if row >= pairs or model.staged_transition else ""
            yield f"row {layer}s={state}, a={action}", [int(value * common) for value in exact]
            if len(seen) == _MOST_ROWS:
                return


def weissman(
    model: Any,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    rate: Fraction = HALF,
    union: str = "subsets",
) -> ExactObservations:
    """P(|p_n - p|_1 >= t) against factor exp(-rate n t^2), at every t that the law can reach.

    `union`: "subsets" for the factor 2^S - 2, "states" for 2 S, "none" for 1. The laws are the model's random rows;
    without a model, or without such rows, a built-in grid.
    """
    collector = Collector()
    rows = list(_draws_of_rows(model)) if model is not None else []
    for label, weights, n in rows or _draws(rng, runs):
        size = len(weights)
        factor = {"subsets": 2**size - 2, "states": 2 * size, "none": 1}[union]
        masses, denominator = l1_weights(weights, n)
        total, tail = sum(weights) ** n, 0
        for distance in sorted(masses, reverse=True):
            tail += masses[distance]
            t = Fraction(distance, denominator)
            if t > 0:
                collector.add(f"{label}, t={float(t):.4g}", Fraction(tail, total), -rate * n * t**2, factor)
    if model is None:
        return collector.observations()
    return collector.observations((model.name or repr(model),) if rows else ("built-in laws",))


# ---- martingales


def azuma_bound(n: Any, t: Any, c: Any = 1.0) -> Any:
    """exp(-t^2 / (2 n c^2)): the chance that a martingale with steps within c reaches t by time n."""
    return np.exp(-np.square(t) / (2.0 * n * np.square(c)))


class _Walk(NamedTuple):
    """Laws among which a player chooses every step; all of mean 0 and the same total weight, steps within c."""

    label: str
    laws: tuple[Mapping[int, int], ...]
    c: Fraction
    steps: int


_WALKS = (
    _Walk("simple", ({1: 1, -1: 1},), Fraction(1), 60),
    _Walk("lazy", ({1: 1, 0: 2, -1: 1},), Fraction(1), 40),
    _Walk("skewed up", ({2: 1, -1: 2},), Fraction(2), 30),
    _Walk("skewed down", ({1: 2, -2: 1},), Fraction(2), 30),
    _Walk("chosen", ({0: 6}, {1: 3, -1: 3}, {2: 3, -2: 3}, {2: 2, -1: 4}, {1: 4, -2: 2}), Fraction(2), 30),
)
_DRIFT = (_Walk("drift", ({1: 3, -1: 2},), Fraction(1), 60),)
# Steps 9 and -1 with E|step| = 9/5.
_ON_AVERAGE = (_Walk("rare jumps", ({9: 1, -1: 9},), Fraction(9, 5), 10),)


def _random_walks(rng: np.random.SeedSequence, runs: int) -> Iterator[_Walk]:
    generator = np.random.default_rng(rng)
    for index in range(runs):
        up, down = (int(step) for step in generator.integers(1, 5, 2))
        laws = ({up: down, -down: up}, {0: up + down})
        yield _Walk(f"random {index}: +{up}, -{down}", laws, Fraction(max(up, down)), int(generator.integers(1, 9)))


def azuma(
    model: Any,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    rate: Fraction = HALF,
    walks: tuple[_Walk, ...] | None = None,
) -> ExactObservations:
    """Largest P(max_{i <= n} M_i >= t) against exp(-rate t^2 / (n c^2)), at every level t within reach."""
    collector = Collector()
    for walk in walks if walks is not None else (*_WALKS, *_random_walks(rng, runs)):
        table = crossing_weights(walk.laws, walk.steps)
        b, highest = sum(walk.laws[0].values()), max(max(law) for law in walk.laws)
        for n in sorted({n for n in (1, 2, 3, 5, 10, 20) if n < walk.steps} | {walk.steps}):
            for t in range(1, n * highest + 1):
                exponent = -rate * t**2 / (n * walk.c**2)
                collector.add(f"{walk.label}, n={n}, t={t}", Fraction(table[n][t], b**n), exponent)
    return collector.observations()


# ---- entries

THEOREMS: tuple[Theorem, ...] = (
    Theorem(
        key="concentration.hoeffding",
        family="concentration",
        title="Hoeffding's inequality",
        statement=(
            r"Let $X_1, \dots, X_n$ be independent with values in $[0, 1]$, $n \ge 1$, and "
            r"$\bar X = \frac1n \sum_{i=1}^n X_i$. For every $t > 0$: "
            r"$$P(\bar X - E \bar X \ge t) \le \exp(-2 n t^2).$$"
        ),
        source="Hoeffding (1963), Theorem 1",
        claim="exact",
        expected="verified",
        assumptions=(
            Assumption("independent", "the variables are independent"),
            Assumption("bounded", "every variable has values in [0, 1]"),
        ),
        bound=hoeffding_bound,
        protocol=hoeffding,
        controls=(
            Control("exponent-4", "exp(-4 n t^2): the constant doubled", functools.partial(hoeffding, rate=4)),
            Control("range", "values in [0, 2], the range left out of the bound", functools.partial(hoeffding, span=2)),
            Control(
                "two-sided",
                "|mean - E mean| on the left, factor 2 missing",
                functools.partial(hoeffding, two_sided=True),
            ),
        ),
        proof=Proof("written", f"{PAGE}#hoeffding"),
        default_runs=100,
    ),
    Theorem(
        key="concentration.bernstein",
        family="concentration",
        title="Bernstein's inequality",
        statement=(
            r"Let $X_1, \dots, X_n$ be independent with values in $[0, 1]$, $n \ge 1$, "
            r"$\bar X = \frac1n \sum_{i=1}^n X_i$ and $v = \frac1n \sum_{i=1}^n \mathrm{Var}(X_i)$. For every $t > 0$: "
            r"$$P(\bar X - E \bar X \ge t) \le \exp\Bigl(-\frac{n t^2}{2 (v + t/3)}\Bigr).$$"
        ),
        source="Bernstein (1946); Boucheron, Lugosi and Massart (2013), Corollary 2.11",
        claim="exact",
        expected="verified",
        assumptions=(
            Assumption("independent", "the variables are independent"),
            Assumption("bounded", "every variable has values in [0, 1]"),
        ),
        bound=bernstein_bound,
        protocol=bernstein,
        controls=(
            Control(
                "no-linear-term",
                "exp(-n t^2 / (2 v)): the Gaussian tail alone",
                functools.partial(bernstein, linear=Fraction(0)),
            ),
            Control(
                "factor-2",
                "exp(-n t^2 / (v + t/3)): the 2 lost in the denominator",
                functools.partial(bernstein, rate=Fraction(1)),
            ),
        ),
        proof=Proof("written", f"{PAGE}#bernstein"),
        default_runs=100,
    ),
    Theorem(
        key="concentration.weissman",
        family="concentration",
        title="Weissman's inequality for the l1 distance of an empirical distribution",
        statement=(
            r"Let $p$ be a distribution on $S \ge 2$ outcomes and $p_n$ the empirical distribution of $n \ge 1$ "
            r"independent draws from it. For every $t > 0$: "
            r"$$P(\|p_n - p\|_1 \ge t) \le (2^S - 2) \exp(-n t^2 / 2).$$"
            "\n\nWith a model, $p$ runs through its distinct random rows and $S$ is the number of their successors."
        ),
        source="Weissman, Ordentlich, Seroussi, Verdu and Weinberger (2003), Theorem 2.1",
        claim="exact",
        expected="verified",
        assumptions=(Assumption("independent", "the draws are independent"),),
        bound=weissman_bound,
        protocol=weissman,
        controls=(
            Control("no-union", "the factor 2^S - 2 left out", functools.partial(weissman, union="none")),
            Control(
                "union-over-states",
                "2 S in place of 2^S - 2: a union over states, not over sets of states",
                functools.partial(weissman, union="states"),
            ),
            Control(
                "factor-2", "exp(-n t^2): the 2 lost in the exponent", functools.partial(weissman, rate=Fraction(1))
            ),
        ),
        proof=Proof("written", f"{PAGE}#weissman"),
        default_runs=100,
        accepts="any",
    ),
    Theorem(
        key="concentration.azuma",
        family="concentration",
        title="Azuma's inequality in maximal form",
        statement=(
            r"Let $M_0 = 0, M_1, \dots, M_n$ be a supermartingale with $|M_i - M_{i-1}| \le c$, $n \ge 1$, $c > 0$. "
            r"For every $t > 0$: "
            r"$$P\Bigl(\max_{0 \le i \le n} M_i \ge t\Bigr) \le \exp\Bigl(-\frac{t^2}{2 n c^2}\Bigr).$$"
        ),
        source="Azuma (1967), with Ville's maximal inequality",
        claim="exact",
        expected="verified",
        assumptions=(
            Assumption("supermartingale", "E[M_i | past] <= M_{i-1}"),
            Assumption("bounded-steps", "|M_i - M_{i-1}| <= c always"),
        ),
        bound=azuma_bound,
        protocol=azuma,
        controls=(
            Control(
                "factor-2",
                "exp(-t^2 / (n c^2)): the 2 lost in the exponent",
                functools.partial(azuma, rate=Fraction(1)),
            ),
            Control("drift", "steps with a positive mean: no supermartingale", functools.partial(azuma, walks=_DRIFT)),
            Control(
                "bounded-on-average", "c = E|step| in place of max |step|", functools.partial(azuma, walks=_ON_AVERAGE)
            ),
        ),
        proof=Proof("written", f"{PAGE}#azuma"),
        default_runs=100,
    ),
)
