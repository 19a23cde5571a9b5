"""Theorems about levels for Q* under adaptive data, checked by solving games in which a player tries to break them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.density_ratio._games import Crossed, largest_chance, rounding
from theoryrl.density_ratio.full_weights import mixture_level, mixture_precision
from theoryrl.density_ratio.levels import scale_free_threshold
from theoryrl.theory._dp_tools import Instances
from theoryrl.theory.theorem import Assumption, Control, ExactObservations, Progress, Proof, Theorem

PAGE = "docs/theory/density_ratio_tabular.md"
# How far a comparison of floats may be off, relatively: a handful of operations.
CLOSE = 1e-12


class Game(NamedTuple):
    """Cells that pay 0 or 1 with given means, the weight of each over the ceiling, and how many draws there are."""

    draws: int
    means: tuple[float, ...]
    weights: tuple[float, ...]

    def __str__(self) -> str:
        means, weights = (", ".join(f"{x:.3g}" for x in row) for row in (self.means, self.weights))
        return f"{self.draws} draws, means {means}, weights {weights}"


FAIR = Game(500, (0.5,), (1.0,))
FIXED = (
    FAIR,
    Game(200, (0.1,), (0.2,)),
    Game(200, (0.9,), (0.02,)),
    Game(24, (0.5, 0.5), (1.0, 0.1)),
    Game(24, (0.2, 0.6), (0.3, 1.0)),
    Game(9, (0.5, 0.3, 0.8), (1.0, 0.4, 0.1)),
)


def random_games(rng: np.random.SeedSequence, runs: int) -> list[Game]:
    """Two cells each."""
    generator = np.random.default_rng(rng)
    return [
        Game(16, tuple(generator.uniform(0.05, 0.95, 2).tolist()), tuple(generator.uniform(0.02, 1.0, 2).tolist()))
        for _ in range(runs)
    ]


def breaks_threshold(game: Game, log_level: float, form: str, margin: float) -> Crossed:
    """Whether the mean weighted noise exceeds the threshold times 1 + margin (ceiling 1, noise width 1)."""
    weights = np.array(game.weights)

    def crossed(visits: NDArray[np.float64], sums: NDArray[np.float64]) -> NDArray[np.bool_]:
        moment, mean = float((weights**2 * visits).sum()) / game.draws, np.tensordot(weights, sums, 1) / game.draws
        if form == "without the logarithm":
            limit = math.sqrt((moment + 1 / game.draws) * log_level / (2 * game.draws))
        else:
            limit = float(scale_free_threshold(moment, game.draws, log_level, ceiling=1.0, form=form))
        return np.asarray(mean > limit * (1 + margin))

    return crossed


def literal(
    model: None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    share: float = 1.0,
    games: Sequence[tuple[int, float]] = ((100, 0.1), (1000, 0.1), (1000, 0.01)),
) -> ExactObservations:
    """One cell of weight 1 that pays 0 or 1 evenly: the chance to break the literal level, against e^-L.

    A tie within rounding counts as kept, so that the chance is not overstated.
    """
    instances = Instances(("one fair cell",))
    for draws, nominal in games:
        game = Game(draws, (0.5,), (1.0,))
        crossed = breaks_threshold(game, -share * math.log(nominal), "literal", CLOSE)
        chance = largest_chance(draws, game.means, crossed)
        instances.add(f"{draws} draws, e^-L = {nominal:g}", chance, nominal, rounding(draws) * chance)
    return instances.observations()


def scale_free(
    model: None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    forms: Sequence[str] = ("mixture", "grid"),
    games: Sequence[Game] = FIXED,
) -> ExactObservations:
    """The chance to break a repaired level, against e^-L; a tie within rounding counts as broken."""
    instances = Instances(("cells that pay 0 or 1",))
    for form in forms:
        for game in (*games, *random_games(rng, runs)):
            for nominal in (0.5, 0.1):
                crossed = breaks_threshold(game, -math.log(nominal), form, -CLOSE)
                chance = largest_chance(game.draws, game.means, crossed)
                label = f"{form}: {game}, e^-L = {nominal:g}"
                instances.add(label, chance, nominal, rounding(game.draws) * chance)
    return instances.observations()


def breaks_tabular(layers: Sequence[int], delta: float, prior: float, mutant: str) -> Crossed:
    """Whether the level over all weights is broken in some layer; `layers[i]` is the layer of cell i."""
    horizon = max(layers) + 1

    def crossed(visits: NDArray[np.float64], sums: NDArray[np.float64]) -> NDArray[np.bool_]:
        broken = np.zeros(sums.shape[1:], bool)
        for h in range(horizon):
            own = [i for i, layer in enumerate(layers) if layer == h]
            counts = np.zeros((horizon, 1, len(own)))
            counts[h, 0] = visits[own]
            level = 0.5 * math.log(horizon / delta)
            if mutant != "without the logarithms":
                level = float(mixture_level(counts, delta=delta, prior=prior)[h])
            share = np.divide(
                mixture_precision(counts, prior)[h, 0], visits[own] ** 2, out=np.zeros(len(own)), where=visits[own] > 0
            )
            broken |= np.tensordot(share, sums[own] ** 2, 1) > level * (1 - CLOSE)
        return broken

    return crossed


def tabular(
    model: None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    mutant: str = "",
    games: Sequence[Game] = FIXED,
) -> ExactObservations:
    """The chance to break the level over all weights, on both sides, in some layer, against delta."""
    instances = Instances(("cells that pay 0 or 1",))
    for game in (*games, *random_games(rng, runs)):
        cells = len(game.means)
        for layers in dict.fromkeys([(0,) * cells, tuple(range(cells))]):
            for prior, delta in ((1.0, 0.1), (0.2, 0.5)):
                crossed = breaks_tabular(layers, delta, prior, mutant)
                chance = largest_chance(game.draws, game.means, crossed)
                label = f"{game.draws} draws, means {game.means}, layers {layers}, rho = {prior:g}, delta = {delta:g}"
                instances.add(label, chance, delta, rounding(game.draws) * chance)
    return instances.observations()


ANY_PLAYER = Assumption(
    "adaptive", "Where the next draw is made may depend on all draws before; the game is solved for the best player."
)

_SETTING = (
    r"A player draws tuples $(z_i, r_i, s'_i)$, $i = 1, \dots, n$; where the next one is drawn may depend on all "
    r"before. $\xi_i = Q^*(z_i) - r_i - V^*(s'_i)$ has conditional mean 0 and lies in an interval of length $b$, "
)
_WEIGHT = r"$w$ is a fixed weight with values in $[0, \gamma]$, and $P = \frac1n \sum_i w(z_i)^2$. "

THEOREMS = (
    Theorem(
        key="glow.literal-level",
        family="density-ratio",
        title="The level without alpha, as a fixed sample would have it: false for adaptive data",
        statement=_SETTING
        + _WEIGHT
        + r"Claimed: $\frac1n \sum_i w(z_i) \xi_i \le b \sqrt{L P / (2n)}$ with probability at least $1 - e^{-L}$. "
        r"False: a player who leaves a cell as soon as its sum is large enough breaks it with probability 0.117 for "
        r"$e^{-L} = 0.1$ and $n = 100$, and with probability tending to 1 as $n$ grows. `glow.scale-free-level` holds.",
        source="derived here, docs/theory/density_ratio_tabular.md#literal-level",
        claim="exact",
        protocol=literal,
        controls=(
            Control(
                "half the logarithm",
                "With L / 2 for L the level fails already where few draws are made.",
                partial(literal, share=0.5, games=((20, 0.1),)),
            ),
        ),
        proof=Proof("written", f"{PAGE}#literal-level"),
        expected="refuted",
        assumptions=(ANY_PLAYER,),
    ),
    Theorem(
        key="glow.scale-free-level",
        family="density-ratio",
        title="Two levels without alpha that adaptive data cannot break",
        statement=_SETTING
        + _WEIGHT
        + r"Each with probability at least $1 - e^{-L}$, $\frac1n \sum_i w(z_i) \xi_i \le b \sqrt{(P + \gamma^2/n) (L "
        r"+ \frac12 \log(1 + n P / \gamma^2)) / (2n)}$, and $\frac1n \sum_i w(z_i) \xi_i \le \frac12 (\sqrt2 + "
        r"1/\sqrt2)\, b \sqrt{(L + \log G) \max\{P, \gamma^2/n\} / (2n)}$ with $G = 1 + "
        r"\lceil \frac12 \log_2 n \rceil$.",
        source="derived here, docs/theory/density_ratio_tabular.md#scale-free-levels",
        claim="exact",
        protocol=scale_free,
        controls=(
            Control(
                "the literal form",
                "A level that treats P as if it were fixed in advance.",
                partial(scale_free, forms=("literal",), games=(FAIR,)),
                runs=1,
            ),
            Control(
                "without the logarithm",
                "The mixture's level without the price for not knowing P.",
                partial(scale_free, forms=("without the logarithm",), games=(FAIR,)),
                runs=1,
            ),
        ),
        proof=Proof("written", f"{PAGE}#scale-free-levels"),
        expected="verified",
        assumptions=(ANY_PLAYER,),
        default_runs=4,
    ),
    Theorem(
        key="glow.tabular-level",
        family="density-ratio",
        title="The level of the test over all weights, at all times and without a union",
        statement=_SETTING
        + r"in each of $H$ layers. With $N_z$ visits of $z$ and $m_z$ the mean of $\xi$ over them, for every $\rho > "
        r"0$ and $\delta \in (0, 1)$: with probability at least $1 - \delta$, at all times and in all layers, $\sum_z "
        r"\frac{N_z^2}{N_z + \rho} m_z^2 \le \frac{b^2}{2} \bigl(\log \frac H\delta + \frac12 \sum_z \log(1 + "
        r"N_z/\rho)\bigr)$.",
        source="derived here, docs/theory/density_ratio_tabular.md#mixture-level",
        claim="exact",
        protocol=tabular,
        controls=(
            Control(
                "without the logarithms",
                "A level without the price for not knowing the counts.",
                partial(tabular, mutant="without the logarithms", games=(FAIR,)),
                runs=1,
            ),
        ),
        proof=Proof("written", f"{PAGE}#mixture-level"),
        expected="verified",
        assumptions=(ANY_PLAYER,),
        default_runs=4,
    ),
)
