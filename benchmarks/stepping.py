"""Environment steps per second: the library's loops, a hand-written one, and gymnasium, in one run on one thread.

Times are the least CPU time of several repetitions, after a call that compiles, so that other processes on the machine
hardly show. `floor` is what a step cannot go below: one uniform from NumPy's generator.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np

import theoryrl as trl
from theoryrl._jit import compiled
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler

REPETITIONS = 5


def chain(n_states: int, horizon: int = 20) -> trl.FiniteHorizonMDP:
    """Left and right, which slip with probability 0.1; reward at the right end."""
    transition = np.zeros((n_states, 2, n_states))
    for s in range(n_states):
        left, right = max(s - 1, 0), min(s + 1, n_states - 1)
        for a, (intended, other) in enumerate([(left, right), (right, left)]):
            transition[s, a, intended] += 0.9
            transition[s, a, other] += 0.1
    reward = np.zeros((n_states, 2))
    reward[-1, 1] = 1
    return trl.FiniteHorizonMDP(transition, reward, horizon=horizon)


def _play(tables, policy, steps, rng):
    total, s = 0.0, draw_initial(tables, rng)
    for _ in range(steps):
        reward, s = draw_step(tables, 0, s, policy[s], rng)
        total += reward
    return total


def _by_hand(cumulative, reward, policy, steps, rng):
    total, s = 0.0, 0
    for _ in range(steps):
        a = policy[s]
        u, s_next = rng.random(), 0
        while u >= cumulative[s, a, s_next]:
            s_next += 1
        total += reward[s, a]
        s = s_next
    return total


def _uniforms(steps, rng):
    total = 0.0
    for _ in range(steps):
        total += rng.random()
    return total


play, by_hand, uniforms = (compiled(loop, "strict", cache=False) for loop in (_play, _by_hand, _uniforms))


def rate(call: Callable[[], object], steps: int) -> float:
    """Steps per second of CPU time."""
    call()
    best = np.inf
    for _ in range(REPETITIONS):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return steps / best


def in_batches(mdp: trl.FiniteHorizonMDP, copies: int, steps: int) -> Callable[[], None]:
    """Step `copies` copies together."""
    simulator, actions = trl.BatchSimulator(mdp, copies), np.ones(copies, np.int64)

    def call() -> None:
        for _ in range(steps // copies):
            if simulator.step_number == mdp.horizon:
                simulator.reset()
            simulator.step(actions)

    return call


def in_gymnasium(steps: int) -> Callable[[], None]:
    """Step FrozenLake without wrappers."""
    env = gymnasium.make("FrozenLake-v1").unwrapped
    env.reset(seed=0)

    def call() -> None:
        for _ in range(steps):
            if env.step(1)[2]:
                env.reset()

    return call


def rates() -> dict[str, float]:
    """Steps per second of each loop."""
    rng = np.random.default_rng(0)
    right, short = np.ones(20, np.int64), chain(20)
    wide = trl.FiniteHorizonMDP(rng.dirichlet(np.ones(500), (500, 4)), np.zeros((500, 4)), horizon=20)
    cumulative = short.transition.cumsum(axis=-1)
    cumulative[..., -1] = 1
    tables, dense_tables = sampler(short), sampler(wide)
    coin = sampler(short.with_reward(short.reward, reward_law="bernoulli"))
    million = 10**6
    return {
        "floor: one uniform": rate(lambda: uniforms(5 * million, rng), 5 * million),
        "chain of 20 states": rate(lambda: play(tables, right, 5 * million, rng), 5 * million),
        "the same by hand, dense inverse CDF": rate(
            lambda: by_hand(cumulative, short.reward, right, 5 * million, rng), 5 * million
        ),
        "chain of 20 states, Bernoulli rewards": rate(lambda: play(coin, right, 5 * million, rng), 5 * million),
        "dense, 500 states (alias tables)": rate(
            lambda: play(dense_tables, np.zeros(500, np.int64), million, rng), million
        ),
        "rollout into columns": rate(lambda: trl.rollout(short, right, million // 20, jobs=1), million),
        "batch of 1024": rate(in_batches(short, 1024, million), million // 1024 * 1024),
        "gymnasium FrozenLake": rate(in_gymnasium(20_000), 20_000),
    }


def measure() -> Iterator[dict[str, Any]]:
    """One record per loop; `ratio` is its time per step over that of one uniform."""
    found = rates()
    floor = found["floor: one uniform"]
    for name, steps in found.items():
        yield {"case": "environment steps", "contender": name, "steps_per_second": steps, "ratio": floor / steps}
