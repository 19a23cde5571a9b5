"""Models from callables: what users write when they have no arrays yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from theoryrl.mdp._checks import require_int
from theoryrl.mdp.transitions import SparseTransition


def arguments_from_functions(
    states: Sequence[Any],
    actions: Sequence[Any] | Callable[[Any], Sequence[Any]],
    transition: Callable[..., Any],
    reward: Callable[..., float],
    horizon: int | None,
    initial: Any,
) -> dict[str, Any]:
    """Constructor arguments of a sparse model; `horizon` given means that both callables take the layer first."""
    if horizon is not None:
        horizon = require_int(horizon, 1, "horizon")
    states = list(states)
    number = {state: i for i, state in enumerate(states)}
    if not states:
        raise ValueError("states is empty")
    if len(number) != len(states):
        raise ValueError("states repeats a state")
    allowed = [list(actions(state)) if callable(actions) else list(actions) for state in states]
    every = list(dict.fromkeys(action for here in allowed for action in here))
    if not every:
        raise ValueError("actions is empty")
    column = {action: i for i, action in enumerate(every)}
    mask = np.zeros((len(states), len(every)), bool)
    layers = range(1 if horizon is None else horizon)
    means = np.zeros((len(layers), len(states), len(every)))
    entries: list[tuple[int, int, int, int, float]] = []
    for h in layers:
        for s, state in enumerate(states):
            for action in allowed[s]:
                a = column[action]
                mask[s, a] = True
                call = (state, action) if horizon is None else (h, state, action)
                means[h, s, a] = reward(*call)
                for successor, probability in dict(transition(*call)).items():
                    if successor not in number:
                        raise ValueError(f"transition{call} leads to {successor!r}, which is not a state")
                    entries.append((h, s, a, number[successor], float(probability)))
    layer, source, chosen, target, weight = zip(*entries, strict=True) if entries else ((),) * 5
    rows = SparseTransition.from_entries(
        source, chosen, target, weight, len(states), len(every), None if horizon is None else layer, len(layers)
    )
    return {
        "transition": rows,
        "reward": means[0] if horizon is None else means,
        "initial": _initial(initial, number, len(states)),
        "action_mask": mask,
        "state_labels": states if len({str(s) for s in states}) == len(states) else None,
        "action_labels": every if len({str(a) for a in every}) == len(every) else None,
    }


def _initial(initial: Any, number: Mapping[Any, int], n_states: int) -> Any:
    if initial is None:
        return None
    weights = np.zeros(n_states)
    for state, probability in initial.items() if isinstance(initial, Mapping) else [(initial, 1.0)]:
        if state not in number:
            raise ValueError(f"initial names {state!r}, which is not a state")
        weights[number[state]] += probability
    return weights
