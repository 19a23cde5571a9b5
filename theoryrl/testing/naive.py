"""Reference twins: finite-horizon planning in plain Python, explicit sums over lists and dicts, obviously right."""

from __future__ import annotations

from typing import Any

from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.policy import stochastic_layers

Table = list[list[float]]


def rows(mdp: FiniteHorizonMDP) -> list[list[list[dict[int, float]]]]:
    """`rows(mdp)[h][s][a]` maps every successor to its probability; empty where the action is forbidden."""
    kernel = mdp.to_dense().transition_layers.tolist()
    return [
        [
            [
                {t: p for t, p in enumerate(kernel[h % len(kernel)][s][a]) if p != 0} if mdp.action_mask[s, a] else {}
                for a in range(mdp.n_actions)
            ]
            for s in range(mdp.n_states)
        ]
        for h in range(mdp.horizon)
    ]


def evaluate_q(mdp: FiniteHorizonMDP, value: Table) -> list[Table]:
    """Q[h][s][a] = r_h(s, a) + sum over s' of P_h(s' | s, a) V[h+1][s'] for a table V (H+1, S); -inf if forbidden."""
    successors, reward = rows(mdp), mdp.reward_layers.tolist()
    return [
        [
            [
                reward[h % len(reward)][s][a] + sum(p * value[h + 1][t] for t, p in successors[h][s][a].items())
                if mdp.action_mask[s, a]
                else float("-inf")
                for a in range(mdp.n_actions)
            ]
            for s in range(mdp.n_states)
        ]
        for h in range(mdp.horizon)
    ]


def backward_induction(mdp: FiniteHorizonMDP) -> tuple[Table, list[list[int]]]:
    """Optimal value (H+1, S) and policy (H, S), the lowest-numbered maximiser, as lists."""
    value = [[0.0] * mdp.n_states for _ in range(mdp.horizon + 1)]
    policy = [[0] * mdp.n_states for _ in range(mdp.horizon)]
    for h in reversed(range(mdp.horizon)):
        q = evaluate_q(mdp, value)[h]
        for s in range(mdp.n_states):
            value[h][s] = max(q[s])
            policy[h][s] = q[s].index(value[h][s])
    return value, policy


def evaluate(mdp: FiniteHorizonMDP, policy: Any) -> Table:
    """Value (H+1, S) of a policy in any of its array forms."""
    choice = stochastic_layers(policy, mdp).tolist()
    value = [[0.0] * mdp.n_states for _ in range(mdp.horizon + 1)]
    for h in reversed(range(mdp.horizon)):
        q = evaluate_q(mdp, value)[h]
        for s in range(mdp.n_states):
            # A forbidden action has probability 0 and value -inf: it is no term of the sum.
            value[h][s] = sum(p * q[s][a] for a, p in enumerate(choice[h % len(choice)][s]) if p > 0)
    return value


def occupancy(mdp: FiniteHorizonMDP, policy: Any) -> list[Table]:
    """Probability (H, S, A) of being in s and choosing a at layer h, forward from the start."""
    choice, successors = stochastic_layers(policy, mdp).tolist(), rows(mdp)
    here = mdp.initial.tolist()
    measure = []
    for h in range(mdp.horizon):
        measure.append([[here[s] * p for p in choice[h % len(choice)][s]] for s in range(mdp.n_states)])
        after = [0.0] * mdp.n_states
        for s in range(mdp.n_states):
            for a in range(mdp.n_actions):
                for t, p in successors[h][s][a].items():
                    after[t] += measure[h][s][a] * p
        here = after
    return measure
