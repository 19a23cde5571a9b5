"""Branch and bound for the most optimistic policy; what is computed and why it is a bound: `optimistic_policy`."""

from __future__ import annotations

import heapq
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.density_ratio.full_weights import TabularData

# How often the constant of the linear bound on a norm is improved at a node.
ROUNDS = 4


class Ellipsoid(NamedTuple):
    """The values f with sum_z M_z (m_z)_+^2 <= B_h at every layer, m_z = f_h(z) - rbar_z - Phat_z V^f_{h+1}.

    Attributes
    ----------
    precision : (H, S, A)
        M_z; 0 at a pair of which nothing is known.
    budget : (H,)
        B_h.
    """

    precision: NDArray[np.float64]
    budget: NDArray[np.float64]


def widths(ellipsoid: Ellipsoid) -> NDArray[np.float64]:
    """sqrt(B_h / M_z), 0 where nothing is known."""
    budget, known = ellipsoid.budget[:, np.newaxis, np.newaxis], ellipsoid.precision > 0
    ratio = np.divide(budget, ellipsoid.precision, out=np.zeros(ellipsoid.precision.shape), where=known)
    return np.sqrt(ratio)


class Search:
    """Branch and bound over sets of allowed actions per layer and state; `allowed` (H, S, A) is a node."""

    def __init__(self, data: TabularData, ellipsoid: Ellipsoid, caps: NDArray[np.float64]) -> None:
        self.known = ellipsoid.precision > 0
        self.root = np.array(np.broadcast_to(data.action_mask, self.known.shape))
        self.transition = np.where(self.known[..., np.newaxis], data.transition, 0.0)
        self.reward = np.where(self.known, data.reward, caps[:, np.newaxis, np.newaxis])
        self.initial = data.initial
        self.root_budget = np.sqrt(ellipsoid.budget)
        self.inverse = np.divide(1.0, ellipsoid.precision, out=np.zeros(self.known.shape), where=self.known)
        self.widths = widths(ellipsoid)
        self.horizon, self.n_states, _ = self.known.shape
        self.value, self.upper = -math.inf, math.inf
        self.policy = self.root.argmax(axis=-1)

    def plan(self, allowed: NDArray, bonus: NDArray) -> tuple[float, NDArray[np.int64]]:
        """The best allowed policy for rbar + bonus, and its value."""
        later, policy = np.zeros(self.n_states), np.empty(allowed.shape[:2], np.int64)
        for h in range(self.horizon - 1, -1, -1):
            q = np.where(allowed[h], self.reward[h] + bonus[h] + self.transition[h] @ later, -np.inf)
            policy[h], later = q.argmax(axis=1), q.max(axis=1)
        return float(self.initial @ later), policy

    def occupancy(self, policy: NDArray) -> NDArray[np.float64]:
        """d^ of a policy, (H, S, A); what meets an unknown pair is counted there and goes no further."""
        masses, state, every = np.zeros(self.known.shape), self.initial, np.arange(self.n_states)
        for h in range(self.horizon):
            masses[h, every, policy[h]] = state
            state = state @ self.transition[h, every, policy[h]]
        return masses

    def norms(self, masses: NDArray) -> NDArray[np.float64]:
        """||d_h / sqrt(M_h)||_2 over the known pairs, (H,)."""
        return np.sqrt((masses**2 * self.inverse).sum(axis=(1, 2)))

    def objective(self, masses: NDArray) -> float:
        return float((masses * self.reward).sum() + self.root_budget @ self.norms(masses))

    def bonus(self, masses: NDArray) -> NDArray[np.float64]:
        """The bonus in the ellipsoid that is worth most to a policy with these masses."""
        norms = self.norms(masses)
        factor = np.divide(self.root_budget, norms, out=np.zeros(self.horizon), where=norms > 0)
        return factor[:, np.newaxis, np.newaxis] * masses * self.inverse

    def above(self, caps: NDArray, bonus: NDArray) -> NDArray[np.bool_]:
        """Known pairs where the table rbar + Phat V + bonus exceeds the limit."""
        out, later = np.zeros(self.known.shape, bool), np.zeros(self.n_states)
        for h in range(self.horizon - 1, -1, -1):
            q = self.reward[h] + bonus[h] + self.transition[h] @ later
            out[h] = self.known[h] & self.root[h] & (q > caps[h] * (1 + 1e-12))
            later = np.where(self.root[h], q, -np.inf).max(axis=1)
        return out

    def reach(self, allowed: NDArray) -> NDArray[np.float64]:
        """The largest probability of every state over the allowed policies, (H, S)."""
        out = np.empty((self.horizon, self.n_states))
        for h in range(self.horizon):
            table = np.eye(self.n_states)
            for k in range(h - 1, -1, -1):
                table = np.where(allowed[k][..., np.newaxis], self.transition[k] @ table, 0.0).max(axis=1)
            out[h] = self.initial @ table
        return out

    def improve(self, policy: NDArray) -> None:
        """Alternate between bonus and policy from here, and keep the best policy seen."""
        masses = self.occupancy(policy)
        value = self.objective(masses)
        while True:
            if value > self.value:
                self.value, self.policy = value, policy
            _, policy = self.plan(self.root, self.bonus(masses))
            masses, before = self.occupancy(policy), value
            value = self.objective(masses)
            if not value > before:
                return

    def bound(self, allowed: NDArray, reach: NDArray) -> float:
        """An upper bound on every allowed policy; each policy met on the way is tried for a lower one."""
        best, policy = self.plan(allowed, self.widths)
        self.improve(policy)
        share = np.where(allowed, reach[..., np.newaxis], 0.0) * self.inverse  # u_z / M_z
        least = 1e-3 * np.sqrt(share.max(axis=(1, 2)))
        size = np.maximum(self.norms(self.occupancy(policy)), least)
        for _ in range(ROUNDS):
            factor = np.divide(self.root_budget, 2 * size, out=np.zeros(self.horizon), where=size > 0)
            value, policy = self.plan(allowed, factor[:, np.newaxis, np.newaxis] * share)
            best = min(best, value + float(self.root_budget @ size) / 2)
            masses = self.occupancy(policy)
            self.improve_once(masses, policy)
            size = np.maximum(np.sqrt((masses * share).sum(axis=(1, 2))), least)
        return best

    def improve_once(self, masses: NDArray, policy: NDArray) -> None:
        """Alternate from a policy only if it is better than all before."""
        if self.objective(masses) > self.value:
            self.improve(policy)

    def run(self, tolerance: float, node_limit: int) -> int:
        """Search until the gap is closed or the nodes are used up; returns how many were opened."""
        counter, nodes = 0, 1
        heap = [(-self.bound(self.root, self.reach(self.root)), counter, self.root)]
        while heap:
            self.upper = -heap[0][0]
            if self.upper - self.value <= tolerance or nodes >= node_limit:
                return nodes
            _, _, allowed = heapq.heappop(heap)
            reach = self.reach(allowed)
            open_states = (allowed.sum(axis=-1) > 1) & (reach > 0)
            h = int(open_states.any(axis=1).argmax())
            s = int(np.where(open_states[h], reach[h], -1.0).argmax())
            for a in np.flatnonzero(allowed[h, s]):
                child = allowed.copy()
                child[h, s] = False
                child[h, s, a] = True
                reach = self.reach(child)
                nodes += 1
                if ((child.sum(axis=-1) > 1) & (reach > 0)).any():
                    bound = self.bound(child, reach)
                    if bound > self.value + tolerance:
                        counter += 1
                        heapq.heappush(heap, (-bound, counter, child))
                else:  # one policy is left, as far as it matters
                    policy = child.argmax(axis=-1)
                    self.improve_once(self.occupancy(policy), policy)
        self.upper = self.value + tolerance
        return nodes


class Bracket(NamedTuple):
    """Bounds on the largest start value of a table below the limit, and the table that has the lower one."""

    value: float
    upper: float
    values: NDArray[np.float64]
    nodes: int


def limited_iteration(
    data: TabularData, known: NDArray, caps: NDArray, bonus: NDArray
) -> tuple[float, NDArray[np.float64], NDArray[np.int64]]:
    """min(largest, rbar + Phat V + bonus) backwards, `largest` where nothing is known: start value, table, policy."""
    values, policy = np.zeros(known.shape), np.zeros(known.shape[:2], np.int64)
    later = np.zeros(known.shape[1])
    for h in range(known.shape[0] - 1, -1, -1):
        backup = np.minimum(caps[h], data.reward[h] + data.transition[h] @ later + bonus[h])
        backup = np.where(data.action_mask, np.where(known[h], backup, caps[h]), -np.inf)
        policy[h], later = backup.argmax(axis=1), backup.max(axis=1)
        values[h] = np.where(data.action_mask, backup, 0.0)
    return float(data.initial @ later), values, policy


def under_limit(
    data: TabularData, ellipsoid: Ellipsoid, caps: NDArray, search: Search, tolerance: float, node_limit: int
) -> Bracket:
    """Bounds under the limit, from a finished search and further ones that count pairs above the limit as unknown.

    Counting a known pair as unknown drops its term of the ellipsoid and keeps f <= largest there, so that the set grows
    and the search bounds it from above. A bonus of the ellipsoid gives a table below the limit, so a bound from below.
    """
    known, precision, nodes = ellipsoid.precision > 0, ellipsoid.precision, 0
    upper = limited_iteration(data, known, caps, widths(ellipsoid))[0]
    value, values = -math.inf, np.zeros(known.shape)
    while True:
        bonus = search.bonus(search.occupancy(search.policy))
        found, table, _ = limited_iteration(data, known, caps, bonus)
        if found > value:
            value, values = found, table
        upper = min(upper, max(search.upper, search.value))
        above = search.above(caps, bonus)
        if upper - value <= tolerance or not above.any() or nodes >= node_limit:
            return Bracket(value, max(upper, value), values, nodes)
        precision = np.where(above, 0.0, precision)
        search = Search(data, Ellipsoid(precision, ellipsoid.budget), caps)
        nodes += search.run(tolerance, node_limit - nodes)
