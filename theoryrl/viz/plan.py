"""Values and policies: on the grid where states are cells, as a layer-by-state map otherwise."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from theoryrl.viz._axes import axes, finish

_CELL = re.compile(r"\((\d+), ?(\d+)\)")
_ARROWS = {
    "up": (0, -1), "north": (0, -1), "down": (0, 1), "south": (0, 1),
    "left": (-1, 0), "west": (-1, 0), "right": (1, 0), "east": (1, 0),
}  # fmt: skip


def cells(labels: Sequence[str] | None) -> dict[int, tuple[int, int]]:
    """State number -> (row, column), from labels of the form "(row, column)"; other states are left out."""
    found = {}
    for state, label in enumerate(labels or ()):
        match = _CELL.fullmatch(label)
        if match:
            found[state] = int(match[1]), int(match[2])
    return found


def plot_plan(plan: Any, ax: Any = None, layer: int = 0) -> Any:
    """An optimal plan: on the grid at one layer if the states are cells, else all values V*_h(s) as a map.

    Parameters
    ----------
    plan : Plan
    ax : matplotlib Axes, optional
    layer : int in 0..H-1
        Which layer to show on a grid.

    Returns
    -------
    matplotlib Axes
    """
    mdp = plan.mdp
    if not 0 <= layer < mdp.horizon:
        raise ValueError(f"layer must lie in 0 to {mdp.horizon - 1}, not {layer}")
    title = f"{mdp.name or 'model'}: optimal value"
    if cells(mdp.state_labels):
        return plot_grid(
            mdp.state_labels, plan.value[layer], plan.policy[layer], mdp.action_labels, ax, f"{title}, layer {layer}"
        )
    ax = axes(ax, (7, 4))
    image = ax.imshow(np.asarray(plan.value[:-1]).T, aspect="auto", origin="lower", cmap="viridis")
    ax.figure.colorbar(image, ax=ax, label=r"$V^*_h(s)$")
    if mdp.state_labels and mdp.n_states <= 25:
        ax.set_yticks(range(mdp.n_states), mdp.state_labels)
    else:
        ax.yaxis.get_major_locator().set_params(integer=True)
    ax.xaxis.get_major_locator().set_params(integer=True)
    finish(ax, title, "layer $h$", "state $s$")
    ax.grid(False)
    return ax


def plot_grid(
    state_labels: Sequence[str],
    value: ArrayLike,
    policy: ArrayLike | None = None,
    action_labels: Sequence[str] | None = None,
    ax: Any = None,
    title: str = "",
) -> Any:
    """A value per cell as colour and number, and the policy's action as an arrow (or its number).

    Parameters
    ----------
    state_labels : sequence of S strings
        Cells are labelled "(row, column)"; states with other labels (a terminal state, say) are not drawn.
    value : (S,)
    policy : (S,) integers, optional
    action_labels : sequence of A strings, optional
        up/down/left/right or north/south/west/east become arrows.
    ax : matplotlib Axes, optional
    title : str

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If no label is a cell.
    """
    place = cells(state_labels)
    if not place:
        raise ValueError("no state label has the form (row, column)")
    value = np.asarray(value, float)
    rows, columns = (1 + max(at[i] for at in place.values()) for i in range(2))
    board = np.full((rows, columns), np.nan)
    for state, at in place.items():
        board[at] = value[state]
    ax = axes(ax, (max(3.5, 0.62 * columns + 1.4), max(3.0, 0.62 * rows + 0.8)))
    image = ax.imshow(np.ma.masked_invalid(board), cmap="viridis")
    ax.set_facecolor("#DDDDDD")
    ax.figure.colorbar(image, ax=ax, label=r"$V(s)$", fraction=0.046, pad=0.04)
    middle = (np.nanmin(board) + np.nanmax(board)) / 2
    arrows = [_ARROWS.get(str(label).lower()) for label in action_labels or ()]
    for state, (row, column) in place.items():
        ink = "white" if board[row, column] <= middle else "black"
        ax.text(column, row + 0.36, f"{board[row, column]:.3g}", ha="center", va="center", fontsize=7, color=ink)
        if policy is None:
            continue
        action = int(np.asarray(policy)[state])
        arrow = arrows[action] if action < len(arrows) else None
        if arrow is None:
            ax.text(column, row - 0.1, str(action), ha="center", va="center", fontsize=9, color=ink)
        else:
            dx, dy = arrow
            ax.annotate(
                "",
                (column + 0.25 * dx, row - 0.12 + 0.25 * dy),
                (column - 0.25 * dx, row - 0.12 - 0.25 * dy),
                arrowprops={"arrowstyle": "->", "color": ink, "lw": 1.2},
            )
    ax.set_xticks(range(columns))
    ax.set_yticks(range(rows))
    ax.set_title(title, loc="left", fontsize=11)
    return ax
