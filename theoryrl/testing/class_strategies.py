"""Hypothesis strategies for function classes that fit a model; many ties, and extremes of their range."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.classes.builders import optimal_values
from theoryrl.classes.values import FiniteClass, ProductClass
from theoryrl.classes.weights import WeightClass
from theoryrl.mdp.model import FiniteHorizonMDP

try:
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as hnp
except ImportError as error:
    raise ImportError("theoryrl.testing needs hypothesis: pip install theoryrl[testing]") from error


@st.composite
def finite_classes(
    draw: Any, mdp: FiniteHorizonMDP, max_size: int = 4, *, realizable: bool | None = None
) -> FiniteClass:
    """Lists of 1 to `max_size` action-value functions within [(H - h) low, (H - h) high].

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    max_size : int
    realizable : bool, optional
        True: Q* is one of them. False: it is not put there (chance may). Default both ways.

    Returns
    -------
    strategy of FiniteClass
    """
    layers = draw(st.integers(1, max_size).flatmap(lambda m: st.tuples(*_layers(mdp, [m] * mdp.horizon))))
    values = np.stack(layers, axis=1)
    if draw(st.booleans()) if realizable is None else realizable:
        values[draw(st.integers(0, len(values) - 1))] = optimal_values(mdp)
    return FiniteClass(values)


@st.composite
def product_classes(draw: Any, mdp: FiniteHorizonMDP, max_size: int = 3) -> ProductClass:
    """Products of layers with 1 to `max_size` members each, within [(H - h) low, (H - h) high]."""
    sizes = draw(st.lists(st.integers(1, max_size), min_size=mdp.horizon, max_size=mdp.horizon))
    return ProductClass(draw(st.tuples(*_layers(mdp, sizes))))


@st.composite
def weight_classes(draw: Any, mdp: FiniteHorizonMDP, max_size: int = 3) -> WeightClass:
    """Lists of 1 to `max_size` weight functions; 0, 1 and infinity are frequent."""
    shape = draw(st.integers(1, max_size)), mdp.horizon, mdp.n_states, mdp.n_actions
    weights = st.sampled_from((0.0, 1.0, 2.0, np.inf)) | st.floats(0, 10)
    return WeightClass(draw(hnp.arrays(np.float64, shape, elements=weights, fill=st.just(1.0))))


def _layers(mdp: FiniteHorizonMDP, sizes: list[int]) -> list[st.SearchStrategy[NDArray[np.float64]]]:
    low, high = mdp.reward_range
    tables = []
    for h, size in enumerate(sizes):
        bottom, top = (mdp.horizon - h) * low, (mdp.horizon - h) * high
        values = st.sampled_from((bottom, top, (bottom + top) / 2)) | st.floats(bottom, top)
        shape = size, mdp.n_states, mdp.n_actions
        tables.append(hnp.arrays(np.float64, shape, elements=values, fill=st.just(bottom)))
    return tables
