"""The compiled loop in which every learner plays, and the exact judge of what it plays."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl._jit import compiled
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.planning import backward_induction
from theoryrl.mdp.sampling import draw_initial, draw_step
from theoryrl.online.verbs import act, chance, observe, plan, upper_value


class Judge(NamedTuple):
    """The truth, for measuring regret; no verb of a learner is ever given it."""

    indptr: NDArray[np.int64]  # rows (l * S + s) * A + a of positive probabilities
    successor: NDArray[np.uint32]
    probability: NDArray[np.float64]
    reward: NDArray[np.float64]  # (Lr, S, A) means
    initial: NDArray[np.float64]  # (S,)
    optimal: NDArray[np.float64]  # (H + 1, S)
    optimal_value: float  # at the initial distribution
    staged: bool


def judge(mdp: FiniteHorizonMDP) -> Judge:
    """What the driver needs to know of `mdp` to evaluate policies exactly."""
    rows = mdp.to_sparse().transition
    optimal = backward_induction(mdp).value
    return Judge(
        rows.indptr,
        rows.indices,
        rows.data,
        mdp.reward_layers,
        mdp.initial,
        np.ascontiguousarray(optimal),
        float(mdp.initial @ optimal[0]),
        rows.staged,
    )


class Tally(NamedTuple):
    """What is written down during a run, one entry per checkpoint, and the running totals."""

    regret: NDArray[np.float64]  # (C,) sum over episodes so far of V*_0 - V^pi_0 at the initial distribution
    episode_regret: NDArray[np.float64]  # (C,) the same of the checkpoint's own episode
    collected: NDArray[np.float64]  # (C,) rewards received so far
    value: NDArray[np.float64]  # (H + 1, S) value of the current policy
    running: NDArray[np.float64]  # [total regret, current regret, total reward, least upper_value - V*]


def tally(n_checkpoints: int, truth: Judge) -> Tally:
    """An empty tally."""
    columns = [np.full(n_checkpoints, np.nan) for _ in range(3)]
    return Tally(*columns, np.zeros(truth.optimal.shape), np.array([0.0, np.nan, 0.0, np.inf]))


def _play(learner, truth, sampler, record, checkpoints, first, last, watch, environment_rng, learner_rng):
    """Episodes `first` to `last - 1`; `checkpoints` (increasing) are numbers of episodes completed."""
    indptr, successor, probability, reward_mean = truth.indptr, truth.successor, truth.probability, truth.reward
    optimal, initial, value, running = truth.optimal, truth.initial, record.value, record.running
    horizon, n_states, n_actions = optimal.shape[0] - 1, reward_mean.shape[1], reward_mean.shape[2]
    mark = np.searchsorted(checkpoints, first, side="right")
    for episode in range(first, last):
        changed = plan(learner, episode)
        if changed or episode == 0:
            for h in range(horizon - 1, -1, -1):
                row_layer = h * n_states * n_actions if truth.staged else 0
                reward_layer = h if reward_mean.shape[0] > 1 else 0
                value_next = value[h + 1]
                for s in range(n_states):
                    total = 0.0
                    for a in range(n_actions):
                        weight = chance(learner, h, s, a)
                        if weight > 0.0:
                            row = row_layer + s * n_actions + a
                            outcome = reward_mean[reward_layer, s, a]
                            for i in range(indptr[row], indptr[row + 1]):
                                outcome += probability[i] * value_next[successor[i]]
                            total += weight * outcome
                    value[h, s] = total
            start = 0.0
            for s in range(n_states):
                start += initial[s] * value[0, s]
            running[1] = truth.optimal_value - start
        if watch:
            for h in range(horizon):
                for s in range(n_states):
                    margin = upper_value(learner, h, s) - optimal[h, s]
                    if not (margin >= running[3]):
                        running[3] = margin
        running[0] += running[1]
        s = draw_initial(sampler, environment_rng)
        for h in range(horizon):
            a = act(learner, h, s, learner_rng)
            reward, s_next = draw_step(sampler, h, s, a, environment_rng)
            observe(learner, h, s, a, reward, s_next)
            running[2] += reward
            s = s_next
        if mark < checkpoints.shape[0] and checkpoints[mark] == episode + 1:
            record.regret[mark] = running[0]
            record.episode_regret[mark] = running[1]
            record.collected[mark] = running[2]
            mark += 1


_cached = compiled(_play, "strict")
# A learner defined outside the package is compiled afresh in each process: the disk cache cannot see its source change.
_fresh = compiled(_play, "strict", cache=False)


def play(learner: Any, *arguments: Any) -> None:
    """Run `_play` compiled, with or without the disk cache, as the learner's origin allows."""
    (_cached if type(learner).__module__.startswith("theoryrl.") else _fresh)(learner, *arguments)


