"""Run a learner on a model: seeds on threads, exact regret at checkpoints, the same bits for any number of workers."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl._lazy import above
from theoryrl.mdp._checks import require_int
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.randomness import as_seed_sequence
from theoryrl.mdp.sampling import sampler
from theoryrl.online.driver import Tally, judge, play, tally
from theoryrl.online.verbs import Problem

# A run reports its progress, and can be interrupted, about this often; the cuts do not touch its results.
SECONDS_BETWEEN_REPORTS = 0.5
DEFAULT_CHECKPOINTS = 60


@dataclass(frozen=True, eq=False)
class Run:
    """What came out of a run; one row per seed, one column per checkpoint.

    Attributes
    ----------
    checkpoints : int64 (C,)
        Numbers of episodes completed.
    regret : (seeds, C)
        Sum over the episodes so far of V*_0 - V^pi_0 at the initial distribution, pi the policy played: exact expected
        values (pseudo-regret), not realised rewards. Accurate to rounding, so a zero may show as -1e-13.
    episode_regret : (seeds, C)
        The same of the single episode that ends at the checkpoint.
    collected : (seeds, C)
        Rewards received so far.
    least_margin : (seeds,), NaN unless the run was watched
        The least value, over episodes, layers and states, of the learner's upper estimate minus V*: optimism held
        throughout if it is not negative.
    learner : the settings that were run; mdp, episodes, provable, seed.
    states : tuple of final learner states, one per seed; empty unless `keep_states`.
    """

    checkpoints: NDArray[np.int64]
    regret: NDArray[np.float64]
    episode_regret: NDArray[np.float64]
    collected: NDArray[np.float64]
    least_margin: NDArray[np.float64]
    learner: Any
    mdp: FiniteHorizonMDP
    episodes: int
    provable: bool
    seed: str
    states: tuple[Any, ...] = field(repr=False)

    def to_frame(self) -> Any:
        """A tidy pandas frame: learner, model, seed, episode, metric, value."""
        import pandas as pd

        metrics = {"regret": self.regret, "episode_regret": self.episode_regret, "collected": self.collected}
        seeds, width = self.regret.shape
        return pd.DataFrame(
            {
                "learner": type(self.learner).__name__,
                "model": self.mdp.name,
                "seed": np.tile(np.repeat(np.arange(seeds), width), len(metrics)),
                "episode": np.tile(self.checkpoints, seeds * len(metrics)),
                "metric": np.repeat(list(metrics), seeds * width),
                "value": np.concatenate([table.ravel() for table in metrics.values()]),
            }
        )

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Regret against episodes with a band over seeds; see `theoryrl.viz.plot_regret`."""
        return above("viz").plot_regret(self, ax=ax, **options)


def run(
    learner: Any,
    mdp: FiniteHorizonMDP,
    episodes: int,
    seeds: int = 1,
    rng: Any = 0,
    *,
    jobs: int | None = None,
    checkpoints: Sequence[int] | None = None,
    watch: bool = False,
    keep_states: bool = False,
    progress: Callable[[float, float, str], None] | None = None,
) -> Run:
    """Let `learner` play `episodes` episodes on `mdp`, once per seed, and measure its regret exactly.

    Parameters
    ----------
    learner : settings object with `init(problem)`, e.g. `UCBVI()`
        Its state is created from the sizes, the reward range and the allowed actions alone; it never sees the model.
        A learner that rests on an assumption about the model (a realizable class, linear features) has a method
        `require(mdp)` that raises if it does not hold: it is called once, before anything is played. One that can
        come to the end of its means has a method `fault(state)`, which returns None or one line that says what
        happened: it is asked between episodes.
    mdp : FiniteHorizonMDP
    episodes : int, at least 1
    seeds : int
        Independent runs. Run i has its own two streams, environment and learner, and does not depend on `seeds`; two
        learners run with the same `rng` meet the same environment stream.
    rng : int, SeedSequence or Generator
    jobs : int, optional
        Threads; default one per core. The result does not depend on it.
    checkpoints : increasing integers between 1 and `episodes`, optional
        After how many episodes to write down; default about 60, evenly spread on a logarithmic scale.
    watch : bool
        Compare the learner's upper estimates with V* before every episode (`least_margin`).
    keep_states : bool
        Keep the learners' final states in `states`; they can be large (UCBVI's is of size S * A * S).
    progress : callable (done, total, text), optional

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        If a number is out of range; it is named. If sums of rewards could overflow. If the learner requires of the
        model what it does not have, or comes to a fault, such as an empty confidence set; of several seeds that do,
        the first is named.
    TypeError
        If `learner` has no `init` or `mdp` is not a FiniteHorizonMDP.
    """
    if not isinstance(mdp, FiniteHorizonMDP):
        raise TypeError(f"mdp must be a FiniteHorizonMDP, not {type(mdp).__name__}")
    if isinstance(learner, type) or not callable(getattr(learner, "init", None)):
        raise TypeError(f"learner must be a settings object with init(problem), such as UCBVI(), not {learner!r}")
    episodes, seeds = require_int(episodes, 1, "episodes"), require_int(seeds, 1, "seeds")
    jobs = (os.cpu_count() or 1) if jobs is None else require_int(jobs, 1, "jobs")
    marks = _marks(checkpoints, episodes)
    low, high = mdp.reward_range
    problem = Problem(
        mdp.n_states, mdp.n_actions, mdp.horizon, low, high, stationary=mdp.stationary, action_mask=mdp.action_mask
    )
    largest = max(abs(low), abs(high))
    if not 2.0 * episodes * mdp.horizon * largest < math.inf:
        raise ValueError(f"rewards up to {largest:g} in {episodes} episodes add up to more than a float can hold")
    if hasattr(learner, "require"):
        learner.require(mdp)
    fault = getattr(learner, "fault", None)
    truth, tables = judge(mdp), sampler(mdp)
    root = as_seed_sequence(rng)
    stop, lock, done = threading.Event(), threading.Lock(), [0]

    def one(index: int, stream: np.random.SeedSequence) -> tuple[Any, Tally]:
        environment, own = (np.random.Generator(np.random.PCG64(child)) for child in stream.spawn(2))
        state, record = learner.init(problem), tally(len(marks), truth)
        first, chunk = 0, 1
        while first < episodes and not stop.is_set():
            last, start = min(first + chunk, episodes), time.perf_counter()
            play(state, truth, tables, record, marks, first, last, watch, environment, own)
            message = fault(state) if fault else None
            if message:
                raise ValueError(f"{type(learner).__name__} on {mdp.name or 'the model'}, seed {index}: {message}")
            chunk = 2 * chunk if time.perf_counter() - start < SECONDS_BETWEEN_REPORTS / 2 else max(1, chunk // 2)
            with lock:
                done[0] += last - first
                if progress is not None:
                    progress(done[0], seeds * episodes, f"{type(learner).__name__} on {mdp.name or 'the model'}")
            first = last
        return state if keep_states else None, record

    with ThreadPoolExecutor(min(seeds, jobs)) as pool:
        try:
            results = list(pool.map(one, range(seeds), root.spawn(seeds)))
        except BaseException:
            stop.set()
            raise
    records = [record for _, record in results]
    return Run(
        checkpoints=marks,
        regret=np.stack([record.regret for record in records]),
        episode_regret=np.stack([record.episode_regret for record in records]),
        collected=np.stack([record.collected for record in records]),
        least_margin=np.array([record.running[3] if watch else np.nan for record in records]),
        learner=learner,
        mdp=mdp,
        episodes=episodes,
        provable=bool(learner.provable),
        seed=repr(root) if not isinstance(rng, int) else str(rng),
        states=tuple(state for state, _ in results if keep_states),
    )


def _marks(checkpoints: Sequence[int] | None, episodes: int) -> NDArray[np.int64]:
    if checkpoints is None:
        return np.unique(np.rint(np.geomspace(1, episodes, DEFAULT_CHECKPOINTS)).astype(np.int64))
    marks = np.asarray(checkpoints)
    if marks.ndim != 1 or marks.size == 0 or marks.dtype.kind not in "iu":
        raise ValueError("checkpoints must be a non-empty sequence of integers")
    if marks[0] < 1 or marks[-1] > episodes or not (np.diff(marks) > 0).all():
        raise ValueError(f"checkpoints must increase strictly from at least 1 to at most {episodes}")
    return marks.astype(np.int64)
