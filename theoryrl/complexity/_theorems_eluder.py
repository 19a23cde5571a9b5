from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.complexity.eluder import distributional_eluder, eluder_rank_bound, is_eluder_sequence
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.theory.theorem import Control, ExactObservations, Progress, Proof, Theorem

PAGE = "docs/theory/eluder.md"
LARGEST = 60  # functions and pairs of a model's class that are tried


def longest_sequence(table: NDArray[np.float64], epsilon: float, rule: str = "") -> int:
    """The longest sequence of columns, repetitions allowed, by search over all of them; at most 2 X + 2 for X columns.

    Rules other than the definition: `forgetful` (a point's own earlier occurrences do not count among its
    predecessors), `weak` (|g| >= e' is enough).
    """
    squares = table * table
    levels = np.unique(squares)
    cap = 2 * table.shape[1] + 2
    return max((_longest(squares, level, rule, cap) for level in levels[levels > epsilon * epsilon]), default=0)


def _independent(squares: NDArray, level: float, rule: str, counts: NDArray, energy: NDArray) -> NDArray[np.bool_]:
    """Which columns may come next: some row has sum < level <= square, for e'^2 just below the level."""
    before = energy[:, np.newaxis]
    if rule == "forgetful":
        before = before - counts * squares
    room = before <= level if rule == "weak" else before < level
    return np.asarray((room & (squares >= level)).any(axis=0))


def _longest(squares: NDArray, level: float, rule: str, cap: int) -> int:
    best, seen = 0, {(0,) * squares.shape[1]}
    stack = list(seen)
    while stack:
        counts = stack.pop()
        length = sum(counts)
        best = max(best, length)
        if length == cap:
            break
        used = np.array(counts)
        for j in np.flatnonzero(_independent(squares, level, rule, used, squares @ used)):
            longer = (*counts[:j], counts[j] + 1, *counts[j + 1 :])
            if longer not in seen:
                seen.add(longer)
                stack.append(longer)
    return best


def some_sequence(table: NDArray[np.float64], epsilon: float, rule: str, generator: np.random.Generator) -> int:
    """The length of one sequence that takes random independent columns, repetitions allowed, at the lowest level."""
    squares = table * table
    levels = squares[squares > epsilon * epsilon]
    if not levels.size:
        return 0
    used, energy = np.zeros(squares.shape[1]), np.zeros(len(squares))
    for length in range(2 * squares.shape[1] + 2):
        choices = np.flatnonzero(_independent(squares, levels.min(), rule, used, energy))
        if not len(choices):
            return length
        j = int(generator.choice(choices))
        # Sums of numbers >= 0 in floats are at least each of them: no rounding makes a spent row look fresh.
        used[j] += 1
        energy = energy + squares[:, j]
    return 2 * squares.shape[1] + 2


def tabular(
    model: FiniteHorizonMDP | None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    rule: str = "",
    missing: int = 0,
) -> ExactObservations:
    """The longest sequence found against the number X of points (minus `missing`).

    Without a model: all sequences of small integer tables, where nothing is rounded. With one: sequences of the
    Bellman residuals of random functions, and of Q* with one pair raised, at random layers.
    """
    generator = np.random.default_rng(rng)
    labels, observed, bound = [], [], []
    if model is None:
        for label, table, epsilon in _tables(generator, runs):
            labels.append(label)
            observed.append(longest_sequence(table, epsilon, rule))
            bound.append(table.shape[1] - missing)
    else:
        for label, table, epsilon, points in _residual_tables(model, generator, runs):
            labels.append(label)
            observed.append(some_sequence(table, epsilon, rule, generator))
            bound.append(points - missing)
    models = () if model is None else (model.name or repr(model),)
    return ExactObservations(observed, bound, labels=tuple(labels), models=models)


def _tables(generator: np.random.Generator, runs: int) -> Iterator[tuple[str, NDArray[np.float64], float]]:
    for points in range(1, 5):
        yield f"one function per point: X={points}, e=1", 2 * np.eye(points), 1.0
    for index in range(runs):
        functions, points = int(generator.integers(1, 6)), int(generator.integers(1, 5))
        table = generator.integers(-3, 4, (functions, points)).astype(np.float64)
        epsilon = float(generator.integers(0, 3))
        yield f"random {index}: |F|={functions}, X={points}, e={epsilon:g}", table, epsilon


def _residual_tables(
    mdp: FiniteHorizonMDP, generator: np.random.Generator, runs: int
) -> Iterator[tuple[str, NDArray[np.float64], float, int]]:
    allowed = np.flatnonzero(mdp.action_mask.reshape(-1))
    tried = generator.permutation(len(allowed))[:LARGEST]
    raised = np.zeros((len(tried), len(allowed)))
    raised[np.arange(len(tried)), tried] = 1.0
    # Q* with the value of one pair raised by 1: at that layer the residual is 1 at the pair and 0 elsewhere.
    yield f"Q* and one raised pair: {len(tried)} of X={len(allowed)}", raised[:, tried], 0.5, len(tried)
    for index in range(min(runs, 20)):
        h = int(generator.integers(mdp.horizon))
        low, high = mdp.reward_range
        now = generator.uniform(low, high, (LARGEST, len(allowed))) * (mdp.horizon - h)
        later = generator.uniform(low, high, (LARGEST, mdp.n_states)) * (mdp.horizon - h - 1)
        if mdp.is_sparse:
            rows = mdp.transition.to_scipy()
            kernel = (rows[h] if isinstance(rows, list) else rows)[allowed]
        else:
            kernel = mdp.transition_layers[h % len(mdp.transition_layers)].reshape(-1, mdp.n_states)[allowed]
        reward = mdp.reward_layers[h % len(mdp.reward_layers)].reshape(-1)[allowed]
        table = now - (reward + np.asarray(kernel @ later.T).T)
        epsilon = float(generator.choice([0.0, 0.5])) * float(np.abs(table).max())
        yield f"random residuals {index}: h={h}, X={len(allowed)}, e={epsilon:.3g}", table, epsilon, len(allowed)


def low_rank(
    model: Any,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    mutant: str = "",
) -> ExactObservations:
    """Certified sequences of integer matrices of known factors against the log-determinant bound.

    Mutants: `logarithm` (the rank alone), `norm` (the bound for functions that never exceed 2 e).
    """
    generator = np.random.default_rng(rng)
    labels, observed, bound = [], [], []
    for label, rows, columns, epsilon in _factors(generator, runs):
        matrix, rank = rows @ columns, rows.shape[1]
        found = distributional_eluder(matrix, epsilon, budget=100)
        certified = is_eluder_sequence(matrix, found.sequence, epsilon)
        norm = np.linalg.norm(rows, axis=1).max() * np.linalg.norm(columns, axis=0).max() * (1 + 1e-12)
        norm = 2 * epsilon if mutant == "norm" else float(norm)
        labels.append(label)
        observed.append(found.lower if certified else np.inf)
        bound.append(rank if mutant == "logarithm" else eluder_rank_bound(rank, epsilon, norm))
    return ExactObservations(observed, bound, labels=tuple(labels))


def _factors(
    generator: np.random.Generator, runs: int
) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.float64], float]]:
    """(label, W (nG, r), V (r, nD), e): ladders of powers of two in every coordinate, then small random integers."""
    for rank, length in ((1, 8), (1, 20), (2, 10), (3, 6)):
        steps = np.arange(length)
        rows = np.kron(np.eye(rank), 2.0 ** (length - steps)[:, np.newaxis])
        columns = np.kron(np.eye(rank), 2.0**steps)
        yield f"ladder: r={rank}, n={rank * length}", rows, columns, 2.0**length - 1
    for index in range(runs):
        rank, functions, points = (int(n) for n in generator.integers((1, 5, 5), (4, 25, 25)))
        rows = generator.integers(-4, 5, (functions, rank)).astype(np.float64)
        columns = generator.integers(-4, 5, (rank, points)).astype(np.float64)
        rows[0, 0], columns[0, 0] = 4.0, 4.0
        epsilon = float(generator.integers(1, 9))
        yield f"random {index}: r={rank}, |G|={functions}, |D|={points}, e={epsilon:g}", rows, columns, epsilon


DEFINITION = (
    r"Let $\mathcal{G}$ be a set of functions on a set $\mathcal{X}$ and $\epsilon \ge 0$. A point $x$ is "
    r"$\epsilon'$-independent of $x_1, \dots, x_{i-1}$ if some $g \in \mathcal{G}$ has "
    r"$\sum_{k<i} g(x_k)^2 \le \epsilon'^2$ and $|g(x)| > \epsilon'$. The eluder dimension "
    r"$\dim(\mathcal{G}, \epsilon)$ is the largest $n$ for which some $\epsilon' \ge \epsilon$ and some "
    r"$x_1, \dots, x_n$ exist such that every $x_i$ is $\epsilon'$-independent of those before it. "
)

THEOREMS: tuple[Theorem, ...] = (
    Theorem(
        key="eluder.tabular",
        family="complexity",
        title="The eluder dimension of any class on a table is at most its number of entries",
        statement=(
            DEFINITION + r"If $\mathcal{X}$ has $X$ points, then $\dim(\mathcal{G}, \epsilon) \le X$ for every "
            r"$\mathcal{G}$ and every $\epsilon \ge 0$. In particular the Bellman eluder dimension with point masses, "
            r"$\max_h \dim(\{f_h - T_h f_{h+1} : f \in \mathcal{F}\}, \epsilon)$, is at most $S A$ for any class "
            r"$\mathcal{F}$ of action values."
        ),
        source="derived here: docs/theory/eluder.md#tabular; definition of Jin, Liu and Miryoosefi (2021)",
        claim="exact",
        expected="verified",
        protocol=tabular,
        controls=(
            Control(
                "forgetful",
                "a search in which a point's own earlier occurrences do not count as predecessors",
                functools.partial(tabular, rule="forgetful"),
            ),
            Control("weak", "|g(x)| >= e' in place of |g(x)| > e'", functools.partial(tabular, rule="weak")),
            Control("one-less", "X - 1: one function per point attains X", functools.partial(tabular, missing=1)),
        ),
        proof=Proof("written", f"{PAGE}#tabular"),
        default_runs=60,
        accepts="finite-horizon",
    ),
    Theorem(
        key="eluder.low-rank",
        family="complexity",
        title="Eluder dimension of linear functions, with its constant",
        statement=(
            DEFINITION + r"Let $g(x) = \langle w_g, v_x \rangle$ with $w_g, v_x \in \mathbb{R}^r$, $|w_g| \le B$, "
            r"$|v_x| \le L$. For $\epsilon > 0$ and every $c > 0$, $n = \dim(\mathcal{G}, \epsilon)$ satisfies "
            r"$$n \log\Bigl(1 + \frac{1}{1 + c}\Bigr) \le "
            r"r \log\Bigl(1 + \frac{n B^2 L^2}{c\, r\, \epsilon^2}\Bigr).$$"
        ),
        source="derived here: docs/theory/eluder.md#low-rank, after Russo and Van Roy (2013), Proposition 6",
        claim="exact",
        expected="verified",
        bound=eluder_rank_bound,
        protocol=low_rank,
        controls=(
            Control("logarithm", "the rank alone", functools.partial(low_rank, mutant="logarithm")),
            Control("norm", "the bound for |g| <= 2 e, whatever the norms", functools.partial(low_rank, mutant="norm")),
        ),
        proof=Proof("written", f"{PAGE}#low-rank"),
        default_runs=5,
    ),
)
