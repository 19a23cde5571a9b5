"""Fitted Q iteration and evaluation: backward least squares in a class of action values; least-squares differences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.classes._shape import mask_of
from theoryrl.classes.linear import LinearClass
from theoryrl.classes.regression import least_squares_member, target_sums
from theoryrl.classes.values import FiniteClass, ProductClass, TabularClass, best
from theoryrl.mdp._checks import Sealed, frozen, sealed
from theoryrl.mdp.dataset import Dataset
from theoryrl.mdp.planning import greedy
from theoryrl.offline._data import (
    Tables,
    Uncovered,
    flow,
    n_trajectories,
    named,
    policy_table,
    require_data,
    start_of,
    tables,
)
from theoryrl.offline.estimate import Estimate
from theoryrl.offline.marginal import plug_in_error

ValueClass: TypeAlias = FiniteClass | ProductClass | TabularClass | LinearClass
# Directions of a design that are this much shorter than the longest are taken for unseen.
RANK = 1e-10


@dataclass(frozen=True, eq=False, repr=False)
class FittedQ(Sealed):
    """What fitted Q iteration learned.

    Attributes
    ----------
    q : (H, S, A) float64
        The fitted action values.
    policy : (H, S) int64
        Greedy for q; ties go to the lowest-numbered allowed action.
    members : (H,) int64
        Which member of each layer was chosen; empty for classes that are not lists.
    uncovered : tuple of (h, s, a)
        Pairs that the policy meets, by the data's own transitions, where there are no data: its value there is
        whatever the class says.
    """

    q: NDArray[np.float64]
    policy: NDArray[np.int64]
    members: NDArray[np.int64]
    uncovered: Uncovered

    @property
    def covered(self) -> bool:
        """Whether the data show every pair that the policy meets."""
        return not self.uncovered

    def __repr__(self) -> str:
        note = "" if self.covered else f", no data at {named(self.uncovered)}"
        return f"FittedQ((H, S, A) = {self.q.shape}{note})"


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Sealed):
    """Fitted action values of a target policy, and the estimate of its value that follows.

    Attributes
    ----------
    q : (H, S, A) float64
    estimate : Estimate
    """

    q: NDArray[np.float64]
    estimate: Estimate

    def __repr__(self) -> str:
        return f"Evaluation({self.estimate!r})"


def fqi(
    data: Dataset,
    cls: ValueClass | None = None,
    *,
    action_mask: ArrayLike | None = None,
    initial: ArrayLike | int | None = None,
    staged: bool = True,
) -> FittedQ:
    """Fitted Q iteration: backwards, the member of each layer's class that is nearest to the next one's backup.

    f_h = argmin_{g in F_h} sum over the rows (s, a, r, s') of layer h of (g(s, a) - r - max_{a'} f_{h+1}(s', a'))^2

    Parameters
    ----------
    data : Dataset
        Any rows.
    cls : FiniteClass, ProductClass, TabularClass or LinearClass, optional
        Of a list every layer slice counts by itself (F_h = {f_h}); the lowest-numbered of equally good members wins.
        A linear class gives the weights of least norm. A TabularClass gives means, clipped to its range, and its lowest
        value where there are no data; without a class the means are not clipped, and 0 where there are no data.
    action_mask : (S, A) bool, optional
        The allowed pairs.
    initial : (S,) distribution or state, optional
        Where the policy starts, for `uncovered`. Default: the frequencies of states at step 0.
    staged : bool
        Rows of each layer by themselves; otherwise every layer regresses all rows (right for stationary models only).

    Returns
    -------
    FittedQ
        `uncovered` names the pairs without data that its policy meets.

    Raises
    ------
    ValueError
        If class or mask do not fit the data.

    Notes
    -----
    Ernst, Geurts and Wehenkel (2005); Munos and Szepesvari (2008). The guarantee is derived in docs/theory/fqi.md.
    """
    counts = tables(data, staged)
    mask = mask_of(action_mask, data.n_states, data.n_actions)
    q, members = _backward(data, counts, cls, lambda h, values: best(values, mask))
    policy = greedy(q, mask)
    reached = flow(counts, policy_table(policy, data, "policy"), start_of(data, initial))
    return FittedQ(sealed(q), sealed(policy), sealed(members), reached.uncovered)


def fqe(
    data: Dataset,
    target: Any,
    cls: ValueClass | None = None,
    *,
    initial: ArrayLike | int | None = None,
    staged: bool = True,
) -> Evaluation:
    """Fitted Q evaluation: as fitted Q iteration, with the target's mean in place of the maximum.

    f_h = argmin_{g in F_h} sum (g(s, a) - r - sum_{a'} pi_{h+1}(a' | s') f_{h+1}(s', a'))^2,   J = E_start f_0(s, pi)

    Parameters
    ----------
    data : Dataset
    target : policy
    cls, staged
        As in `fqi`.
    initial : (S,) distribution or state, optional
        Default: the frequencies of states at step 0.

    Returns
    -------
    Evaluation
        Refused, with the pairs named, if the target meets pairs without data; a linear class may speak for those whose
        features lie in the span of the data's. Only the table without a class has a standard error of its own.

    Notes
    -----
    Le, Voloshin and Yue (2019). Without a class the value is the target's in the empirical model.
    """
    pi, start, counts = policy_table(target, data, "target"), start_of(data, initial), tables(data, staged)
    if isinstance(cls, LinearClass):
        return lstdq(data, target, cls, initial=initial, staged=staged)
    q, _ = _backward(data, counts, cls, lambda h, values: (pi[h] * values).sum(axis=-1))
    n = n_trajectories(data)
    method = f"fitted Q evaluation, {'table' if cls is None else type(cls).__name__}"
    reached = flow(counts, pi, start)
    if reached.uncovered:
        return Evaluation(sealed(q), Estimate.refused(method, False, n, reached.uncovered))
    error = math.nan
    if cls is None:
        error = plug_in_error(data, counts, pi, start, reached.occupancy, staged, initial is None)
    value = float(start @ (pi[0] * q[0]).sum(axis=-1))
    return Evaluation(sealed(q), Estimate(value, error, method, False, n))


def lstdq(
    data: Dataset,
    target: Any,
    features: LinearClass | ArrayLike,
    *,
    instruments: ArrayLike | None = None,
    initial: ArrayLike | int | None = None,
    staged: bool = True,
) -> Evaluation:
    r"""Least-squares temporal differences for action values, layer by layer.

    sum psi_h(s, a) [phi_h(s, a)^T w_h - r - sum_{a'} pi_{h+1}(a' | s') phi_{h+1}(s', a')^T w_{h+1}] = 0

    With instruments psi = phi this is fitted Q evaluation in the linear class.

    Parameters
    ----------
    data : Dataset
    target : policy
    features : LinearClass, or (S, A, d) or (H, S, A, d)
        phi.
    instruments : (S, A, d) or (H, S, A, d), optional
        psi; default phi.
    initial, staged
        As in `fqe`.

    Returns
    -------
    Evaluation
        Refused if the equations do not determine a value that is needed: of a pair that the target plays at a seen
        successor (or start) and whose features are not in the row space of sum psi phi^T. The pairs are named.

    Notes
    -----
    Lagoudakis and Parr (2003), LSPI; in finite horizon and off-policy.
    """
    require_data(data)
    cls = features if isinstance(features, LinearClass) else LinearClass(_array(features), data.horizon)
    tests = cls if instruments is None else LinearClass(_array(instruments), data.horizon)
    for given in (cls, tests):
        given.require_fits(data)
    if tests.dimension != cls.dimension:
        raise ValueError(f"instruments have dimension {tests.dimension}, features {cls.dimension}")
    pi, start, counts = policy_table(target, data, "target"), start_of(data, initial), tables(data, staged)
    weights, missing = np.zeros((data.horizon, cls.dimension)), []
    later = np.zeros(data.n_states)
    for h in reversed(range(data.horizon)):
        phi, psi = cls.at(h), tests.at(h)
        sums = np.empty(phi.shape[:2])
        target_sums(counts.transitions[h], counts.reward_sums[h], later, sums)
        system = np.einsum("sai,sa,saj->ij", psi, counts.visits[h], phi)
        weights[h], rows = _solve(system, np.einsum("sai,sa->i", psi, sums))
        arrived = start if h == 0 else counts.transitions[h - 1].sum(axis=(0, 1))
        needed = (arrived > 0)[:, np.newaxis] & (pi[h] > 0)
        off = np.linalg.norm(phi - phi @ rows.T @ rows, axis=-1) > 1e-6 * np.linalg.norm(phi, axis=-1)
        missing += [(h, int(s), int(a)) for s, a in np.argwhere(needed & off)]
        later = (pi[h] * (phi @ weights[h])).sum(axis=-1)
    method, n = "least-squares temporal differences", n_trajectories(data)
    q = sealed(cls.values(weights))
    if missing:
        return Evaluation(q, Estimate.refused(method, False, n, tuple(sorted(missing))))
    return Evaluation(q, Estimate(float(start @ later), math.nan, method, False, n))


def _array(features: Any) -> NDArray[np.float64]:
    return frozen(features, np.float64, "features")


def _solve(system: NDArray, right: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The least-norm solution, and an orthonormal basis (k, d) of the directions that it determines."""
    left, sizes, rows = np.linalg.svd(system)
    kept = sizes > RANK * max(float(sizes[0]), 1e-300)
    return rows[kept].T @ ((left[:, kept].T @ right) / sizes[kept]), rows[kept]


def _backward(
    data: Dataset, counts: Tables, cls: ValueClass | None, state_value: Any
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Least squares from the last layer to the first: action values (H, S, A) and the members chosen."""
    if cls is not None and not isinstance(cls, FiniteClass | ProductClass | TabularClass | LinearClass):
        raise TypeError(f"cls must be a class of action values, not a {type(cls).__name__}")
    if cls is not None:
        cls.require_fits(data)
    q = np.zeros(counts.visits.shape)
    members = np.zeros(data.horizon if isinstance(cls, FiniteClass | ProductClass) else 0, np.int64)
    later, sums = np.zeros(data.n_states), np.empty(q.shape[1:])
    for h in reversed(range(data.horizon)):
        visits = counts.visits[h]
        target_sums(counts.transitions[h], counts.reward_sums[h], later, sums)
        if isinstance(cls, FiniteClass | ProductClass):
            layer = np.ascontiguousarray(cls.values[:, h] if isinstance(cls, FiniteClass) else cls.layers[h])
            members[h] = least_squares_member(layer, visits, sums)
            q[h] = layer[members[h]]
        elif isinstance(cls, LinearClass):
            phi = cls.at(h)
            system = np.einsum("sai,sa,saj->ij", phi, visits, phi)
            q[h] = phi @ _solve(system, np.einsum("sai,sa->i", phi, sums))[0]
        else:
            q[h] = sums / np.maximum(visits, 1.0)
            if isinstance(cls, TabularClass):
                q[h] = np.where(visits > 0, np.clip(q[h], *cls.bounds[h]), cls.bounds[h, 0])
        later = state_value(h, q[h])
    return q, members
