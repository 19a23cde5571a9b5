"""The transition graph of a small model."""

from __future__ import annotations

from typing import Any

import numpy as np

from theoryrl.mdp.model import DiscountedMDP, FiniteHorizonMDP, require_model
from theoryrl.viz._axes import BLUE, GREEN, GREY, ORANGE, RED, axes

LARGEST = 25
COLOURS = (BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9", GREY)


def plot_graph(mdp: FiniteHorizonMDP | DiscountedMDP, ax: Any = None, layer: int = 0) -> Any:
    """States on a circle, one arrow per possible transition: colour is the action, width the probability.

    Parameters
    ----------
    mdp : model of at most 25 states
    ax : matplotlib Axes, optional
    layer : int
        Which layer's transitions, for a time-varying model.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If the model has more than 25 states, or no such layer.
    """
    require_model(mdp)
    if mdp.n_states > LARGEST:
        raise ValueError(f"a graph of {mdp.n_states} states cannot be read; at most {LARGEST}")
    kernel = mdp.to_dense().transition_layers
    if not 0 <= layer < (len(kernel) if len(kernel) > 1 else getattr(mdp, "horizon", 1)):
        raise ValueError(f"there is no layer {layer}")
    kernel = kernel[layer % len(kernel)]
    angle = np.pi / 2 - 2 * np.pi * np.arange(mdp.n_states) / mdp.n_states
    place = np.column_stack([np.cos(angle), np.sin(angle)])
    ax = axes(ax, (6, 6))
    radius = 0.13 if mdp.n_states <= 12 else 0.08
    from matplotlib.lines import Line2D
    from matplotlib.patches import Circle, FancyArrowPatch

    for s, a, target in zip(*np.nonzero(np.where(mdp.action_mask[..., None], kernel, 0.0) > 0), strict=True):
        style: dict[str, Any] = {
            "color": COLOURS[a % len(COLOURS)],
            "linewidth": 0.6 + 2.4 * float(kernel[s, a, target]),
            "alpha": 0.75,
            "mutation_scale": 10,
        }
        if s == target:
            # A loop outside the circle; each action's loop a little further out.
            out = place[s] * (1 + radius * (1.6 + 0.7 * a))
            ax.add_patch(
                Circle(
                    out, radius * (0.8 + 0.25 * a), fill=False, color=style["color"], lw=style["linewidth"], alpha=0.75
                )
            )
            continue
        bend = 0.12 + 0.1 * a
        ax.add_patch(
            FancyArrowPatch(
                place[s], place[target], connectionstyle=f"arc3,rad={bend}", arrowstyle="-|>",
                shrinkA=72 * radius * 2, shrinkB=72 * radius * 2, **style,
            )
        )  # fmt: skip
    for s, (x, y) in enumerate(place):
        start = mdp.initial[s] > 0
        ax.add_patch(Circle((x, y), radius, facecolor="#FFF4D6" if start else "white", edgecolor="black", zorder=3))
        label = mdp.state_labels[s] if mdp.state_labels else str(s)
        ax.text(x, y, label[:8], ha="center", va="center", fontsize=9 if len(label) < 4 else 6, zorder=4)
    labels = mdp.action_labels or [f"action {a}" for a in range(mdp.n_actions)]
    handles = [Line2D([], [], color=COLOURS[a % len(COLOURS)], lw=2, label=labels[a]) for a in range(mdp.n_actions)]
    ax.legend(handles=handles, loc="lower right", frameon=False, fontsize=8)
    limit = 1 + radius * (2.6 + mdp.n_actions)
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    ax.set_axis_off()
    ax.set_title(f"{mdp.name or 'model'}: transitions (shaded: initial states)", loc="left", fontsize=11)
    return ax
