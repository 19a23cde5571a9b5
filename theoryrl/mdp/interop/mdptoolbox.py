"""The arrays of (py)mdptoolbox: one matrix of transitions per action, rewards per state, pair or transition."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp._checks import frozen
from theoryrl.mdp.interop._building import Model, model
from theoryrl.mdp.model import require_model
from theoryrl.mdp.transitions import SparseTransition


def from_mdptoolbox(P: Any, R: Any, *, horizon: int | None = None, discount: float | None = None) -> Model:
    """The model that mdptoolbox writes as `(P, R)`.

    P(s' | s, a) = P[a][s, s'];  r = R[s], R[s, a] or R[a][s, s'].

    Parameters
    ----------
    P : (A, S, S) array, or sequence of A arrays or scipy sparse matrices (S, S)
        Sparse matrices make a sparse model.
    R : (S,), (S, A) or (A, S, S) array, scipy sparse (S, A), or sequence of A arrays or scipy sparse matrices (S, S)
    horizon, discount
        H of a FiniteHorizonMDP or gamma of a DiscountedMDP: exactly one of them.

    Raises
    ------
    ValueError
        Shapes that do not fit, rows that are no distribution, no criterion or two.
    """
    matrices = [_matrix(matrix, f"P[{a}]") for a, matrix in enumerate(P)]
    if not matrices:
        raise ValueError("P is empty: no actions")
    n_states = matrices[0].shape[0]
    for a, matrix in enumerate(matrices):
        if matrix.shape != (n_states, n_states):
            raise ValueError(f"P[{a}] has shape {matrix.shape}, not ({n_states}, {n_states})")
    transition: Any
    if any(_is_sparse(matrix) for matrix in matrices):
        transition = _sparse_rows(matrices, n_states)
    else:
        transition = np.stack(matrices, axis=1)
    return model(transition, horizon, discount, "P and R have", **_reward(R, transition, n_states, len(matrices)))


def to_mdptoolbox(mdp: Model) -> tuple[Any, Any]:
    """A stationary model as mdptoolbox's `(P, R)`.

    Returns
    -------
    P : (A, S, S) array, or list of A scipy.sparse.csr_matrix (S, S) for a sparse model
    R : (S, A) array of mean rewards; like P if rewards depend on the successor

    Raises
    ------
    ValueError
        For layers and forbidden actions, which mdptoolbox does not know.
    """
    require_model(mdp)
    if not mdp.stationary:
        raise ValueError("mdptoolbox holds stationary models; this one has layers")
    if not mdp.action_mask.all():
        s, a = (int(i) for i in np.argwhere(~mdp.action_mask)[0])
        raise ValueError(f"mdptoolbox knows no forbidden actions; action {a} is forbidden in state {s}")
    if not mdp.is_sparse:
        by_action = [
            None if table is None else np.ascontiguousarray(table.transpose(1, 0, 2))
            for table in (mdp.transition, mdp.outcome_reward)
        ]
        return by_action[0], mdp.reward.copy() if by_action[1] is None else by_action[1]
    P = _csr_matrices(mdp.transition, mdp.transition.data)
    return P, mdp.reward.copy() if mdp.outcome_reward is None else _csr_matrices(mdp.transition, mdp.outcome_reward)


def _is_sparse(matrix: Any) -> bool:
    return hasattr(matrix, "tocsr")


def _matrix(matrix: Any, name: str) -> Any:
    if _is_sparse(matrix):
        return matrix
    return frozen(matrix, np.float64, name)


def _sparse_rows(matrices: list[Any], n_states: int) -> SparseTransition:
    from scipy.sparse import coo_array

    parts = [coo_array(matrix) for matrix in matrices]
    action: Any = np.repeat(np.arange(len(parts)), [part.nnz for part in parts])
    columns: Any = [np.concatenate([getattr(part, k) for part in parts]) for k in ("row", "col", "data")]
    state, successor, probability = columns
    return SparseTransition.from_entries(state, action, successor, probability, n_states, len(parts))


def _reward(R: Any, transition: Any, n_states: int, n_actions: int) -> dict[str, Any]:
    """The reward as the constructor's argument."""
    if _is_sparse(R):
        R = R.toarray()
    elif isinstance(R, (list, tuple)) and any(_is_sparse(part) for part in R):
        R = [_matrix(part, f"R[{a}]") for a, part in enumerate(R)]
        if len(R) != n_actions or any(part.shape != (n_states, n_states) for part in R):
            raise ValueError(
                f"R has {len(R)} matrices of shapes {[part.shape for part in R]}, not {n_actions} of P's shape"
            )
        return {"outcome_reward": _at_outcomes(R, transition)}
    table = _matrix(R, "R")
    if table.shape == (n_states,):
        return {"reward": np.repeat(table[:, np.newaxis], n_actions, axis=1)}
    if table.shape == (n_states, n_actions):
        return {"reward": table}
    if table.shape == (n_actions, n_states, n_states):
        return {"outcome_reward": _at_outcomes(list(table), transition)}
    ways = f"({n_states},), ({n_states}, {n_actions}) or ({n_actions}, {n_states}, {n_states})"
    raise ValueError(f"R has shape {table.shape}, not {ways}")


def _at_outcomes(matrices: list[Any], transition: Any) -> NDArray[np.float64]:
    """`matrices[a][s, s']` in the storage of the transitions."""
    if not isinstance(transition, SparseTransition):
        return np.stack([part.toarray() if _is_sparse(part) else part for part in matrices], axis=1)
    row = np.repeat(np.arange(transition.n_rows), np.diff(transition.indptr))
    state, action = np.divmod(row, transition.n_actions)
    values = np.zeros(len(row))
    for a, part in enumerate(matrices):
        here = action == a
        matrix = part.tocsr() if _is_sparse(part) else part
        values[here] = np.asarray(matrix[state[here], transition.indices[here]]).reshape(-1)
    return values


def _csr_matrices(rows: SparseTransition, data: NDArray[np.float64]) -> list[Any]:
    """Per action a csr_matrix (S, S) with the stored entries `data`; mdptoolbox does not take the newer csr_array."""
    from scipy.sparse import csr_matrix

    row = np.repeat(np.arange(rows.n_rows), np.diff(rows.indptr))
    state, action = np.divmod(row, rows.n_actions)
    shape = (rows.n_states, rows.n_states)
    found = [action == a for a in range(rows.n_actions)]
    return [csr_matrix((data[h], (state[h], rows.indices[h].astype(np.int64))), shape=shape) for h in found]
