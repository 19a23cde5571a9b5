"""PRISM's explicit model files: `.tra` with `.sta`, `.lab`, `.srew` and `.trew` beside it.

The formats are those of the PRISM manual, appendix "Explicit Model Files", for MDPs:

    .tra    `states choices transitions`, then `s choice s' p [action]`
    .trew   `states choices entries`, then `s choice s' reward`
    .srew   `states entries`, then `s reward`, earned in every step from s
    .lab    `0="init" 1="deadlock" ...`, then `s: labels`
    .sta    `(variables)`, then `s:(values)`
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from theoryrl.mdp.interop._building import Model, model, storage
from theoryrl.mdp.interop._prism_reading import (
    OWN_NAME,
    Lines,
    Transitions,
    common_rewards,
    number_actions,
    read_initial,
    read_rewards,
    read_state_labels,
)
from theoryrl.mdp.model import require_model
from theoryrl.mdp.writing import write_whole


def from_prism(
    path: str | os.PathLike[str],
    *,
    horizon: int | None = None,
    discount: float | None = None,
    initial: Any = None,
    actions: Sequence[str] | None = None,
    rewards: str | os.PathLike[str] | None = None,
) -> Model:
    """The model in a set of PRISM's explicit files for an MDP.

    r(s, a, s') = state reward of s + transition reward of (s, a, s')

    If no reward depends on s' the law is deterministic. Actions are the action names when every choice has one and no
    state uses one twice, otherwise the numbers of the choices; what a state does not offer is masked.

    Parameters
    ----------
    path : the `.tra` file, or its name without the suffix
    horizon, discount
        H of a FiniteHorizonMDP or gamma of a DiscountedMDP: exactly one of them.
    initial : (S,) distribution or state, optional
        Default the state labelled "init" in the `.lab` file, or state 0 without such a file.
    actions : sequence of str, optional
        The action names in the order in which they are to be numbered; default the order of appearance.
    rewards : path without suffix, optional
        Where the reward files are if they are named otherwise (PRISM numbers them when a model has several).

    Returns
    -------
    FiniteHorizonMDP or DiscountedMDP
        Dense when small, else sparse; the values of states in the `.sta` file, if there is one, are the state labels.

    Raises
    ------
    ValueError
        Truncated or malformed files, with file and line: `model.tra:17: ...`.
    FileNotFoundError
        No `.tra` file.
    """
    prefix = _prefix(path)
    transitions = Transitions(Lines(prefix + ".tra"))
    n_states = transitions.n_states
    names, column = number_actions(transitions, actions)
    paid = read_rewards(prefix if rewards is None else os.fspath(rewards), transitions)
    mask = np.zeros((n_states, len(names)), bool)
    rows: list[tuple[int, int, int, float, float]] = []
    for (s, choice, target), probability in transitions.probability.items():
        a = column(s, choice)
        mask[s, a] = True
        rows.append((s, a, target, probability, paid.get((s, choice, target), 0.0)))
    transition, outcome = storage(rows, n_states, len(names))
    means = common_rewards(rows, mask.shape)
    settings: dict[str, Any] = {"outcome_reward": outcome} if means is None else {"reward": means}
    settings |= {
        "initial": read_initial(prefix, n_states) if initial is None else initial,
        "state_labels": read_state_labels(prefix, n_states),
        "action_labels": None if isinstance(names, range) else names,
        "action_mask": mask,
        "name": Path(prefix).name,
    }
    try:
        return model(transition, horizon, discount, "PRISM's files have", **settings)
    except ValueError as error:
        raise ValueError(f"{prefix}.tra: {error}") from None


def to_prism(mdp: Model, prefix: str | os.PathLike[str]) -> None:
    """Write a stationary model as `prefix.tra`, `.trew`, `.srew`, `.lab` and, with state labels, `.sta`.

    Numbers are written so that reading gives them back exactly. PRISM knows no randomness of rewards given
    (s, a, s'), no horizon or discount and no forbidden actions: written are mean rewards and, per state, the allowed
    actions as its choices, each under its label.

    Raises
    ------
    ValueError
        For what the files cannot say: layers, a random start, labels with blanks or line breaks.
    """
    require_model(mdp)
    if not mdp.stationary:
        raise ValueError("PRISM's files hold stationary models; this one has layers")
    start = np.flatnonzero(mdp.initial)
    if len(start) != 1:
        raise ValueError(f"PRISM starts in one state, not at random in {len(start)}: use mdp.with_initial(state)")
    prefix = _prefix(prefix)
    names = _names_to_write(mdp)
    states = _states_to_write(mdp)
    moves, paid, choices = [], [], 0
    for s in range(mdp.n_states):
        for choice, a in enumerate(np.flatnonzero(mdp.action_mask[s])):
            choices += 1
            for target, probability, reward in _outcomes(mdp, s, int(a)):
                moves.append(f"{s} {choice} {target} {probability!r}{names[a]}")
                if reward != 0:
                    paid.append(f"{s} {choice} {target} {reward!r}")
    Path(prefix + ".tra").unlink(missing_ok=True)  # until the new set is complete there is none
    _write(prefix + ".trew", [f"{mdp.n_states} {choices} {len(paid)}", *paid])
    _write(prefix + ".srew", [f"{mdp.n_states} 0"])
    _write(prefix + ".lab", ['0="init" 1="deadlock"', f"{start[0]}: 0"])
    if states is None:
        Path(prefix + ".sta").unlink(missing_ok=True)
    else:
        _write(prefix + ".sta", states)
    _write(prefix + ".tra", [f"{mdp.n_states} {choices} {len(moves)}", *moves])


def _prefix(path: str | os.PathLike[str]) -> str:
    return os.fspath(path).removesuffix(".tra")


# ---- writing


def _write(path: str, lines: Sequence[str]) -> None:
    def content(file: BinaryIO) -> None:
        file.write(("\n".join(lines) + "\n").encode())

    write_whole(path, content)


def _outcomes(mdp: Model, state: int, action: int) -> Iterator[tuple[int, float, float]]:
    """Successors of a pair with positive probability: state, probability, reward."""
    if mdp.is_sparse:
        rows = mdp.transition
        number = state * mdp.n_actions + action
        place: Any = slice(rows.indptr[number], rows.indptr[number + 1])
        successors, weights = rows.indices[place], rows.data[place]
    else:
        successors = np.flatnonzero(mdp.transition[state, action])
        place = (state, action, successors)
        weights = mdp.transition[place]
    if mdp.outcome_reward is not None:
        rewards = mdp.outcome_reward[place]
    else:
        rewards = np.full(len(weights), mdp.reward[state, action])
    for target, probability, reward in zip(successors, weights, rewards, strict=True):
        if probability > 0:
            yield int(target), float(probability), float(reward)


def _names_to_write(mdp: Model) -> list[str]:
    """What follows the probability, per action: nothing if the choices are the actions anyway."""
    if mdp.action_labels is None:
        return [""] * mdp.n_actions if mdp.action_mask.all() else [f" _{a}" for a in range(mdp.n_actions)]
    for label in mdp.action_labels:
        if not label or len(label.split()) != 1 or label != label.strip() or OWN_NAME.fullmatch(label):
            raise ValueError(f"the action label {label!r} is not a name that PRISM's files can hold")
    return [f" {label}" for label in mdp.action_labels]


def _states_to_write(mdp: Model) -> list[str] | None:
    """Lines of the `.sta` file: labels `(1,2)` are values of variables, others the value of one called `label`."""
    labels = mdp.state_labels
    if labels is None:
        return None
    for label in labels:
        if label != label.strip() or len(label.splitlines()) != 1:
            raise ValueError(f"the state label {label!r} does not fit on a line of a .sta file")
    parts = [label.count(",") + 1 if re.fullmatch(r"\([^()]+\)", label) else 0 for label in labels]
    if parts[0] and len(set(parts)) == 1:
        header = f"({','.join(f'x{i}' for i in range(parts[0]))})"
        return [header, *(f"{s}:{label}" for s, label in enumerate(labels))]
    return ["(label)", *(f"{s}:({label})" for s, label in enumerate(labels))]
