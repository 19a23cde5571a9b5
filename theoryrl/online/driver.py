"""The compiled loop in which every learner plays, and the exact judge of what it plays."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl._jit import compiled, kernel
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.planning import backward_induction
from theoryrl.mdp.sampling import draw_initial, draw_step
from theoryrl.online.verbs import FRUGAL, VISITED, act, chance, observe, plan, sample, upper_value

# Sets of states as bits of one integer; two states may share a bit, then a value is computed that does not differ.
BITS = 31


class Judge(NamedTuple):
    """The truth, for measuring regret; no verb of a learner is ever given it."""

    indptr: NDArray[np.int64]  # rows (l * S + s) * A + a of positive probabilities
    successor: NDArray[np.uint32]
    probability: NDArray[np.float64]
    reward: NDArray[np.float64]  # (Lr, S, A) means
    initial: NDArray[np.float64]  # (S,)
    reachable: NDArray[np.int64]  # the states that some policy reaches at layer 0, then those at layer 1, ...
    layer_start: NDArray[np.int64]  # (H + 1,) where the states of each layer begin
    optimal: NDArray[np.float64]  # (H + 1, S)
    optimal_value: float  # at the initial distribution
    staged: bool
    reads: NDArray[np.int64]  # bits of the successors of each row: bit s' & BITS


def judge(mdp: FiniteHorizonMDP) -> Judge:
    """What the driver needs to know of `mdp` to evaluate policies exactly."""
    rows = mdp.to_sparse().transition
    optimal = backward_induction(mdp).value
    reachable = np.zeros((mdp.horizon, mdp.n_states), np.bool_)
    reachable[0] = mdp.initial > 0
    _reach(rows.indptr, rows.indices, mdp.n_actions, rows.staged, reachable)
    return Judge(
        rows.indptr,
        rows.indices,
        rows.data,
        mdp.reward_layers,
        mdp.initial,
        np.nonzero(reachable)[1],
        np.append(0, np.cumsum(reachable.sum(axis=1))),
        np.ascontiguousarray(optimal),
        float(mdp.initial @ optimal[0]),
        rows.staged,
        _bits(rows.indptr, rows.indices),
    )


@kernel("strict")
def _reach(indptr, successor, n_actions, staged, reachable):
    """Given layer 0 of `reachable`, mark the layers after it."""
    horizon, n_states = reachable.shape
    for h in range(horizon - 1):
        first = h * n_states * n_actions if staged else 0
        for s in range(n_states):
            if reachable[h, s]:
                for i in range(indptr[first + s * n_actions], indptr[first + (s + 1) * n_actions]):
                    reachable[h + 1, successor[i]] = True


def _bits(indptr: NDArray[np.int64], successor: NDArray[np.uint32]) -> NDArray[np.int64]:
    bits = np.append(np.int64(1) << (successor.astype(np.int64) & BITS), np.int64(0))
    reads = np.bitwise_or.reduceat(bits, indptr[:-1])
    reads[np.diff(indptr) == 0] = 0
    return reads


class Tally(NamedTuple):
    """What is written down during a run, one entry per checkpoint, and the running totals."""

    regret: NDArray[np.float64]  # (C,) sum over episodes so far of V*_0 - V^pi_0 at the initial distribution
    episode_regret: NDArray[np.float64]  # (C,) the same of the checkpoint's own episode
    collected: NDArray[np.float64]  # (C,) rewards received so far
    chances: NDArray[np.float64]  # (H, S, A) of the actions under the current policy, where it is reachable
    value: NDArray[np.float64]  # (H + 1, S) value of the current policy, where it is reachable
    reads: NDArray[np.int64]  # (H, S) bits of the successors under the current policy
    trail: NDArray[np.int64]  # (H,) states of the last episode
    running: NDArray[np.float64]  # [total regret, current regret, total reward, least upper_value - V*]


def tally(n_checkpoints: int, truth: Judge) -> Tally:
    """An empty tally."""
    regret, episode_regret, collected = (np.full(n_checkpoints, np.nan) for _ in range(3))
    shape = (truth.optimal.shape[0] - 1, *truth.reward.shape[1:])
    chances, value = np.full(shape, np.nan), np.zeros(truth.optimal.shape)
    reads, trail = np.zeros(shape[:2], np.int64), np.zeros(shape[0], np.int64)
    return Tally(regret, episode_regret, collected, chances, value, reads, trail, np.array([0.0, np.nan, 0.0, np.inf]))


def _play(learner, truth, sampler, record, checkpoints, first, last, watch, environment_rng, learner_rng):
    """Episodes `first` to `last - 1`; `checkpoints` (increasing) are numbers of episodes completed."""
    indptr, successor, probability, reward_mean = truth.indptr, truth.successor, truth.probability, truth.reward
    optimal, initial, value, running = truth.optimal, truth.initial, record.value, record.running
    layer_start, reachable = truth.layer_start, truth.reachable
    horizon, n_states, n_actions = record.chances.shape
    mark = np.searchsorted(checkpoints, first, side="right")
    for episode in range(first, last):
        sample(learner, learner_rng)
        changed = plan(learner, episode)
        if changed or episode == 0:
            everywhere = changed != VISITED or episode == 0
            moved = 0  # bits of the states whose value differs at the layer after
            for h in range(horizon - 1, -1, -1):
                stale, moved = moved, 0
                begin, end = layer_start[h], layer_start[h + 1]
                if not everywhere and stale == 0:
                    begin, end = 0, 1  # the state that was visited, alone
                row_layer = h * n_states * n_actions if truth.staged else 0
                reward_here = reward_mean[h if reward_mean.shape[0] > 1 else 0]
                chances, reads, value_here, value_next = record.chances[h], record.reads[h], value[h], value[h + 1]
                visited = record.trail[h]
                for k in range(begin, end):
                    s = reachable[k] if everywhere or stale != 0 else visited
                    differs = False
                    if everywhere or s == visited:
                        for a in range(n_actions):
                            weight = chance(learner, h, s, a)
                            if weight != chances[s, a]:
                                chances[s, a] = weight
                                differs = True
                        if differs:
                            reads[s] = 0
                            for a in range(n_actions):
                                if chances[s, a] > 0.0:
                                    reads[s] |= truth.reads[row_layer + s * n_actions + a]
                    if differs or reads[s] & stale:
                        total = 0.0
                        for a in range(n_actions):
                            if chances[s, a] > 0.0:
                                row = row_layer + s * n_actions + a
                                outcome = reward_here[s, a]
                                for i in range(indptr[row], indptr[row + 1]):
                                    outcome += probability[i] * value_next[successor[i]]
                                total += chances[s, a] * outcome
                        if total != value_here[s]:
                            value_here[s] = total
                            moved |= 1 << (s & BITS)
            if moved != 0 or episode == 0:
                start = 0.0
                for s in range(n_states):
                    start += initial[s] * value[0, s]
                running[1] = truth.optimal_value - start
        if watch:
            for h in range(horizon):
                for s in range(n_states):
                    margin = upper_value(learner, h, s) - optimal[h, s]
                    if margin < running[3] or margin != margin:  # a NaN is taken down and stays
                        running[3] = margin
        running[0] += running[1]
        s = draw_initial(sampler, environment_rng)
        for h in range(horizon):
            a = act(learner, h, s, learner_rng)
            record.trail[h] = s
            reward, s_next = draw_step(sampler, h, s, a, environment_rng)
            observe(learner, h, s, a, reward, s_next)
            running[2] += reward
            s = s_next
        if mark < checkpoints.shape[0] and checkpoints[mark] == episode + 1:
            record.regret[mark] = running[0]
            record.episode_regret[mark] = running[1]
            record.collected[mark] = running[2]
            mark += 1


# A learner defined outside the package is compiled afresh in each process: the disk cache cannot see its source change.
_cached, _fresh = compiled(_play, "strict"), compiled(_play, "strict", cache=False)
_uncounted = compiled(_play, "strict", borrowed=True)


def _lend(learner, truth, sampler, record, checkpoints, first, last, watch, environment_rng, learner_rng):
    _uncounted(learner, truth, sampler, record, checkpoints, first, last, watch, environment_rng, learner_rng)


_borrowed = compiled(_lend, "strict")


def play(learner: Any, *arguments: Any) -> None:
    """Run `_play` compiled, with or without the disk cache and the counting of references, as the learner allows."""
    if not type(learner).__module__.startswith("theoryrl."):
        loop = _fresh
    else:
        loop = _borrowed if type(learner) in FRUGAL else _cached
    loop(learner, *arguments)
