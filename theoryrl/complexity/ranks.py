"""Ranks: how few numbers the occupancies and the Bellman errors of a layer depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from theoryrl.complexity.coverability import occupancies
from theoryrl.mdp._checks import Sealed, frozen, require_finite
from theoryrl.mdp.evaluation import occupancy, reachability
from theoryrl.mdp.model import FiniteHorizonMDP, require_model
from theoryrl.mdp.planning import greedy


@dataclass(frozen=True, eq=False, repr=False)
class Rank(Sealed):
    """A numerical rank by layer.

    Attributes
    ----------
    value : int
        The largest over the layers.
    per_layer : int64 (H,)
        Singular values above the tolerance.
    singular_values : tuple of H arrays
        Of the layer's matrix, in decreasing order.
    tolerance : (H,)
        What counts as zero at each layer.
    """

    value: int
    per_layer: NDArray[np.int64]
    singular_values: tuple[NDArray[np.float64], ...]
    tolerance: NDArray[np.float64]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(value={self.value}, per_layer={self.per_layer.tolist()})"


def occupancy_rank(mdp: FiniteHorizonMDP, policies: Any = None, *, of: Literal["states", "pairs"] = "states") -> Rank:
    """Dimension of the span of the occupancies of a set of policies, layer by layer.

    rank_h = dim span{d_h^pi : pi in Pi},   d_h^pi over states (S,) or over pairs (S * A,)

    The rank over states bounds the Bellman rank of every value class under every policy class whose roll-ins lie in Pi;
    in a low-rank model of rank d it is at most d from layer 1 on.

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    policies : list or tuple of policies, or one policy, optional
        Default: all policies, for which the span is built without enumerating them.
    of : {"states", "pairs"}

    Returns
    -------
    Rank
        The tolerance is max(matrix shape) * 2^-52 * the largest singular value, times H for the rounding of H steps.

    Raises
    ------
    ValueError
        An unknown `of`, or a policy that is none of this model.

    Notes
    -----
    For all policies: at every state that can be reached the action can be changed alone, so that the span over pairs
    is that over states, placed on one action, plus e(s, a) - e(s, a0) for all reachable s and allowed a; the span
    over states at h + 1 is its image under P_h. The singular values are those of an orthonormal basis mapped by P_h,
    not of occupancies. Occupancy rank: Jiang, Krishnamurthy, Agarwal, Langford and Schapire (2017), section on
    Bellman rank, as the rank of the transition structure. Cost: H singular value decompositions of S A x S matrices;
    for a set of K policies of K x S or K x S A.
    """
    require_model(mdp, FiniteHorizonMDP)
    if of not in ("states", "pairs"):
        raise ValueError(f"of must be 'states' or 'pairs', not {of!r}")
    if policies is None:
        matrices = _spans(mdp, of)
    else:
        tables = np.array(list(occupancies(mdp, policies)))
        tables = tables if of == "pairs" else tables.sum(axis=-1)
        matrices = [tables[:, h].reshape(len(tables), -1) for h in range(mdp.horizon)]
    return _rank_of(matrices, [mdp.horizon * max(m.shape) * 2.0**-52 for m in matrices])


def _spans(mdp: FiniteHorizonMDP, of: str) -> list[NDArray[np.float64]]:
    """For every layer a matrix whose rows span the occupancies of all policies."""
    reach, mask = reachability(mdp), mdp.action_mask
    lowest = mask.argmax(axis=1)
    states, found = mdp.initial[np.newaxis] / np.linalg.norm(mdp.initial), []
    transition = mdp.transition.to_scipy() if mdp.is_sparse else mdp.transition_layers
    for h in range(mdp.horizon):
        base = np.zeros((len(states), mdp.n_states, mdp.n_actions))
        base[:, np.arange(mdp.n_states), lowest] = states
        s, a = np.nonzero(mask & (reach[h] > 0)[:, np.newaxis] & (np.arange(mdp.n_actions) != lowest[:, np.newaxis]))
        moved = np.zeros((len(s), mdp.n_states, mdp.n_actions))
        moved[np.arange(len(s)), s, a] = 1.0
        moved[np.arange(len(s)), s, lowest[s]] = -1.0
        pairs = np.concatenate([base, moved]).reshape(len(base) + len(moved), -1)
        found.append(states if of == "states" else pairs)
        if h + 1 < mdp.horizon:
            states = _basis(_pushed(mdp, transition, h, pairs))
    return found


def _pushed(mdp: FiniteHorizonMDP, transition: Any, h: int, pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows over pairs mapped to rows over next states; forbidden rows of the model are never read."""
    allowed = np.flatnonzero(mdp.action_mask)
    if mdp.is_sparse:
        rows = (transition[h] if isinstance(transition, list) else transition)[allowed]
        return np.asarray((rows.T @ pairs[:, allowed].T).T)
    return pairs[:, allowed] @ transition[h % len(transition)].reshape(-1, mdp.n_states)[allowed]


def _basis(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """An orthonormal basis of the row space."""
    _, sizes, basis = np.linalg.svd(rows, full_matrices=False)
    return basis[sizes > max(rows.shape) * 2.0**-52 * sizes[0]]


def bellman_rank(mdp: FiniteHorizonMDP, values: Any, *, kind: Literal["q", "v"] = "q") -> Rank:
    """Bellman rank of a finite class of action-value functions, layer by layer.

    q: M_h[i, j] = E_{(s, a) ~ d_h^{pi_i}} [(f_j - T f_j)_h(s, a)]
    v: M_h[i, j] = E_{s ~ d_h^{pi_i}} [(f_j - T f_j)_h(s, pi_j(s))]

    with pi_i the greedy policy of f_i, (T f)_h(s, a) = r_h(s, a) + sum_t P_h(t | s, a) max_b f_{h+1}(t, b), f_H = 0.

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    values : FiniteClass, or array (nF, H, S, A)
        In units of reward.
    kind : {"q", "v"}
        Whether the action comes from the roll-in policy (q) or from f_j (v).

    Returns
    -------
    Rank
        The tolerance at layer h is max(nF, S A) * 2^-52 * nF * (largest |f_h|, |f_{h+1}| and |r_h|) * (h + 4): a
        bound on the norm of what rounding does to M_h. A value below it is indistinguishable from zero.

    Raises
    ------
    ValueError
        Wrong shape, an entry that is not finite, an unknown kind.

    Notes
    -----
    v: Jiang, Krishnamurthy, Agarwal, Langford and Schapire (2017), Contextual decision processes with low Bellman
    rank are PAC-learnable; q: Jin, Liu and Miryoosefi (2021), Bellman eluder dimension. Cost: nF occupancies, nF
    backups and an nF x nF singular value decomposition per layer.
    """
    require_model(mdp, FiniteHorizonMDP)
    if kind not in ("q", "v"):
        raise ValueError(f"kind must be 'q' or 'v', not {kind!r}")
    table = frozen(getattr(values, "values", values), np.float64, "values")
    shape = (mdp.horizon, mdp.n_states, mdp.n_actions)
    if table.ndim != 4 or table.shape[1:] != shape or not len(table):
        raise ValueError(f"values has shape {table.shape}, not (nF, {', '.join(map(str, shape))})")
    require_finite(table, "values")
    mask, size = mdp.action_mask, len(table)
    policies = greedy(table, mask)
    best = np.where(mask, table, -np.inf).max(axis=-1)
    flows = np.array([occupancy(mdp, policy) for policy in policies])
    errors = bellman_errors(mdp, table, best)
    matrices, noise = [], []
    for h in range(mdp.horizon):
        if kind == "q":
            matrix = flows[:, h].reshape(size, -1) @ errors[:, h].reshape(size, -1).T
        else:
            own = np.take_along_axis(errors[:, h], policies[:, h, :, np.newaxis], axis=-1)[..., 0]
            matrix = flows[:, h].sum(axis=-1) @ own.T
        matrices.append(matrix)
        largest = np.abs(table[:, h][:, mask]).max() + np.abs(mdp.reward_layers[h % len(mdp.reward_layers)][mask]).max()
        largest += np.abs(best[:, h + 1]).max() if h + 1 < mdp.horizon else 0.0
        noise.append(max(size, mdp.n_states * mdp.n_actions) * 2.0**-52 * size * float(largest) * (h + 4))
    return _rank_of(matrices, noise, absolute=True)


def bellman_errors(mdp: FiniteHorizonMDP, table: NDArray[np.float64], best: NDArray[np.float64]) -> NDArray[np.float64]:
    """(f - T f)_h(s, a) for every member, (nF, H, S, A); `best` (nF, H, S) its state values; 0 where forbidden."""
    allowed = mdp.action_mask.reshape(-1)
    matrices = mdp.transition.to_scipy() if mdp.is_sparse else None
    errors = np.zeros(table.shape)
    for h in range(mdp.horizon):
        backup = np.broadcast_to(mdp.reward_layers[h % len(mdp.reward_layers)], table[:, h].shape).copy()
        if h + 1 < mdp.horizon:
            if matrices is not None:
                rows = (matrices[h] if isinstance(matrices, list) else matrices)[np.flatnonzero(allowed)]
            else:
                rows = mdp.transition_layers[h % len(mdp.transition_layers)].reshape(-1, mdp.n_states)[allowed]
            backup[:, mdp.action_mask] += np.asarray(rows @ best[:, h + 1].T).T
        errors[:, h] = np.where(mdp.action_mask, table[:, h] - backup, 0.0)
    return errors


def _rank_of(matrices: list[NDArray[np.float64]], noise: list[float], absolute: bool = False) -> Rank:
    """Singular values above `noise`, which is relative to the largest one unless `absolute`."""
    sizes = tuple(np.asarray(np.linalg.svd(matrix, compute_uv=False), np.float64) for matrix in matrices)
    tolerance = np.array([n if absolute else n * s[0] for n, s in zip(noise, sizes, strict=True)])
    ranks = np.array([int((s > t).sum()) for s, t in zip(sizes, tolerance, strict=True)])
    for array in (*sizes, tolerance, ranks):
        array.flags.writeable = False
    return Rank(int(ranks.max()), ranks, sizes, tolerance)
