"""Bellman images of many value functions at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp._checks import frozen, require_int
from theoryrl.mdp.model import FiniteHorizonMDP, require_model


class Backups:
    """`apply(h, values)` is r_h + P_h v for every row v of `values`; the sparse rows are brought into order once."""

    def __init__(self, mdp: FiniteHorizonMDP) -> None:
        require_model(mdp, FiniteHorizonMDP)
        self.mdp = mdp
        self.rows: list[Any]
        if mdp.is_sparse:
            rows = mdp.transition.to_scipy()
            self.rows = rows if isinstance(rows, list) else [rows]
        else:
            self.rows = list(mdp.transition_layers.reshape(len(mdp.transition_layers), -1, mdp.n_states))

    def apply(self, h: int, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(m, S) state values of layer h + 1 to (m, S, A) action values of layer h, 0 at forbidden pairs."""
        mdp = self.mdp
        # Rows of forbidden pairs may hold anything, infinities included; they are overwritten below.
        with np.errstate(invalid="ignore", over="ignore"):
            means = np.asarray(self.rows[h % len(self.rows)] @ values.T).T
        images = means.reshape(len(values), mdp.n_states, mdp.n_actions) + mdp.reward_layers[h % len(mdp.reward_layers)]
        return np.where(mdp.action_mask, images, 0.0)

    def probabilities(self, h: int) -> NDArray[np.float64]:
        """P_h(t | s, a) as one function of (s, a) per next state t, (S, S, A), 0 at forbidden pairs."""
        mdp, rows = self.mdp, self.rows[h % len(self.rows)]
        table = (rows.toarray() if mdp.is_sparse else rows).T.reshape(mdp.n_states, mdp.n_states, mdp.n_actions)
        return np.where(mdp.action_mask, table, 0.0)


def bellman_images(mdp: FiniteHorizonMDP, layer: int, values: ArrayLike) -> NDArray[np.float64]:
    """Bellman images of many state-value functions at one layer.

    T_h v(s, a) = r_h(s, a) + sum_t P_h(t | s, a) v(t)

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    layer : int
        h in 0..H-1.
    values : (m, S) array
        State values of layer h + 1: max_a f_{h+1}(s, a) for T, the mean under a policy for T^pi.

    Returns
    -------
    ndarray, shape (m, S, A)
        0 at forbidden pairs.

    Raises
    ------
    ValueError
        A layer out of range, or a wrong shape.
    """
    require_model(mdp, FiniteHorizonMDP)
    if require_int(layer, 0, "layer") >= mdp.horizon:
        raise ValueError(f"layer = {layer} is not in 0 to {mdp.horizon - 1}")
    rows = frozen(values, np.float64, "values")
    if rows.ndim != 2 or rows.shape[1] != mdp.n_states:
        raise ValueError(f"values has shape {rows.shape}, not (m, {mdp.n_states})")
    return Backups(mdp).apply(layer, rows)
