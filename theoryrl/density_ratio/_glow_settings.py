"""What the settings of GLOW may be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from theoryrl.classes.values import FiniteClass
from theoryrl.classes.weights import WeightClass
from theoryrl.density_ratio.bounds._setting import require_layers
from theoryrl.density_ratio.schedules import SCHEDULES
from theoryrl.density_ratio.weights import FullWeights, OccupancyRatios, RatioTable
from theoryrl.mdp._checks import frozen, require_distribution, require_int
from theoryrl.online._settings import require_level, require_scale

WEIGHTS = (WeightClass, OccupancyRatios, RatioTable, FullWeights)


def require_settings(settings: Any) -> None:
    """Refuse settings that are out of range or do not fit each other; the one at fault is named.

    Raises
    ------
    TypeError, ValueError
    """
    _require_classes(settings)
    require_int(settings.iterations, 1, "iterations")
    require_int(settings.trajectories, 1, "trajectories")
    require_level(settings.delta)
    require_scale(settings.scale)
    if settings.schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, not {settings.schedule!r}")
    if settings.test not in ("lazy", "full"):
        raise ValueError(f"test must be 'lazy' or 'full', not {settings.test!r}")
    for name in ("c", "noise_width", "gamma", "total_reward"):
        value = getattr(settings, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, not {value!r}")
    if settings.log_tests is not None and not 0 <= settings.log_tests < math.inf:
        raise ValueError(f"log_tests must be finite and at least 0, not {settings.log_tests!r}")
    _require_slope(settings)
    _require_arrays(settings)


def _require_classes(settings: Any) -> None:
    cls, weights = settings.cls, settings.weights
    if not isinstance(cls, FiniteClass):
        raise TypeError(f"cls must be a FiniteClass, not {type(cls).__name__}")
    if not isinstance(weights, WEIGHTS):
        names = ", ".join(kind.__name__ for kind in WEIGHTS)
        raise TypeError(f"weights must be one of {names}, not {type(weights).__name__}")
    if not isinstance(weights, FullWeights):
        mine = weights.horizon, weights.n_states, weights.n_actions
        theirs = cls.horizon, cls.n_states, cls.n_actions
        if mine != theirs:
            raise ValueError(f"weights are for (H, S, A) = {mine}, cls for {theirs}")
    if isinstance(weights, OccupancyRatios | RatioTable) and len(weights.row) != cls.size:
        raise ValueError(f"weights have rows for {len(weights.row)} members, cls has {cls.size}")


def _require_slope(settings: Any) -> None:
    if settings.coverability is not None:
        require_layers(settings.coverability, settings.cls.horizon, "coverability", 1.0)
    if isinstance(settings.weights, FullWeights):
        if settings.gamma is not None or settings.schedule != "self_normalised":
            raise ValueError("FullWeights has a level of its own: gamma and schedule must be left out")
    elif settings.gamma is None and settings.coverability is None:
        raise ValueError("gamma, or coverability for the default of gamma, must be given")
    elif settings.schedule == "paper" and settings.gamma is not None and not settings.gamma <= 1:
        raise ValueError(f"gamma must be at most 1 with the schedule of the paper, not {settings.gamma!r}")


def _require_arrays(settings: Any) -> None:
    cls = settings.cls
    if settings.initial is not None:
        law = frozen(settings.initial, np.float64, "initial")
        if law.shape != (cls.n_states,):
            raise ValueError(f"initial has shape {law.shape}, not ({cls.n_states},)")
        require_distribution(law, "initial")
    if settings.tie_order is not None:
        order = frozen(settings.tie_order, np.int64, "tie_order")
        if order.ndim != 1 or not np.array_equal(np.sort(order), np.arange(cls.size)):
            raise ValueError(f"tie_order must be a permutation of the {cls.size} members")
