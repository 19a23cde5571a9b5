"""What all families share: the name of a model says how it was made, and parameters out of range are named."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from theoryrl.mdp.model import FiniteHorizonMDP

P = ParamSpec("P")
R = TypeVar("R")


def family(function: Callable[P, R]) -> Callable[P, R]:
    """Name the model of a call after it, `riverswim(n_states=6, horizon=20)`.

    The function returns a FiniteHorizonMDP, or a frozen dataclass with one in its field `mdp`.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def build(*args: P.args, **kwargs: P.kwargs) -> R:
        result: Any = function(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = [f"{key}={_short(value)}" for key, value in bound.arguments.items() if value is not None]
        title = f"{function.__name__}({', '.join(given)})"
        if isinstance(result, FiniteHorizonMDP):
            return result.renamed(title)  # type: ignore[return-value]
        return dataclasses.replace(result, mdp=result.mdp.renamed(title))

    return build


def _short(value: Any) -> str:
    if isinstance(value, FiniteHorizonMDP):
        return value.name or "a model"
    if isinstance(value, str):
        return value.strip().replace("\n", "/")
    if isinstance(value, (tuple, list)):
        return ",".join(map(_short, value))
    return str(value) if isinstance(value, (bool, int, float)) else type(value).__name__


def require_real(value: Any, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number in [low, high]."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number, not {value!r}") from None
    if not (math.isfinite(number) and low <= number <= high):
        side = f"in [{low:g}, {high:g}]" if high < math.inf else f"at least {low:g}" if low > -math.inf else "finite"
        raise ValueError(f"{name} must be {side}, not {value!r}")
    return number
