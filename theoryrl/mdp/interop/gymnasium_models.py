"""gymnasium, both ways: models from the tables of its tabular environments, environments that sample a model."""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp.interop._building import storage
from theoryrl.mdp.model import FiniteHorizonMDP

_ACTIONS = {
    "FrozenLakeEnv": ("left", "down", "right", "up"),
    "CliffWalkingEnv": ("up", "right", "down", "left"),
    "TaxiEnv": ("south", "north", "east", "west", "pickup", "dropoff"),
}


def from_gymnasium(
    env_or_id: Any, horizon: int | None = None, *, initial: Any = None, **make_kwargs: Any
) -> FiniteHorizonMDP:
    """The finite model of a gymnasium environment that publishes it as `P[s][a] = [(p, s', r, done), ...]`.

    P(s' | s, a) = sum of p over the entries that lead to s';  r(s, a, s') = their reward.

    A `done` entry ends the episode. It leads to its s' if that state is absorbing and pays nothing (FrozenLake);
    otherwise (CliffWalking, Taxi) to one more state, number S, labelled "terminal", absorbing and without reward.
    Several entries of one (s, a) with the same destination become one outcome; where their rewards differ it pays
    their mean given that destination, so that every value is unchanged while that reward loses its spread.
    Wrappers are looked through: the model is that of `env.unwrapped`.

    Parameters
    ----------
    env_or_id : gymnasium.Env or str
        An environment, or an id for `gymnasium.make`.
    horizon : int, optional
        H; default the environment's own limit, `spec.max_episode_steps`.
    initial : (S,) distribution or state, optional
        Where episodes start; default the environment's `initial_state_distrib`.
    make_kwargs
        For `gymnasium.make` (`map_name="8x8"`, `desc=[...]`, `is_slippery=False`, `is_rainy=True`, ...).

    Returns
    -------
    FiniteHorizonMDP
        Dense when small, else sparse; named `gymnasium:ID`. An environment made by `to_gymnasium` gives back its model.

    Raises
    ------
    ValueError
        Unknown ids (with a suggestion), environments without a finite model, without a limit when `horizon` is
        missing, and tables that are no MDP; the message names the entry at fault.
    """
    env = _make(env_or_id, make_kwargs) if isinstance(env_or_id, str) else env_or_id
    if make_kwargs and env is env_or_id:
        raise ValueError(
            f"{', '.join(sorted(make_kwargs))}: options of gymnasium.make go with an id, not an environment"
        )
    try:
        return _model_of(env, horizon, initial)
    finally:
        if env is not env_or_id:
            env.close()


def to_gymnasium(mdp: FiniteHorizonMDP) -> Any:
    """A gymnasium environment that samples `mdp`: states and actions are integers, an episode has at most H steps.

    Rewards follow the model's law. `terminated` says that an absorbing state without reward was entered (nothing can
    follow), `truncated` that step H was taken. `info` has the layer `h`, the probability `prob` of what happened and
    the `action_mask` of the state. Randomness is `reset(seed=...)` alone. gymnasium has no forbidden actions: one
    that the model forbids acts as the lowest-numbered allowed one, so that no value changes.

    A stationary model is published as `P[s][a] = [(p, s', r, done), ...]` (with mean rewards unless they depend on
    the successor) and `initial_state_distrib`; any model is the attribute `model`.

    Raises
    ------
    ValueError
        For a model without a horizon.
    """
    from theoryrl.mdp.interop._environment import environment

    if not isinstance(mdp, FiniteHorizonMDP):
        raise ValueError("an episode needs an end: pass a FiniteHorizonMDP, e.g. mdp.with_horizon(H)")
    return environment(mdp)


def _make(name: str, kwargs: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # notices for people who train in the environment, not for reading its table
        import gymnasium

        try:
            return gymnasium.make(name, disable_env_checker=True, **kwargs)
        except (gymnasium.error.NameNotFound, gymnasium.error.VersionNotFound, gymnasium.error.NamespaceNotFound):
            close = difflib.get_close_matches(name, list(gymnasium.registry), n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"gymnasium has no environment {name!r}{hint}") from None
        except Exception as error:  # an environment's constructor may raise anything
            raise ValueError(f"gymnasium cannot make {name!r}: {_line(error)}") from error


def _model_of(env: Any, horizon: int | None, initial: Any) -> FiniteHorizonMDP:
    import gymnasium

    if not isinstance(env, gymnasium.Env):
        raise TypeError(f"env_or_id must be a gymnasium.Env or an id, not {type(env).__name__}")
    from theoryrl.mdp.interop._environment import ModelEnv

    core: Any = env.unwrapped
    if isinstance(core, ModelEnv):
        model = core.model if horizon is None else core.model.with_horizon(horizon)
        return model if initial is None else model.with_initial(initial)
    title = env.spec.id if env.spec is not None else type(core).__name__
    _require_table(core, title)
    horizon = horizon if horizon is not None else getattr(env.spec, "max_episode_steps", None)
    if horizon is None:
        raise ValueError(f"{title} sets no limit on its episodes; pass horizon=")
    if initial is None:
        initial = getattr(core, "initial_state_distrib", None)
    if initial is None:
        raise ValueError(f"{title} does not publish where episodes start (initial_state_distrib); pass initial=")
    n_actions = int(core.action_space.n)
    table = _table(core.P, n_actions, title)
    arrays = _arrays(table, n_actions, initial, _state_labels(core, len(table)))
    actions = _ACTIONS.get(type(core).__name__)
    try:
        return FiniteHorizonMDP(**arrays, horizon=horizon, action_labels=actions, name=f"gymnasium:{title}")
    except ValueError as error:
        raise ValueError(f"{title}: {error}") from None


def _require_table(core: Any, title: str) -> None:
    from gymnasium.spaces import Box, Discrete

    for what, space in (("observation", core.observation_space), ("action", core.action_space)):
        if isinstance(space, Box):
            raise ValueError(f"{title} has no finite model: its {what}s are continuous ({_line(space)})")
        if not isinstance(space, Discrete):
            raise ValueError(f"{title} has no finite model to read: its {what} space is {_line(space)}, not Discrete")
    if not hasattr(core, "P"):
        raise ValueError(f"{title} does not publish its transition table (no attribute P)")
    if getattr(core, "fickle_passenger", False):
        raise ValueError(f"{title} with fickle_passenger=True is no MDP in its states: a hidden coin moves the goal")


Entry = tuple[float, int, float, bool]


def _table(published: Any, n_actions: int, title: str) -> list[dict[int, list[Entry]]]:
    """`P` as checked numbers: for each state, for each action that has any, the entries of positive probability."""
    states = dict(_items(published, f"{title}: P"))
    if not states or sorted(states) != list(range(len(states))):
        raise ValueError(f"{title}: the keys of P are not the states 0, 1, ...")
    table = []
    for s in range(len(states)):
        here: dict[int, list[Entry]] = {}
        for a, entries in _items(states[s], f"{title}: P[{s}]"):
            if not isinstance(a, (int, np.integer)) or not 0 <= a < n_actions:
                raise ValueError(f"{title}: P[{s}] has the key {a!r}, not an action number (0 to {n_actions - 1})")
            checked = [_entry(e, f"{title}: P[{s}][{a}][{i}]", len(states)) for i, e in enumerate(entries)]
            if checked:
                here[int(a)] = [e for e in checked if e[0] > 0]
                if not here[int(a)]:
                    raise ValueError(f"{title}: P[{s}][{a}] has no entry of positive probability")
        if not here:
            raise ValueError(f"{title}: P[{s}] has no action with entries")
        table.append(here)
    return table


def _items(container: Any, name: str) -> Iterator[tuple[Any, Any]]:
    if isinstance(container, Mapping):
        yield from container.items()
    elif isinstance(container, Sequence) and not isinstance(container, str):
        yield from enumerate(container)
    else:
        raise ValueError(f"{name} is {type(container).__name__}, not a table of (p, s', r, done)")


def _entry(entry: Any, name: str, n_states: int) -> Entry:
    try:
        probability, successor, reward, done = entry
        checked = float(probability), int(successor), float(reward), bool(done)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {_line(entry)}, not (p, s', r, done)") from None
    if not 0 <= checked[0] <= 1 + 1e-9:
        raise ValueError(f"{name} has probability {probability}")
    if not 0 <= checked[1] < n_states or checked[1] != successor:
        raise ValueError(f"{name} leads to {successor}, which is not a state (0 to {n_states - 1})")
    if not math.isfinite(checked[2]):
        raise ValueError(f"{name} has reward {reward}, not finite")
    return checked


def _arrays(
    table: list[dict[int, list[Entry]]], n_actions: int, initial: Any, labels: list[str] | None
) -> dict[str, Any]:
    resting = [_rests(s, here) for s, here in enumerate(table)]
    entries = [e for here in table for group in here.values() for e in group]
    end = len(table) if any(done and not resting[target] for _, target, _, done in entries) else None
    n_states = len(table) + (end is not None)
    mask = np.zeros((n_states, n_actions), bool)
    rows: list[tuple[int, int, int, float, float]] = []
    for s, here in enumerate(table):
        for a, group in here.items():
            mask[s, a] = True
            rows += [(s, a, *outcome) for outcome in _outcomes(group, resting, end)]
    paid = [reward for _, _, reward, _ in entries]
    if end is not None:
        mask[end] = True
        rows += [(end, a, end, 1.0, 0.0) for a in range(n_actions)]
        paid.append(0.0)
        labels = None if labels is None else [*labels, "terminal"]
    transition, outcome = storage(rows, n_states, n_actions)
    low, high = min(paid), max(paid)
    return {
        "transition": transition,
        "outcome_reward": outcome,
        "initial": _initial(initial, len(table), end),
        "action_mask": mask,
        "reward_range": (0.0, 1.0) if low >= 0 and high <= 1 else (low, high),
        "state_labels": labels,
    }


def _rests(state: int, here: dict[int, list[Entry]]) -> bool:
    """Whether every entry of the state stays there and pays nothing."""
    return all(target == state and reward == 0 for group in here.values() for _, target, reward, _ in group)


def _outcomes(group: list[Entry], resting: list[bool], end: int | None) -> Iterator[tuple[int, float, float]]:
    """`(s', p, r)` with each s' once."""
    merged: dict[int, list[tuple[float, float]]] = {}
    for probability, target, reward, done in group:
        where = end if done and end is not None and not resting[target] else target
        merged.setdefault(where, []).append((probability, reward))
    for where, parts in merged.items():
        total = sum(p for p, _ in parts)
        first = parts[0][1]
        mean = first if all(r == first for _, r in parts) else math.fsum(p * r for p, r in parts) / total
        yield where, total, mean


def _initial(initial: Any, n_states: int, end: int | None) -> NDArray[np.float64] | int:
    if np.ndim(initial) == 0:
        return initial
    weights = np.asarray(initial, np.float64)
    return weights if end is None or weights.shape != (n_states,) else np.append(weights, 0.0)


def _state_labels(core: Any, n_states: int) -> list[str] | None:
    """Grid cells `(row,column)`, or the tuple that the environment itself decodes a state into."""
    shape: Any = getattr(core, "shape", ())
    if hasattr(core, "nrow") and hasattr(core, "ncol"):
        shape = (core.nrow, core.ncol)
    if len(shape) == 2 and shape[0] * shape[1] == n_states:
        return [f"({s // shape[1]},{s % shape[1]})" for s in range(n_states)]
    if hasattr(core, "decode"):
        labels = [f"({','.join(str(part) for part in core.decode(s))})" for s in range(n_states)]
        return labels if len(set(labels)) == n_states else None
    return None


def _line(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 120 else text[:117] + "..."
