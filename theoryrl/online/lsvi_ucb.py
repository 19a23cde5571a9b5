"""LSVI-UCB (Jin, Yang, Wang, Jordan 2020): optimistic least squares on known features of a linear MDP.

    Lambda_h = I + sum phi phi^T,   w_h = Lambda_h^{-1} sum phi (r + V_{h+1}(s')),
    Q_h(s, a) = min{ H - h, <phi(s, a), w_h> + beta_h |phi(s, a)|_{Lambda_h^{-1}} },   V_h = max_a Q_h.

Everything inside is in units of the reward range: (r - low) / width. With finitely many states nothing is replayed: the
sums of phi r and, for each successor, of phi are all that the regression needs; a plan costs O(H (S A d + S d + d^2))
whatever the number of episodes.

Deviations from the paper, each of which keeps or sharpens the guarantee: rewards are estimated, not known; the value is
capped at the H - h steps to go; beta_h is the explicit, data-dependent radius of the proof in the documentation (page
LSVI-UCB), valid for every number of episodes at once, in place of c d H log(2 d K H / p) with c unknown; ties go to the
lowest-numbered action. `replan="doubling"` plans again only when a determinant has doubled.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl._jit import kernel
from theoryrl.mdp._checks import Sealed, frozen
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.online._settings import require_level, require_scale
from theoryrl.online.verbs import Problem, act, chance, observe, plan, upper_value

LOG_2 = math.log(2.0)
# How far from linear, and how far above its norm bound, a model may be by rounding alone.
LINEAR_TOLERANCE = 1e-9


class LSVIUCBState(NamedTuple):
    """The regression of every layer and the current optimistic plan; d is the dimension of the features."""

    features: NDArray[np.float64]  # (S, A, d)
    action_mask: NDArray[np.bool_]  # (S, A)
    gram: NDArray[np.float64]  # (H, d, d) Lambda_h
    inverse: NDArray[np.float64]  # (H, d, d)
    norm_square: NDArray[np.float64]  # (H, S, A) phi^T Lambda_h^{-1} phi, kept up to date unless planning is rare
    reward_moment: NDArray[np.float64]  # (H, d) sum of phi r
    successor_moment: NDArray[np.float64]  # (H, S, d) sum of phi over the transitions into s'
    visits: NDArray[np.int64]  # (H,) transitions in the sums
    log_det: NDArray[np.float64]  # (H,) of Lambda_h
    planned_log_det: NDArray[np.float64]  # (H,) the same at the last plan
    weight: NDArray[np.float64]  # (H, d) w_h of the last plan
    value: NDArray[np.float64]  # (H + 1, S)
    policy: NDArray[np.int64]  # (H, S)
    scratch: NDArray[np.float64]  # (2, d)
    confidence: NDArray[np.float64]  # (H,) 2 log(number of values in the union * 2 H / delta)
    reward_low: float
    reward_width: float
    scale: float
    doubling: bool


@dataclass(frozen=True, eq=False)
class LSVIUCB(Sealed):
    """Settings of LSVI-UCB.

    Parameters
    ----------
    features : (S, A, d)
        phi(s, a), of Euclidean norm at most 1. `np.eye(S * A).reshape(S, A, S * A)` makes it a tabular learner.
    delta : float in (0, 1)
        The guarantee (optimism, regret) fails with at most this probability.
    replan : {"always", "doubling"}
        Before every episode; or only once the determinant of some Lambda_h has doubled since the last plan, which
        costs a factor sqrt(2) in the leading term of the regret and plans at most H d log2(1 + K / d) + 1 times.
    scale : float
        Multiplies beta_h. Anything but 1 gives up the proof: `provable` is then False.
    check : bool
        Whether `run` refuses a model that is not linear in the features.
    """

    features: NDArray[np.float64]
    delta: float = 0.05
    replan: Literal["always", "doubling"] = "always"
    scale: float = 1.0
    check: bool = True

    def __post_init__(self) -> None:
        table = frozen(self.features, np.float64, "features")
        if table.ndim != 3 or 0 in table.shape:
            raise ValueError(f"features must have shape (S, A, d), not {table.shape}")
        if not np.isfinite(table).all():
            raise ValueError("features must be finite")
        object.__setattr__(self, "features", table)
        require_level(self.delta)
        if self.replan not in ("always", "doubling"):
            raise ValueError(f"replan must be 'always' or 'doubling', not {self.replan!r}")
        require_scale(self.scale)

    @property
    def provable(self) -> bool:
        """Whether the constants are those of the theorem and the model is made to fit it."""
        return self.scale == 1.0 and self.check

    def require(self, mdp: FiniteHorizonMDP) -> None:
        """Refuse a model that is not linear in the features, unless `check` is False.

        Raises
        ------
        ValueError
            If some row of rewards and transitions is not linear in the features, or only with weights that are larger
            than the square root of d that the proof allows; the layer and the worst pair are named.
        """
        if self.check:
            require_linear(mdp, self.features)

    def init(self, problem: Problem) -> LSVIUCBState:
        """A fresh state for one run."""
        n_states, n_actions, horizon = problem.n_states, problem.n_actions, problem.horizon
        _fit(self.features, n_states, n_actions)
        norms = np.where(problem.action_mask, np.sqrt((self.features**2).sum(axis=2)), 0.0)
        if norms.max() > 1 + LINEAR_TOLERANCE:
            s, a = np.unravel_index(int(np.argmax(norms)), norms.shape)
            raise ValueError(f"features[{s}, {a}] has norm {norms[s, a]:.6g}, above 1")
        d = self.features.shape[2]
        steps_to_go = np.arange(horizon, -1.0, -1.0)
        # The last layer regresses rewards alone: one value, 0, in the union.
        values = np.where(np.arange(horizon) < horizon - 1, n_states * LOG_2, 0.0)
        return LSVIUCBState(
            features=self.features,
            action_mask=np.ascontiguousarray(problem.action_mask),
            gram=np.tile(np.eye(d), (horizon, 1, 1)),
            inverse=np.tile(np.eye(d), (horizon, 1, 1)),
            norm_square=np.tile((self.features**2).sum(axis=2), (horizon, 1, 1)),
            reward_moment=np.zeros((horizon, d)),
            successor_moment=np.zeros((horizon, n_states, d)),
            visits=np.zeros(horizon, np.int64),
            log_det=np.zeros(horizon),
            planned_log_det=np.zeros(horizon),
            weight=np.zeros((horizon, d)),
            value=np.repeat(steps_to_go[:, np.newaxis], n_states, axis=1),
            policy=np.tile(np.argmax(problem.action_mask, axis=1), (horizon, 1)),
            scratch=np.zeros((2, d)),
            confidence=2.0 * (values + math.log(2.0 * horizon / self.delta)),
            reward_low=float(problem.reward_low),
            reward_width=float(problem.reward_high - problem.reward_low),
            scale=float(self.scale),
            doubling=self.replan == "doubling",
        )


def _fit(features: NDArray[np.float64], n_states: int, n_actions: int) -> None:
    if features.shape[:2] != (n_states, n_actions):
        raise ValueError(f"features of shape {features.shape} are not for {n_states} states and {n_actions} actions")


def require_linear(mdp: FiniteHorizonMDP, features: NDArray[np.float64]) -> None:
    """Refuse `mdp` unless it is a linear MDP with these features and weights as small as the proof allows.

    In units of the reward range: P_h(s' | x) = <phi(x), mu_h(s')>, r_h(x) = <phi(x), theta_h> on every allowed pair x,
    |theta_h| <= sqrt(d) and sum_i (sum_s' |mu_h(s')_i|)^2 <= d, which makes |sum_s' mu_h(s') V(s')| <= sqrt(d) max |V|.
    The weights are those of least norm.

    Raises
    ------
    ValueError
        Naming the layer and the pair that is furthest from linear, or the layer whose weights are too large.
    """
    _fit(features, mdp.n_states, mdp.n_actions)
    dense = mdp.to_dense()
    low, high = mdp.reward_range
    unit = high - low if high > low else 1.0
    pairs = np.argwhere(dense.action_mask)
    phi = features[dense.action_mask]
    limit = math.sqrt(phi.shape[1]) * (1 + LINEAR_TOLERANCE)
    transition, reward = dense.transition_layers, dense.reward_layers
    for h in range(max(len(transition), len(reward))):
        rows = transition[min(h, len(transition) - 1)][dense.action_mask]
        means = (reward[min(h, len(reward) - 1)][dense.action_mask] - low) / unit
        target = np.column_stack([rows, means])
        weights = np.linalg.lstsq(phi, target, rcond=None)[0]
        gap = np.abs(phi @ weights - target).max(axis=1)
        worst = int(np.argmax(gap))
        if not gap[worst] <= LINEAR_TOLERANCE:
            s, a = pairs[worst]
            raise ValueError(
                f"the model is not linear in the features: layer {h}, state {s}, action {a} is off by {gap[worst]:.3g} "
                "(check=False runs all the same)"
            )
        size = max(float(np.linalg.norm(np.abs(weights[:, :-1]).sum(axis=1))), float(np.linalg.norm(weights[:, -1])))
        if not size <= limit:
            raise ValueError(
                f"layer {h} is linear in the features with weights of norm {size:.6g}, above sqrt(d) = {limit:.6g} "
                "(check=False runs all the same)"
            )


@kernel("strict")
def _factorise(gram, inverse):
    """Write gram^{-1} into `inverse` by Cholesky and return log det(gram); gram >= I."""
    d = gram.shape[0]
    log_det = 0.0
    for i in range(d):  # the factor, in the lower triangle of `inverse`
        for j in range(i + 1):
            total = gram[i, j]
            for k in range(j):
                total -= inverse[i, k] * inverse[j, k]
            if i == j:
                inverse[i, i] = math.sqrt(total)
                log_det += math.log(total)
            else:
                inverse[i, j] = total / inverse[j, j]
    for i in range(d):  # its inverse, in place, row by row
        inverse[i, i] = 1.0 / inverse[i, i]
        for j in range(i):
            total = 0.0
            for k in range(j, i):
                total -= inverse[i, k] * inverse[k, j]
            inverse[i, j] = total * inverse[i, i]
    for i in range(d):  # row i of the product needs rows i, i + 1, ... of the triangle only
        for j in range(i + 1):
            total = 0.0
            for k in range(i, d):
                total += inverse[k, i] * inverse[k, j]
            inverse[j, i] = total  # j <= i: the upper triangle, and on the diagonal what is needed no more
    for i in range(d):
        for j in range(i):
            inverse[i, j] = inverse[j, i]
    return log_det


@kernel("strict")
def _norm_squares(features, inverse, norm_square):
    """phi^T Lambda^{-1} phi of every pair."""
    n_states, n_actions, d = features.shape
    for s in range(n_states):
        for a in range(n_actions):
            total = 0.0
            for i in range(d):
                inner = 0.0
                for j in range(d):
                    inner += inverse[i, j] * features[s, a, j]
                total += features[s, a, i] * inner
            norm_square[s, a] = max(total, 0.0)


@kernel("strict")
def _regress(reward_moment, successor_moment, value_next, inverse, target, weight):
    """Weights Lambda^{-1} (sum phi r + sum over s' of V(s') sum phi)."""
    n_states, d = successor_moment.shape
    for i in range(d):
        target[i] = reward_moment[i]
    for t in range(n_states):
        v = value_next[t]
        if v != 0.0:
            for i in range(d):
                target[i] += v * successor_moment[t, i]
    for i in range(d):
        total = 0.0
        for j in range(d):
            total += inverse[i, j] * target[j]
        weight[i] = total


@kernel("strict")
def _improve(features, mask, weight, norm_square, beta, cap, value, policy):
    """Greedy step for min{cap, <phi, w> + beta |phi|}, not below 0; returns whether the policy changed."""
    n_states, n_actions, d = features.shape
    changed = False
    for s in range(n_states):
        best, best_action = -math.inf, 0
        for a in range(n_actions):
            if mask[s, a]:
                q = 0.0
                for i in range(d):
                    q += features[s, a, i] * weight[i]
                q = min(cap, max(0.0, q + beta * math.sqrt(norm_square[s, a])))
                if q > best:
                    best, best_action = q, a
        value[s] = best
        if policy[s] != best_action:
            policy[s] = best_action
            changed = True
    return changed


@kernel("strict")
def _rank_one(phi, gram, inverse, features, norm_square, visits, up_to_date, u):
    """Add phi phi^T to Lambda by Sherman and Morrison; returns (log det afterwards or growth, whether it is the whole).

    At 1, 2, 4, 8, ... transitions the inverse is factorised afresh, so that rounding cannot drift.
    """
    d = phi.shape[0]
    size = 0.0
    for i in range(d):
        total = 0.0
        for j in range(d):
            gram[i, j] += phi[i] * phi[j]
            total += inverse[i, j] * phi[j]
        u[i] = total
        size += phi[i] * total
    if visits & (visits - 1) == 0:
        log_det = _factorise(gram, inverse)
        if up_to_date:
            _norm_squares(features, inverse, norm_square)
        return log_det, True
    for i in range(d):
        for j in range(d):
            inverse[i, j] -= u[i] * u[j] / (1.0 + size)
    if up_to_date:
        n_states, n_actions, _ = features.shape
        for s in range(n_states):
            for a in range(n_actions):
                inner = 0.0
                for i in range(d):
                    inner += features[s, a, i] * u[i]
                norm_square[s, a] = max(norm_square[s, a] - inner * inner / (1.0 + size), 0.0)
    return math.log1p(size), False


@plan.implement(LSVIUCBState)
def _(learner, episode):
    horizon, d = learner.weight.shape
    if learner.doubling and episode > 0:
        due = False
        for h in range(horizon):
            if learner.log_det[h] > learner.planned_log_det[h] + LOG_2:
                due = True
        if not due:
            return False
    changed = False
    for h in range(horizon - 1, -1, -1):
        inverse, norm_square, value_next = learner.inverse[h], learner.norm_square[h], learner.value[h + 1]
        if learner.doubling:
            _norm_squares(learner.features, inverse, norm_square)
        _regress(
            learner.reward_moment[h],
            learner.successor_moment[h],
            value_next,
            inverse,
            learner.scratch[0],
            learner.weight[h],
        )
        steps = float(horizon - h)
        beta = learner.scale * steps * (0.5 * math.sqrt(learner.confidence[h] + learner.log_det[h]) + math.sqrt(d))
        if _improve(
            learner.features,
            learner.action_mask,
            learner.weight[h],
            norm_square,
            beta,
            steps,
            learner.value[h],
            learner.policy[h],
        ):
            changed = True
        learner.planned_log_det[h] = learner.log_det[h]
    return changed


@act.implement(LSVIUCBState)
def _(learner, h, s, rng):
    return learner.policy[h, s]


@chance.implement(LSVIUCBState)
def _(learner, h, s, a):
    return 1.0 if learner.policy[h, s] == a else 0.0


@upper_value.implement(LSVIUCBState)
def _(learner, h, s):
    return (learner.policy.shape[0] - h) * learner.reward_low + learner.reward_width * learner.value[h, s]


@observe.implement(LSVIUCBState)
def _(learner, h, s, a, reward, s_next):
    unit = (reward - learner.reward_low) / learner.reward_width if learner.reward_width > 0 else 0.0
    phi = learner.features[s, a]
    reward_moment, successor_moment = learner.reward_moment[h], learner.successor_moment[h, s_next]
    for i in range(phi.shape[0]):
        reward_moment[i] += phi[i] * unit
        successor_moment[i] += phi[i]
    learner.visits[h] += 1
    log_det, whole = _rank_one(
        phi,
        learner.gram[h],
        learner.inverse[h],
        learner.features,
        learner.norm_square[h],
        learner.visits[h],
        not learner.doubling,
        learner.scratch[1],
    )
    learner.log_det[h] = log_det if whole else learner.log_det[h] + log_det
