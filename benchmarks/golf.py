"""Learners with function classes: what an episode costs, early and late, by size of the class; one thread, CPU time.

No peer has GOLF or OLIVE. The contender of GOLF's test is the textbook: numpy over the raw transitions, every time.
LSVI-UCB plans before every episode, or when a determinant has doubled.
"""

import os
import time

import numpy as np

import theoryrl as trl
from benchmarks.timing import race
from theoryrl.classes import complete_class, realizable_class
from theoryrl.envs.linear import linear_mdp
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler
from theoryrl.online import GOLF, LSVIUCB, OLIVE, Problem, driver
from theoryrl.online.verbs import act, observe, plan

TURNS = 3
EARLY, LATE, LENGTH = 100, 10_000, 500


def problem_of(mdp):
    """What a learner is told of `mdp`."""
    return Problem(mdp.n_states, mdp.n_actions, mdp.horizon, *mdp.reward_range, mdp.stationary, mdp.action_mask)


def episode_costs(case, name, learner, mdp, moments=(EARLY, LATE)):
    """CPU microseconds per episode of the LENGTH episodes that begin at each of `moments`; least of TURNS runs."""
    truth, tables, none = driver.judge(mdp), sampler(mdp), np.zeros(0, np.int64)
    least = dict.fromkeys(moments, np.inf)
    for turn in range(TURNS + 1):  # the first turn compiles
        state, record = learner.init(problem_of(mdp)), driver.tally(0, truth)
        streams = [np.random.default_rng([turn, role]) for role in range(2)]
        played = 0
        for moment in moments:
            driver.play(state, truth, tables, record, none, played, moment, False, *streams)
            start = time.process_time()
            driver.play(state, truth, tables, record, none, moment, moment + LENGTH, False, *streams)
            spent = (time.process_time() - start) / LENGTH * 1e6
            played = moment + LENGTH
            if turn:
                least[moment] = min(least[moment], spent)
    base = least[moments[0]]
    for moment, spent in least.items():
        yield {
            "case": case,
            "contender": f"{name}, from episode {moment}",
            "cpu_us_per_episode": spent,
            "episodes_per_second": 1e6 / spent,
            "ratio": spent / base,
            "samples": TURNS,
            "load": os.getloadavg()[0],
        }


def by_size(chain):
    """GOLF on lists of 10 to 1000 members and on products, OLIVE, on the chain; all of them realizable."""
    for size in (10, 100, 1000):
        cls = realizable_class(chain, size - 1, kind="random", rng=0)
        for test in ("lazy", "full") if size <= 10 else ("lazy",):
            learner = GOLF(cls, test=test, check=False)
            yield from episode_costs("GOLF, list, chain S=20 A=2 H=20", f"nF={size}, {test}", learner, chain)
    for distractors in (1, 5):
        cls = complete_class(chain, distractors, rng=0)
        name = f"m_h up to {max(cls.sizes)}, lazy"
        yield from episode_costs("GOLF, product, chain S=20 A=2 H=20", name, GOLF(cls, check=False), chain)
    cls = realizable_class(chain, 99, kind="random", rng=0)
    learner = OLIVE(cls, 1.0, check=False)
    yield from episode_costs("OLIVE, chain S=20 A=2 H=20", "nF=100", learner, chain)


def linear():
    """LSVI-UCB on a random linear MDP."""
    env = linear_mdp(n_states=20, n_actions=4, dimension=5, horizon=10, rng=0)
    for replan in ("always", "doubling"):
        learner = LSVIUCB(env.features, replan=replan)
        yield from episode_costs("LSVI-UCB, S=20 A=4 H=10 d=5", f"replan={replan}", learner, env.mdp)


def against_raw_transitions(chain):
    """One test of a candidate of 100 after 1000 episodes: from the sums, and from the transitions."""
    cls = realizable_class(chain, 99, kind="random", rng=0)
    state, tables, rng = GOLF(cls, check=False).init(problem_of(chain)), sampler(chain), np.random.default_rng(0)
    data = [[] for _ in range(chain.horizon)]
    for episode in range(1000):
        plan(state, episode)
        s = draw_initial(tables, rng)
        for h in range(chain.horizon):
            a = int(act(state, h, s, rng))
            reward, t = draw_step(tables, h, s, a, rng)
            observe(state, h, s, a, reward, t)
            data[h].append((s, a, reward, t))
            s = t
    columns = [tuple(np.array(column) for column in zip(*rows, strict=True)) for rows in data]
    member, values = int(state.path[0]), cls.state_values()

    def from_transitions():
        excess = []
        for h, (s, a, r, t) in enumerate(columns):
            target = r + values[member, h + 1, t]
            losses = ((cls.values[:, h, s, a] - target) ** 2).sum(axis=1)
            excess.append(losses[member] - losses.min())
        return np.array(excess)

    from theoryrl.online._golf_kernels import losses_of_column

    def from_sums():
        excess = []
        for h in range(chain.horizon):
            losses, seen = np.zeros(cls.size), state.n_visited[h]
            least = losses_of_column(
                state.values[h], cls.size, state.target_sum[h, member], state.visits[h], state.visited[h], seen, losses
            )
            excess.append(losses[member] - least)
        return np.array(excess)

    yield from race(
        "GOLF: one test of a candidate, nF=100, 1000 episodes of data",
        {"theoryrl": from_sums, "numpy over raw transitions": from_transitions},
        seconds=2,
        reference=from_transitions(),
    )


def measure():
    """Episodes by size of the class, then linear features, then a single test."""
    chain = trl.envs.make("chain")
    yield from by_size(chain)
    yield from linear()
    yield from against_raw_transitions(chain)
