# mypy: allow-untyped-calls
"""Run a learner until it says that it has seen enough, and judge exactly what it then stands for."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl._jit import compiled
from theoryrl.mdp._checks import require_int
from theoryrl.mdp.batch import backward_induction_rewards
from theoryrl.mdp.evaluation import evaluate
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.planning import backward_induction
from theoryrl.mdp.randomness import as_seed_sequence
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler
from theoryrl.online.run import SECONDS_BETWEEN_REPORTS
from theoryrl.online.verbs import Problem, act, observe, plan, sample, stopped

# Of more (layer, state, action) triples than this, so many are tried one by one as rewards.
SINGLE_REWARDS = 256


def _explore(learner, tables, horizon, first, last, most, environment_rng, learner_rng):  # type: ignore[no-untyped-def]
    """Episodes `first` to `last - 1` unless the learner stops before one; the number of episodes played, or -1.

    Episode number `most` is only planned, so that the last plan has seen all that was played.
    """
    for episode in range(first, last):
        sample(learner, learner_rng)
        plan(learner, episode)
        if stopped(learner):
            return episode
        if episode < most:
            s = draw_initial(tables, environment_rng)
            for h in range(horizon):
                a = act(learner, h, s, learner_rng)
                reward, s_next = draw_step(tables, h, s, a, environment_rng)
                observe(learner, h, s, a, reward, s_next)
                s = s_next
    return -1


_cached = compiled(_explore, "strict")
# As in the driver of `run`: the disk cache cannot see a learner outside the package change.
_fresh = compiled(_explore, "strict", cache=False)


@dataclass(frozen=True, eq=False)
class Identification:
    """When learners stopped, and what they recommend; one row per seed.

    Attributes
    ----------
    episodes : int64 (seeds,)
        Episodes played: the stopping time, or `max_episodes`.
    stopped : bool (seeds,)
        Whether the learner stopped by itself.
    policy : int64 (seeds, H, S), or None of a reward-free learner
        What it recommends: now, if it did not stop.
    gap : (seeds,), NaN of a reward-free learner
        V*_0 - V^policy_0 at the initial distribution, exact up to rounding.
    models : tuple of (S, A, S) or (H, S, A, S) arrays, empty unless the learner is reward-free
        The empirical transitions, one per seed.
    learner : the settings that were run; mdp, max_episodes, provable, seed.
    states : tuple of final learner states, empty unless `keep_states`.
    """

    episodes: NDArray[np.int64]
    stopped: NDArray[np.bool_]
    policy: NDArray[np.int64] | None
    gap: NDArray[np.float64]
    models: tuple[NDArray[np.float64], ...] = field(repr=False)
    learner: Any
    mdp: FiniteHorizonMDP
    max_episodes: int
    provable: bool
    seed: str
    states: tuple[Any, ...] = field(repr=False)

    def plug_in_losses(self, rewards: ArrayLike) -> NDArray[np.float64]:
        """What planning in each seed's empirical model loses under each reward, (seeds, K); see `plug_in_losses`.

        Raises
        ------
        ValueError
            If the learner is not reward-free.
        """
        if not self.models:
            raise ValueError(f"{type(self.learner).__name__} keeps no model: it recommends a policy")
        return np.stack([plug_in_losses(self.mdp, model, rewards) for model in self.models])

    def to_frame(self) -> Any:
        """A pandas frame with one row per seed: learner, model, seed, episodes, stopped, gap."""
        import pandas as pd

        return pd.DataFrame(
            {
                "learner": type(self.learner).__name__,
                "model": self.mdp.name,
                "seed": np.arange(len(self.episodes)),
                "episodes": self.episodes,
                "stopped": self.stopped,
                "gap": self.gap,
            }
        )


def identify(
    learner: Any,
    mdp: FiniteHorizonMDP,
    max_episodes: int,
    seeds: int = 1,
    rng: Any = 0,
    *,
    jobs: int | None = None,
    keep_states: bool = False,
    progress: Callable[[float, float, str], None] | None = None,
) -> Identification:
    """Let `learner` play on `mdp` until it stops, once per seed, and judge exactly what it stands for.

    Parameters
    ----------
    learner : settings object with `init(problem)`, and `recommend(state)` or `model(state)`
        `BPIUCBVI` recommends a policy (H, S); `RFUCRL` and `RFExpress` hand over an empirical model.
    mdp : FiniteHorizonMDP
    max_episodes : int, at least 1
        Where to break off a learner that has not stopped.
    seeds : int
        Independent runs, with streams as in `run`.
    rng : int, SeedSequence or Generator
    jobs : int, optional
        Threads; default one per core. The result does not depend on it.
    keep_states : bool
    progress : callable (done, total, text), optional
        Counts runs.

    Returns
    -------
    Identification

    Raises
    ------
    ValueError
        If a number is out of range; it is named.
    TypeError
        If `learner` cannot be used so, or `mdp` is not a FiniteHorizonMDP.
    """
    if not isinstance(mdp, FiniteHorizonMDP):
        raise TypeError(f"mdp must be a FiniteHorizonMDP, not {type(mdp).__name__}")
    stands_for = hasattr(learner, "recommend") or hasattr(learner, "model")
    if isinstance(learner, type) or not callable(getattr(learner, "init", None)) or not stands_for:
        raise TypeError(
            f"learner must be settings with init and recommend or model, such as BPIUCBVI(), not {learner!r}"
        )
    most, seeds = require_int(max_episodes, 1, "max_episodes"), require_int(seeds, 1, "seeds")
    jobs = (os.cpu_count() or 1) if jobs is None else require_int(jobs, 1, "jobs")
    low, high = mdp.reward_range
    problem = Problem(
        mdp.n_states, mdp.n_actions, mdp.horizon, low, high, stationary=mdp.stationary, action_mask=mdp.action_mask
    )
    tables, root = sampler(mdp), as_seed_sequence(rng)
    halt, lock, done = threading.Event(), threading.Lock(), [0]

    def one(stream: np.random.SeedSequence) -> tuple[Any, int]:
        environment, own = (np.random.Generator(np.random.PCG64(child)) for child in stream.spawn(2))
        state = learner.init(problem)
        explore = _cached if type(state).__module__.startswith("theoryrl.") else _fresh
        first, chunk, played = 0, 1, -1
        while first <= most and played < 0 and not halt.is_set():
            last, start = min(first + chunk, most + 1), time.perf_counter()
            played = int(explore(state, tables, mdp.horizon, first, last, most, environment, own))
            chunk = 2 * chunk if time.perf_counter() - start < SECONDS_BETWEEN_REPORTS / 2 else max(1, chunk // 2)
            first = last
        with lock:
            done[0] += 1
            if progress is not None:
                progress(done[0], seeds, f"{type(learner).__name__} on {mdp.name or 'the model'}")
        return state, played

    with ThreadPoolExecutor(min(seeds, jobs)) as pool:
        try:
            results = list(pool.map(one, root.spawn(seeds)))
        except BaseException:
            halt.set()
            raise
    played = np.array([count for _, count in results])
    policy, gap = None, np.full(seeds, np.nan)
    if hasattr(learner, "recommend"):
        optimal = backward_induction(mdp).value[0]
        policy = np.stack([learner.recommend(state) for state, _ in results])
        gap = np.array([float(mdp.initial @ (optimal - evaluate(mdp, each)[0])) for each in policy])
    return Identification(
        episodes=np.where(played < 0, most, played),
        stopped=played >= 0,
        policy=policy,
        gap=gap,
        models=tuple(learner.model(state) for state, _ in results if hasattr(learner, "model")),
        learner=learner,
        mdp=mdp,
        max_episodes=most,
        provable=bool(learner.provable),
        seed=repr(root) if not isinstance(rng, int) else str(rng),
        states=tuple(state for state, _ in results if keep_states),
    )


def plug_in_losses(mdp: FiniteHorizonMDP, model: ArrayLike, rewards: ArrayLike) -> NDArray[np.float64]:
    """What is lost, under each reward, by planning with wrong transitions: V*_0 - V^pi_0 at the initial distribution.

    pi is optimal for the reward and the transitions `model`; both values are those of `mdp`'s transitions.

    Parameters
    ----------
    mdp : FiniteHorizonMDP
        The truth; its own reward is not used.
    model : (S, A, S) or (H, S, A, S)
    rewards : (K, S, A) or (K, H, S, A)

    Returns
    -------
    ndarray (K,)
    """
    wrong = _with_transition(mdp, model)
    policy = backward_induction_rewards(wrong, rewards).policy
    optimal = backward_induction_rewards(mdp, rewards).value[:, 0] @ mdp.initial
    table = np.asarray(rewards, float)
    layers = np.broadcast_to(table if table.ndim == 4 else table[:, np.newaxis], _full(mdp, len(table)))
    kernel = mdp.to_dense().transition_layers
    value, states = np.zeros((len(table), mdp.n_states)), np.arange(mdp.n_states)
    for h in range(mdp.horizon - 1, -1, -1):
        chosen = policy[:, h]
        rows = kernel[h if len(kernel) > 1 else 0][states, chosen]
        gained = np.take_along_axis(layers[:, h], chosen[..., np.newaxis], axis=2)[..., 0]
        value = gained + np.einsum("kst,kt->ks", rows, value)
    return optimal - value @ mdp.initial


def hard_rewards(
    mdp: FiniteHorizonMDP, model: ArrayLike, rng: Any = 0, *, starts: int = 100, rounds: int = 5
) -> NDArray[np.float64]:
    """Rewards in [0, 1] under which planning with the transitions `model` loses much, found by a local search.

    With pi optimal in the truth and pi^ in `model` under a reward r, the reward that is 1 where d^pi > d^pi^ and 0
    elsewhere maximises the loss <d^pi - d^pi^, r> of that pair. From random rewards (sparse, dense, in between) the
    search goes all the way, half or a quarter of the way there, whichever really loses most, as long as the loss grows.
    Rewards paid for a single (layer, state, action) come first: all of them, or 256 drawn at random if there are more.

    Parameters
    ----------
    mdp : FiniteHorizonMDP
        The truth; its own reward is not used.
    model : (S, A, S) or (H, S, A, S)
    rng : int, SeedSequence or Generator
    starts, rounds : int
        Random rewards and steps of the search.

    Returns
    -------
    ndarray (min(H S A, 256) + starts, H, S, A)
    """
    shape = _full(mdp, 1)[1:]
    generator = np.random.Generator(np.random.PCG64(as_seed_sequence(rng)))
    entries = np.arange(int(np.prod(shape)))
    if len(entries) > SINGLE_REWARDS:
        entries = np.sort(generator.choice(entries, SINGLE_REWARDS, replace=False))
    single = np.zeros((len(entries), *shape))
    single.reshape(len(entries), -1)[np.arange(len(entries)), entries] = 1.0
    found = generator.random((starts, *shape))
    # Half of the rewards are 0 or 1.
    found[::2] = found[::2] < generator.random((len(found[::2]), 1, 1, 1))
    wrong, losses = _with_transition(mdp, model), plug_in_losses(mdp, model, found)
    for _ in range(rounds):
        here = _occupancies(mdp, backward_induction_rewards(mdp, found).policy)
        there = _occupancies(mdp, backward_induction_rewards(wrong, found).policy)
        best, towards = found.copy(), (here > there).astype(float)
        for step in (1.0, 0.5, 0.25):
            moved = found + step * (towards - found)
            gained = plug_in_losses(mdp, model, moved)
            grows = gained > losses
            best[grows], losses[grows] = moved[grows], gained[grows]
        found = best
    return np.concatenate([single, found])


def _full(mdp: FiniteHorizonMDP, count: int) -> tuple[int, int, int, int]:
    return count, mdp.horizon, mdp.n_states, mdp.n_actions


def _with_transition(mdp: FiniteHorizonMDP, model: ArrayLike) -> FiniteHorizonMDP:
    reward = np.zeros((mdp.n_states, mdp.n_actions))
    table: Any = model
    return FiniteHorizonMDP(
        table, reward, horizon=mdp.horizon, initial=mdp.initial, action_mask=mdp.action_mask, reward_range=(0.0, 1.0)
    )


def _occupancies(mdp: FiniteHorizonMDP, policy: NDArray[np.int64]) -> NDArray[np.float64]:
    """d_h(s, a) of each policy (K, H, S), as (K, H, S, A)."""
    kernel, states = mdp.to_dense().transition_layers, np.arange(mdp.n_states)
    out = np.zeros(_full(mdp, len(policy)))
    here = np.tile(mdp.initial, (len(policy), 1))
    for h in range(mdp.horizon):
        np.put_along_axis(out[:, h], policy[:, h, :, np.newaxis], here[..., np.newaxis], axis=2)
        here = np.einsum("ks,kst->kt", here, kernel[h if len(kernel) > 1 else 0][states, policy[:, h]])
    return out
