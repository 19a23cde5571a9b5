"""GLOW when the number of iterations, or the coverability, is not known: fresh runs one after the other.

`GLOWDoubling` plays epochs of T_0, 2 T_0, 4 T_0, ... iterations. `GLOWGuessing` tries 1, 2, 4, ... for the coverability
and goes on to the next guess when the members it played promised more than what was collected, by more than a right
guess allows. Both are settings of `theoryrl.density_ratio.GLOW` with another T, delta and gamma in every epoch; what
they cost is proved in docs/theory/glow.md (glow-doubling).
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs, disable-error-code="no-redef"

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl._jit import kernel
from theoryrl.density_ratio.bounds._setting import Setting
from theoryrl.density_ratio.bounds.counts import require_rounds
from theoryrl.density_ratio.glow import GLOW, GLOWState
from theoryrl.density_ratio.weights import FullWeights
from theoryrl.mdp._checks import require_int
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.online.verbs import Problem, act, chance, frugal, observe, plan, upper_value

# Where gamma stands in the tuple, and what comes after it.
GAMMA = GLOWState._fields.index("gamma")
AFTER = GAMMA + 1


@frugal
class EpochsState(NamedTuple):
    """GLOW's state in the current epoch, with room for the longest, and what tells the epochs apart."""

    inner: GLOWState  # its gamma is not read
    slope: NDArray[np.float64]  # (E,) gamma of every epoch
    log_level: NDArray[np.float64]  # (E,) L_W of every epoch
    limit: NDArray[np.int64]  # (E,) iterations after which the next epoch begins
    threshold: NDArray[np.float64]  # (E, T) theta_e(n), n = 1, ..., T; (E, 0) if nothing is watched
    begin: NDArray[np.int64]  # (E,) the iteration with which an epoch began, -1 if it did not
    history: NDArray[np.int64]  # the member of every iteration of all epochs, -1 if not yet
    current: NDArray[np.int64]  # (1,) epoch
    member: NDArray[np.int64]  # (1,) whose policy is played
    surplus: NDArray[np.float64]  # (1,) promised minus collected in this epoch, over all its episodes, in units


class _Epochs:
    """What the two learners share: they are a sequence of settings of GLOW."""

    glow: GLOW

    settings: Callable[[], tuple[GLOW, ...]]  # those of every epoch

    @property
    def provable(self) -> bool:
        """As GLOW says."""
        return self.glow.provable

    def require(self, mdp: FiniteHorizonMDP) -> None:
        """As GLOW does, with the slopes of the first and of the last epoch."""
        chosen = self.settings()
        for one in (chosen[0], chosen[-1]):
            one.require(mdp)

    def fault(self, state: EpochsState) -> str | None:
        """What happened if the confidence set of the current epoch is empty, or the epochs are used up."""
        if state.inner.finished[0]:
            return f"the settings are for {len(state.history)} iterations of {self.glow.trajectories} episodes, no more"
        message = self.glow.fault(state.inner)
        return None if message is None else f"epoch {state.current[0]}: {message}"

    def _init(self, problem: Problem, limit: list[int], total: int, threshold: NDArray[np.float64]) -> EpochsState:
        chosen = self.settings()
        inner = replace(chosen[-1], iterations=max(limit)).init(problem)
        begin = np.full(len(chosen), -1)
        begin[0] = 0
        state = EpochsState(
            inner=inner,
            slope=np.array([one.slope() for one in chosen]),
            log_level=np.array([one.log_levels()[-1] for one in chosen]),
            limit=np.array(limit, np.int64),
            threshold=threshold,
            begin=begin,
            history=np.full(total, -1),
            current=np.zeros(1, np.int64),
            member=np.zeros(1, np.int64),
            surplus=np.zeros(1),
        )
        inner.log_level[0] = state.log_level[0]
        return state


@dataclass(frozen=True, eq=False)
class GLOWDoubling(_Epochs):
    """GLOW without a number of iterations: epoch e is a fresh run of 2^e T_0 of them.

    Parameters
    ----------
    glow : GLOW
        Settings of the first epoch: `iterations` is T_0. Epoch e gets delta / ((e + 1) (e + 2)), and the best slope for
        its own length unless `gamma` is given.
    epochs : int
        For how many there is room: (2^epochs - 1) T_0 iterations.
    """

    glow: GLOW
    epochs: int = 12

    def __post_init__(self) -> None:
        if not isinstance(self.glow, GLOW):
            raise TypeError(f"glow must be settings of GLOW, not {type(self.glow).__name__}")
        if self.glow.anytime:
            raise ValueError("anytime levels have no use when every epoch knows its length")
        require_int(self.epochs, 1, "epochs")

    def settings(self) -> tuple[GLOW, ...]:
        """GLOW's settings in every epoch."""
        first = self.glow
        return tuple(
            replace(first, iterations=first.iterations * 2**e, delta=first.delta / ((e + 1) * (e + 2)))
            for e in range(self.epochs)
        )

    def init(self, problem: Problem) -> EpochsState:
        """A fresh state, of the size of GLOW's in the last epoch."""
        limit = [one.iterations for one in self.settings()]
        return self._init(problem, limit, sum(limit), np.zeros((len(limit), 0)))


@dataclass(frozen=True, eq=False)
class GLOWGuessing(_Epochs):
    """GLOW without the coverability: fresh runs with the guesses 1, 2, 4, ... for it.

    An epoch ends when the sum over its iterations of what the members played promised, less what was collected, exceeds
    what a right guess allows, plus what chance can do. Q* stays in the set whatever the guess.

    Parameters
    ----------
    glow : GLOW
        `iterations` is T, known. `coverability` is an upper bound such as the number of pairs or of greedy policies;
        the last guess is its largest entry. `gamma` must be left out; the test is self-normalised or scale-free, not
        anytime.
    """

    glow: GLOW

    def __post_init__(self) -> None:
        if not isinstance(self.glow, GLOW):
            raise TypeError(f"glow must be settings of GLOW, not {type(self.glow).__name__}")
        if self.glow.gamma is not None or self.glow.coverability is None:
            raise ValueError("glow must have an upper bound on the coverability, and no gamma")
        if isinstance(self.glow.weights, FullWeights) or self.glow.schedule == "paper" or self.glow.anytime:
            raise ValueError(
                "glow must have weights that are counted, a self-normalised or scale-free test, no anytime"
            )

    @property
    def guesses(self) -> tuple[float, ...]:
        """1, 2, 4, ..., and the largest entry of `coverability`."""
        return guesses(float(np.max(np.asarray(self.glow.coverability))))

    def settings(self) -> tuple[GLOW, ...]:
        """GLOW's settings in every epoch."""
        share = self.glow.delta / (2 * len(self.guesses))
        return tuple(replace(self.glow, coverability=guess, delta=share) for guess in self.guesses)

    def thresholds(self) -> NDArray[np.float64]:
        """theta_e(n) in units, (E, T)."""
        rounds, chosen = np.arange(1, self.glow.iterations + 1, dtype=float), self.settings()
        table = np.empty((len(chosen), len(rounds)))
        chance_term = _deviation(rounds, len(chosen), self.glow)
        for row, one in zip(table, chosen, strict=True):
            row[:] = rounds * _setting(one).per_round(rounds, float(self.glow.iterations), one.slope()) + chance_term
        return table

    def init(self, problem: Problem) -> EpochsState:
        """A fresh state, of GLOW's size and T numbers more for every guess."""
        limit = [self.glow.iterations] * len(self.guesses)
        return self._init(problem, limit, self.glow.iterations, self.thresholds())


def guesses(largest: float) -> tuple[float, ...]:
    """1, 2, 4, ..., largest: ceil(log2(largest)) + 1 of them."""
    count = math.ceil(math.log2(largest)) + 1
    return tuple(min(2.0**e, float(largest)) for e in range(count))


def _setting(one: GLOW) -> Setting:
    """What the bound of one epoch is computed from; the start is not part of what is promised."""
    return Setting(
        coverability=one.coverability,
        horizon=one.cls.horizon,
        n_functions=one.cls.size,
        delta=one.delta,
        log_tests=float(one.log_levels()[-1] - math.log(4 * one.cls.horizon / one.delta)),
        trajectories=one.trajectories,
        schedule=one.schedule,
        c=one.c,
        noise_width=one.noise_width,
        known_start=True,
    )


def _deviation(rounds: NDArray[np.float64], count: int, glow: GLOW) -> NDArray[np.float64]:
    """X(n) = sqrt((2 n / K) log(4 E T / delta))."""
    log = math.log(4 * count * glow.iterations / glow.delta)
    return np.sqrt(2 * rounds / glow.trajectories * log)


@kernel("strict")
def begin_anew(inner, log_level):
    """Forget all data; what is left is the class, the weights and, if it is known, the start law."""
    for table in (inner.visits, inner.mixture, inner.penalty):
        for x in range(table.shape[0]):
            for y in range(table.shape[1]):
                table[x, y] = 0.0
    for h in range(inner.residual.shape[0]):
        inner.n_visited[h] = 0
        for x in range(inner.residual.shape[1]):
            for f in range(inner.residual.shape[2]):
                inner.residual[h, x, f] = 0.0
    for p in range(inner.played.shape[0]):
        inner.played[p] = 0
    for f in range(inner.status.shape[0]):
        inner.status[f] = 0
        inner.first_out[f] = -1
        inner.last_in[f] = -1
        for h in range(inner.excess.shape[1]):
            inner.excess[f, h] = -math.inf
        if not inner.known_start:
            inner.start[f] = 0.0
    for i in range(inner.chosen.shape[0]):
        if inner.chosen[i] < 0:
            break
        inner.chosen[i] = -1
    inner.log_level[0] = log_level


@plan.implement(EpochsState)
def _(learner, episode):
    inner, epoch = learner.inner, learner.current[0]
    trajectories = inner.trajectories
    if episode % trajectories != 0 or inner.empty[0] >= 0 or inner.finished[0]:
        return False
    now = episode // trajectories
    if now >= learner.history.shape[0]:
        inner.finished[0] = True
        return False
    n = now - learner.begin[epoch]
    moved = False
    if n > 0 and epoch + 1 < learner.limit.shape[0]:
        over = n >= learner.limit[epoch]
        if learner.threshold.shape[1] > 0:
            over = over or not learner.surplus[0] / trajectories <= learner.threshold[epoch, n - 1]
        if over:
            moved = True
            epoch += 1
            n = 0
            learner.current[0] = epoch
            learner.begin[epoch] = now
            learner.surplus[0] = 0.0
            begin_anew(inner, learner.log_level[epoch])
    here = GLOWState(*(inner[:GAMMA] + (learner.slope[epoch],) + inner[AFTER:]))
    changed = plan(here, n * trajectories)
    learner.history[now] = inner.chosen[n]
    learner.member[0] = inner.chosen[n]
    return changed or moved


@act.implement(EpochsState)
def _(learner, h, s, rng):
    return learner.inner.policy[h, s]


@chance.implement(EpochsState)
def _(learner, h, s, a):
    return 1.0 if learner.inner.policy[h, s] == a else 0.0


@upper_value.implement(EpochsState)
def _(learner, h, s):
    return upper_value(learner.inner, h, s)


@observe.implement(EpochsState)
def _(learner, h, s, a, reward, s_next):
    inner = learner.inner
    if inner.empty[0] < 0 and not inner.finished[0] and learner.threshold.shape[1] > 0:
        if h == 0:
            learner.surplus[0] += inner.best[0, s, learner.member[0]]
        learner.surplus[0] -= (reward - inner.low) / inner.unit
    observe(inner, h, s, a, reward, s_next)


# ---- bounds


def glow_doubling_regret_bound(
    iterations: ArrayLike, *, first: int, delta: float, **settings: Any
) -> NDArray[np.float64]:
    """Bound on the regret of `GLOWDoubling` after any number of iterations, with probability at least 1 - delta.

    The sum of `glow_regret_bound` over the epochs begun, with delta / ((e + 1) (e + 2)), the last at what was played of
    it.

    Parameters
    ----------
    iterations : array
        T, over all epochs.
    first : int
        T_0.
    delta : float
    **settings
        As in `glow_regret_bound`.

    Returns
    -------
    ndarray of the shape of `iterations`

    Raises
    ------
    ValueError
        A number out of range, a shape that does not fit, or a count of weights that is missing or given twice.

    Notes
    -----
    docs/theory/glow.md#glow-doubling.
    """
    from theoryrl.density_ratio.bounds.glow import glow_regret_bound

    rounds, length = require_rounds(iterations), require_int(first, 1, "first")
    total, begun, epoch = np.zeros(rounds.shape), 0, 0
    while (rounds > begun).any():
        here = np.clip(rounds - begun, 1, length)
        level = delta / ((epoch + 1) * (epoch + 2))
        bound = glow_regret_bound(here, planned=length, delta=level, **settings)
        total = total + np.where(rounds > begun, bound, 0.0)
        begun, length, epoch = begun + length, 2 * length, epoch + 1
    return total


def glow_guessing_regret_bound(
    iterations: int, *, largest: float, coverability: ArrayLike, delta: float, **settings: Any
) -> float:
    """Bound on the regret of `GLOWGuessing` after its T iterations, with probability at least 1 - delta; at most T.

    4 E' + 2 sqrt(2 E' T log(8 E |F| T / delta) / K) + sum_{e < E'} (kappa / gamma_e + 1) H C^e H(T / C^e)
    + H B gamma_{E'-1} T L / K + 2 sqrt(2 E' T log(4 E T / delta) / K),

    E' the number of guesses up to the first that is right, E that of all; the second term for an unknown start law.

    Parameters
    ----------
    iterations : int
        T.
    largest : float
        The largest guess.
    coverability : float or (H,) array
        The true C_h, which the learner is not told.
    delta : float
    **settings
        The others of `glow_regret_bound`.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        A number out of range, a shape that does not fit, or a count of weights that is missing or given twice.

    Notes
    -----
    docs/theory/glow.md#glow-doubling.
    """
    rounds, every = float(require_int(iterations, 1, "iterations")), guesses(largest)
    truth = Setting(coverability=coverability, delta=delta, **settings)
    top = float(np.max(truth.coverability))
    if not top <= largest * (1 + 1e-9):
        raise ValueError(f"largest = {largest:g} is below the coverability {top:g}")
    used = [guess for e, guess in enumerate(every) if e == 0 or every[e - 1] < top]
    layers, trajectories, count = len(truth.coverability), truth.trajectories, len(used)
    common = dict(settings, horizon=layers, known_start=True)
    total, price, slope = 4.0 * count, 0.0, 0.0
    for guess in used:
        one = Setting(coverability=guess, delta=delta / (2 * len(every)), **common)
        slope, price = float(one.slope(np.float64(rounds))), float(one.price(np.float64(rounds)))
        total += (one.constants.clipped / slope + 1) * float(one.potential(np.float64(rounds)))
    total += slope * price * rounds / trajectories
    if not truth.known_start:
        log = math.log(8 * len(every) * truth.n_functions * rounds / delta)
        total += 2 * math.sqrt(2 * count * rounds * log / trajectories)
    total += 2 * math.sqrt(2 * count * rounds * math.log(4 * len(every) * rounds / delta) / trajectories)
    return truth.total_reward * min(total, rounds)
