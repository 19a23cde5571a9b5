"""Reads PRISM's explicit files line by line; the formats are in `prism`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

Key = tuple[int, int, int]

# State rewards, transition rewards; the second names are those of older manuals.
_REWARD_FILES = ((".srew", ".rews"), (".trew", ".rewt"))
OWN_NAME = re.compile(r"_(\d+)")  # how to_prism names actions without labels


class Lines:
    """The lines of a text file with their numbers, without comments; errors say where."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.number = 0
        content = Path(path).read_bytes()
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise ValueError(f"{path}: not a text file") from None
        lines = text.split("\n")
        if lines[-1]:
            self.number = len(lines)
            self.fail("the last line has no end: is the file truncated?")
        self._lines = [(i, line.strip()) for i, line in enumerate(lines[:-1], 1)]
        self._lines = [(i, line) for i, line in self._lines if line and not line.startswith("#")]

    def fail(self, message: str) -> NoReturn:
        raise ValueError(f"{self.path}:{self.number}: {message}")

    def header(self, what: str) -> str:
        if not self._lines:
            raise ValueError(f"{self.path}: empty; the first line must be {what}")
        self.number, line = self._lines[0]
        return line

    def rest(self) -> Iterator[str]:
        for number, line in self._lines[1:]:
            self.number = number
            yield line

    def sizes(self, what: str) -> list[int]:
        """The whole numbers of the first line, as many as `what` has words."""
        line = self.header(what)
        words = line.split()
        if len(words) != len(what.split()) or not all(re.fullmatch(r"[0-9]+", word) for word in words):
            self.fail(f"the first line must be {what!r}, not {line!r}")
        return [int(word) for word in words]

    def count(self, read: int, promised: int, what: str) -> None:
        if read != promised:
            raise ValueError(f"{self.path}: the first line promises {promised} {what}, the file has {read}")

    def index(self, word: str, limit: int, what: str) -> int:
        number = int(word) if word.isascii() and word.isdigit() else -1
        if not 0 <= number < limit:
            self.fail(f"{what} {word!r} is not in 0 to {limit - 1}")
        return number

    def value(self, word: str, what: str) -> float:
        try:
            value = float(Fraction(word)) if "/" in word else float(word)  # fractions come from exact exports
        except (ValueError, ZeroDivisionError, OverflowError):
            self.fail(f"{what} {word!r} is not a number")
        if not math.isfinite(value):
            self.fail(f"{what} is {word}, not finite")
        return value


class Transitions:
    """The `.tra` file: probabilities and action names by state and choice."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        if len(lines.header("states choices transitions").split()) == 2:
            lines.fail("two numbers in the first line: a Markov chain, not an MDP")
        self.n_states, self.n_choices, promised = lines.sizes("states choices transitions")
        if not 1 <= self.n_states <= self.n_choices:
            lines.fail(f"{self.n_states} states with {self.n_choices} choices: every state needs one")
        self.probability: dict[Key, float] = {}
        self.name: dict[tuple[int, int], str] = {}
        for line in lines.rest():
            self._read(line.split())
        lines.count(len(self.probability), promised, "transitions")
        lines.count(len(self.name), self.n_choices, "choices")
        self.choices = [0] * self.n_states
        for s, _ in self.name:
            self.choices[s] += 1
        for s, choice in self.name:
            if choice >= self.choices[s]:
                raise ValueError(f"{lines.path}: state {s} has choice {choice}, but only {self.choices[s]} choices")
        if not all(self.choices):
            raise ValueError(f"{lines.path}: state {self.choices.index(0)} has no choice")

    def _read(self, words: list[str]) -> None:
        if len(words) not in (4, 5):
            self.lines.fail(f"a transition is `s choice s' p [action]`; this line has {len(words)} words")
        s, target = (self.lines.index(words[k], self.n_states, "state") for k in (0, 2))
        choice = self.lines.index(words[1], self.n_choices, "choice")
        probability = self.lines.value(words[3], "the probability")
        if not 0 <= probability <= 1:
            self.lines.fail(f"the probability {words[3]} is not in [0, 1]")
        name = words[4] if len(words) == 5 else ""
        if self.name.setdefault((s, choice), name) != name:
            self.lines.fail(f"choice {choice} of state {s} has two names, {self.name[s, choice]!r} and {name!r}")
        if (s, choice, target) in self.probability:
            self.lines.fail(f"the transition {s} {choice} {target} appears twice")
        self.probability[s, choice, target] = probability


def number_actions(
    transitions: Transitions, order: Sequence[str] | None
) -> tuple[Sequence[Any], Callable[[int, int], int]]:
    """Action names (a range where there are none), and which action a choice of a state is."""
    name, path = transitions.name, transitions.lines.path
    distinct = {(s, text) for (s, _), text in name.items()}
    if not all(name.values()) or len(distinct) != len(name):
        if order is not None:
            raise ValueError(f"{path}: actions= needs a name on every choice, and each only once per state")
        return range(max(transitions.choices)), lambda _, choice: choice
    own = [OWN_NAME.fullmatch(text) for text in name.values()]
    if order is None and all(own):
        numbers = {key: int(match[1]) for key, match in zip(name, own, strict=True) if match}
        # A number far beyond the choices comes from nowhere and would ask for memory without end.
        if max(numbers.values()) < transitions.n_choices:
            return range(1 + max(numbers.values())), lambda s, choice: numbers[s, choice]
    names = list(dict.fromkeys(name[key] for key in sorted(name))) if order is None else [str(text) for text in order]
    column = {text: a for a, text in enumerate(names)}
    missing = next((text for text in name.values() if text not in column), None)
    if missing is not None:
        raise ValueError(f"{path}: actions= does not have the action {missing!r}")
    return names, lambda s, choice: column[name[s, choice]]


def read_rewards(prefix: str, transitions: Transitions) -> dict[Key, float]:
    """Rewards by state, choice and successor."""
    found = [next((Path(prefix + end) for end in ends if Path(prefix + end).exists()), None) for ends in _REWARD_FILES]
    single = Path(prefix + ".rew")
    if found == [None, None]:
        if not single.exists():
            raise ValueError(f"{prefix}.tra: no rewards ({prefix}.srew or {prefix}.trew); rewards= says where they are")
        found[len(Lines(str(single)).header("sizes").split()) == 3] = single
    by_state = [0.0] * transitions.n_states if found[0] is None else _state_rewards(Lines(str(found[0])), transitions)
    paid = {key: by_state[key[0]] for key in transitions.probability}
    if found[1] is not None:
        for key, value in _transition_rewards(Lines(str(found[1])), transitions).items():
            paid[key] += value
    return paid


def _state_rewards(lines: Lines, transitions: Transitions) -> list[float]:
    n_states, promised = lines.sizes("states entries")
    if n_states != transitions.n_states:
        lines.fail(f"{n_states} states, but {transitions.lines.path} has {transitions.n_states}")
    paid: dict[int, float] = {}
    for line in lines.rest():
        words = line.split()
        if len(words) != 2:
            lines.fail(f"a state reward is `s reward`; this line has {len(words)} words")
        s = lines.index(words[0], n_states, "state")
        if s in paid:
            lines.fail(f"the reward of state {s} appears twice")
        paid[s] = lines.value(words[1], "the reward")
    lines.count(len(paid), promised, "rewards")
    return [paid.get(s, 0.0) for s in range(n_states)]


def _transition_rewards(lines: Lines, transitions: Transitions) -> dict[Key, float]:
    n_states, n_choices, promised = lines.sizes("states choices entries")
    if (n_states, n_choices) != (transitions.n_states, transitions.n_choices):
        want = f"{transitions.n_states} states and {transitions.n_choices} choices"
        lines.fail(f"{n_states} states and {n_choices} choices, but {transitions.lines.path} has {want}")
    paid: dict[Key, float] = {}
    for line in lines.rest():
        words = line.split()
        if len(words) not in (4, 5):
            lines.fail(f"a transition reward is `s choice s' reward`; this line has {len(words)} words")
        s, target = (lines.index(words[k], n_states, "state") for k in (0, 2))
        key = (s, lines.index(words[1], n_choices, "choice"), target)
        if key not in transitions.probability:
            lines.fail(f"{transitions.lines.path} has no transition {' '.join(words[:3])}")
        if key in paid:
            lines.fail(f"the reward of the transition {' '.join(words[:3])} appears twice")
        paid[key] = lines.value(words[3], "the reward")
    lines.count(len(paid), promised, "rewards")
    return paid


def common_rewards(rows: Sequence[tuple[int, int, int, float, float]], shape: tuple[int, int]) -> NDArray | None:
    """Rewards (S, A) if none depends on the successor, else None."""
    paid: dict[tuple[int, int], float] = {}
    for s, a, _, _, reward in rows:
        if paid.setdefault((s, a), reward) != reward:
            return None
    means = np.zeros(shape)
    for pair, reward in paid.items():
        means[pair] = reward
    return means


def read_initial(prefix: str, n_states: int) -> int:
    if not Path(prefix + ".lab").exists():
        return 0
    lines = Lines(prefix + ".lab")
    declared = re.findall(r'([0-9]+)="([^"]*)"', lines.header('0="init" ...'))
    number = next((int(key) for key, name in declared if name == "init"), None)
    if number is None:
        lines.fail('the label "init" is not declared')
    starts = []
    for line in lines.rest():
        state, colon, labels = line.partition(":")
        if not colon:
            lines.fail("a line of labels is `s: label label ...`")
        s = lines.index(state.strip(), n_states, "state")
        if number in [lines.index(word, len(declared), "label") for word in labels.split()]:
            starts.append(s)
    if len(starts) != 1:
        raise ValueError(f"{lines.path}: {len(starts)} states are labelled init; initial= says where to start")
    return starts[0]


def read_state_labels(prefix: str, n_states: int) -> list[str] | None:
    if not Path(prefix + ".sta").exists():
        return None
    lines = Lines(prefix + ".sta")
    header = lines.header("(variables)")
    if not re.fullmatch(r"\(.*\)", header):
        lines.fail(f"the first line must be (variables), not {header!r}")
    labels: list[str] = []
    for line in lines.rest():
        state, colon, values = line.partition(":")
        if not colon or not re.fullmatch(r"\(.*\)", values):
            lines.fail("a state is `s:(values)`")
        if lines.index(state, n_states, "state") != len(labels):
            lines.fail(f"state {state} where state {len(labels)} was due")
        labels.append(values[1:-1] if header == "(label)" else values)
    lines.count(len(labels), n_states, "states")
    return labels
