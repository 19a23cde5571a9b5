from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

U = 2.0**-53
# Below it the squares of a scaled table may have vanished.
LEAST_LIMIT = 2.0**-900
# A greedy sequence is tried at so many thresholds, fewer for tables of more than so many numbers in all.
GREEDY_LEVELS, GREEDY_WORK = 64, 5e7
# Beyond this many multiplications no singular values are computed.
FACTOR_WORK = 2e9
# The bound from the rank holds for every ridge; these ones are tried.
RIDGES = tuple(2.0**-k for k in range(13))


class Found(NamedTuple):
    """Bounds on the longest independent sequence, and the longest one found (columns, rows that witness it)."""

    upper: int
    sequence: tuple[int, ...]
    witnesses: tuple[int, ...]
    threshold: float
    nodes: int


class Level:
    """Sequences that are independent for scales just below a threshold.

    For e' just below t, column j is independent of a set of columns exactly if a row g has |M[g, j]| >= t and
    sum of M[g, k]^2 over the set below t^2. A row that has once reached t is spent whatever rounding does.
    """

    def __init__(self, table: NDArray[np.float64], threshold: float, slack: float) -> None:
        # `slack` bounds the relative error of a sum of squares.
        hit = table >= threshold
        self.rows, self.columns = np.flatnonzero(hit.any(axis=1)), np.flatnonzero(hit.any(axis=0))
        self.hit = hit[np.ix_(self.rows, self.columns)]
        # Scaled by a power of two, so that squares neither overflow nor vanish and nothing is rounded.
        shift = -math.frexp(threshold)[1]
        part = np.ldexp(np.where(self.hit, 0.0, table[np.ix_(self.rows, self.columns)]), shift)
        self.energy = np.where(self.hit, np.inf, part * part)
        self.part, self.limit = part, math.ldexp(threshold, shift) ** 2
        self.certain, self.possible = self.limit * (1 - slack), self.limit * (1 + slack)
        self.root, self.threshold = math.ldexp(threshold, shift), threshold

    def open(self, energy: NDArray[np.float64], columns: list[int]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Rows that can still witness after `columns`, and the columns that one of them makes independent."""
        alive = energy < self.certain
        for row in np.flatnonzero(~alive & (energy < self.possible)):  # too close for floats
            total = sum((Fraction(float(self.part[row, j])) ** 2 for j in columns), Fraction(0))
            alive[row] = total < Fraction(self.root) ** 2
        return alive, np.flatnonzero(self.hit[alive].any(axis=0))

    def witness(self, energy: NDArray[np.float64], alive: NDArray[np.bool_], column: int) -> int:
        """The row with the least energy that makes a column independent."""
        return int(np.where(self.hit[:, column] & alive, energy, np.inf).argmin())

    def named(self, columns: list[int], rows: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """In numbers of the whole table."""
        return tuple(int(self.columns[j]) for j in columns), tuple(int(self.rows[g]) for g in rows)


def matching(hit: NDArray[np.bool_]) -> int:
    """Largest number of columns that can be given a row each, all different, where `hit` is true."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_bipartite_matching

    if not hit.size:
        return 0
    return int((maximum_bipartite_matching(csr_matrix(hit)) >= 0).sum())


def positions(last: NDArray[np.int64]) -> int:
    """The largest n such that positions 1..n can be given different rows, where row g can stand up to `last[g]`."""
    order = np.sort(last)[::-1]
    return int(min(len(order), (order + np.arange(len(order))).min(initial=len(order))))


def greedy(level: Level) -> tuple[list[int], list[int]]:
    """A sequence that always takes the column that spends the fewest rows."""
    energy, columns, rows = np.zeros(len(level.rows)), list[int](), list[int]()
    while True:
        alive, candidates = level.open(energy, columns)
        if not len(candidates):
            return columns, rows
        after = energy[alive, np.newaxis] + level.energy[np.ix_(alive, candidates)]
        column = int(candidates[(after >= level.limit).sum(axis=0).argmin()])
        columns.append(column)
        rows.append(level.witness(energy, alive, column))
        energy = energy + level.energy[:, column]


class Search:
    """Branch and bound over the sets of columns of one level after the other."""

    def __init__(self, table: NDArray[np.float64], thresholds: NDArray[np.float64], slack: float, budget: int) -> None:
        self.table, self.thresholds, self.slack, self.budget = table, thresholds, slack, budget
        self.nodes = 0
        self.sequence: tuple[int, ...] = ()
        self.witnesses: tuple[int, ...] = ()
        self.threshold = math.inf
        # Sums of the least squares of every row: how many columns it can bear before it is spent.
        self.shift, self.largest = -math.frexp(float(table.max()))[1], table.max(axis=1)
        self.sums = np.cumsum(np.sort(np.ldexp(table, self.shift), axis=1) ** 2, axis=1)

    @property
    def best(self) -> int:
        return len(self.sequence)

    def offer(self, level: Level, columns: list[int], rows: list[int]) -> None:
        """Keep a sequence if it is the longest."""
        if len(columns) > self.best:
            self.sequence, self.witnesses = level.named(columns, rows)
            self.threshold = level.threshold

    def level(self, k: int) -> Level:
        return Level(self.table, float(self.thresholds[k]), self.slack)

    def run(self, caps: Callable[[float], int]) -> Found:
        """Search one threshold after the other, the ones with the largest bounds first.

        `caps(t)` bounds the length at thresholds from t on by other means.
        """
        count = len(self.thresholds)
        tries = int(min(count, max(4, min(GREEDY_LEVELS, GREEDY_WORK // self.table.size))))
        for k in np.unique(np.linspace(0, count - 1, tries).astype(int)):
            level = self.level(k)
            self.offer(level, *greedy(level))
        # Intervals of thresholds with a bound on the length at any of them; one that cannot win is never divided.
        heap = [(-self._bound(0, count - 1, caps, math.inf), 0, count - 1)]
        upper = -heap[0][0]
        while heap:
            upper, low, high = -heap[0][0], heap[0][1], heap[0][2]
            if upper <= self.best or self.nodes >= self.budget:
                break
            heapq.heappop(heap)
            if low < high:
                self.nodes += 1
                middle = (low + high) // 2
                for first, last in ((low, middle), (middle + 1, high)):
                    heapq.heappush(heap, (-self._bound(first, last, caps, upper), first, last))
            elif not self._exhaust(self.level(low), upper):
                break
            upper = self.best
        upper = max(upper, self.best)
        return Found(upper, self.sequence, self.witnesses, self.threshold, self.nodes)

    def _bound(self, low: int, high: int, caps: Callable[[float], int], parent: float) -> int:
        """On the length at every threshold of an interval: what reaches the least, with the room of the largest."""
        first, last = float(self.thresholds[low]), float(self.thresholds[high])
        rows = self.largest >= first
        bound = int(min(parent, rows.sum(), self.table.shape[1]))
        limit = math.ldexp(last, self.shift) ** 2
        if limit > LEAST_LIMIT and bound > self.best:
            bound = min(bound, positions(1 + (self.sums[rows] < limit * (1 + self.slack)).sum(axis=1)))
        if bound > self.best:
            bound = min(bound, caps(first))
        if bound > self.best:
            bound = min(bound, matching(self.table[rows] >= first))
        return bound

    def _exhaust(self, level: Level, cap: int) -> bool:
        """Whether every set of columns was covered before the budget ended."""
        seen = {0}
        stack: list[tuple[int, list[int], list[int], NDArray[np.float64]]] = [(0, [], [], np.zeros(len(level.rows)))]
        while stack:
            used, columns, rows, energy = stack.pop()
            alive, candidates = level.open(energy, columns)
            room = self.best - len(columns)
            if min(len(candidates), int(alive.sum())) <= room:
                continue
            hit, energies = level.hit[alive][:, candidates], level.energy[alive][:, candidates]
            useful = hit.any(axis=1)
            sums = np.cumsum(np.sort(energies[useful], axis=1), axis=1) + energy[alive][useful, np.newaxis]
            if positions(1 + (sums < level.possible).sum(axis=1)) <= room or matching(hit) <= room:
                continue
            if self.nodes >= self.budget:
                return False
            self.nodes += 1
            after = energy[alive, np.newaxis] + energies
            # The stack is last in, first out: the column that spends the fewest rows goes on top.
            for j in candidates[np.argsort(-(after >= level.limit).sum(axis=0), kind="stable")].tolist():
                key = used | 1 << j
                if key in seen:
                    continue
                seen.add(key)
                longer, witnesses = [*columns, j], [*rows, level.witness(energy, alive, j)]
                self.offer(level, longer, witnesses)
                if self.best >= cap:
                    return True
                stack.append((key, longer, witnesses, energy + level.energy[:, j]))
        return True


def rounding_slack(table: NDArray[np.float64]) -> float:
    """Relative error of a sum of squares of a row; 0 where all are multiples of a power of two and sums are exact."""
    largest = float(table.max())
    if largest == 0:
        return 0.0
    # Multiples of 2^(e - 22) up to 2^(e + 1) have squares on a grid of 46 bits; so many columns fit on top.
    step = 2.0 ** (math.frexp(largest)[1] - 22)
    if step > 2.0**-500 and table.shape[1] <= 2**8 and bool((np.floor(table / step) * step == table).all()):
        return 0.0
    return (2 * table.shape[1] + 16) * U


class RankBound:
    """The bound by log-determinants (docs/theory/eluder.md#low-rank) at any threshold, from one factorisation."""

    def __init__(self, matrix: NDArray[np.float64]) -> None:
        self.longest, self.rank, self.norm, self.error = min(matrix.shape), 0, math.inf, 0.0
        if matrix.size * self.longest > FACTOR_WORK:
            return
        # Scaled by a power of two: norms are roots of sums of squares.
        self.shift = -math.frexp(float(np.abs(matrix).max()))[1]
        matrix = np.ldexp(matrix, self.shift)
        left, strength, right = np.linalg.svd(matrix, full_matrices=False)
        self.rank = max(1, int((strength > 1e-12 * max(matrix.shape) * strength[0]).sum()))
        left, strength, right = left[:, : self.rank], strength[: self.rank], right[: self.rank]
        norms = []
        for share in (0.0, 0.5, 1.0):
            rows, columns = left * strength**share, right * strength[:, np.newaxis] ** (1 - share)
            norms.append(float(np.linalg.norm(rows, axis=1).max() * np.linalg.norm(columns, axis=0).max()) * (1 + 1e-9))
        self.norm = min(norms)
        # How far the product of any of these factors can be from the matrix: what was cut off, and roundings.
        product = (left * strength) @ right
        self.error = float(np.abs(product - matrix).max()) + 16 * U * (self.rank + 8) * max(norms)

    def __call__(self, threshold: float) -> int:
        if self.rank == 0:
            return self.longest
        scaled = math.ldexp(threshold, self.shift)
        if not scaled > 2 * self.error:
            return self.longest
        ratio = math.log(self.norm) - math.log(scaled)
        return low_rank_length(self.rank, ratio, self.longest, self.error / scaled)


def low_rank_length(rank: int, log_ratio: float, longest: int, error: float = 0.0) -> int:
    """The largest n <= `longest` that the log-determinant bound allows for some ridge; see `eluder_rank_bound`."""
    if not error < 1:
        return longest
    best = longest
    for ridge in RIDGES:
        gain = math.log1p((1 - error) ** 2 / ((1 + math.sqrt(longest) * error) ** 2 + ridge)) * (1 - 1e-12)
        low, high = 0, best
        while low < high:
            n = (low + high + 1) // 2
            power = 2 * log_ratio + math.log(n / (ridge * rank))
            if n * gain <= rank * (max(power, 0.0) + math.log1p(math.exp(-abs(power)))):
                low = n
            else:
                high = n - 1
        best = low
    return best
