"""What all figures share: an Axes to draw on and a few colours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Colours of Okabe and Ito (2008), told apart by every kind of colour vision.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#7F7F7F"
VERDICT_COLOURS = {
    "verified": GREEN,
    "consistent": GREEN,
    "refuted": RED,
    "inconclusive": ORANGE,
    "not-applicable": GREY,
}


def axes(ax: Any, size: tuple[float, float]) -> Any:
    """`ax`, or the Axes of a new figure of `size` inches."""
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(figsize=size, layout="constrained")[1]


def finish(ax: Any, title: str, x: str, y: str) -> Any:
    """Titles, a light grid, no box."""
    ax.set_title(title, loc="left", fontsize=11)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.grid(True, which="major", alpha=0.25, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def positive(values: ArrayLike) -> NDArray[np.float64]:
    """Values for a logarithmic axis: what is not positive is left out."""
    array = np.array(values, dtype=float)
    array[~(array > 0)] = np.nan
    return array
