"""Gridworlds: from a text map, four rooms, the windy grid and the cliff."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from theoryrl.envs._family import family, require_real
from theoryrl.mdp._checks import require_int
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.transitions import SparseTransition

Cell = tuple[int, int]

MOVES = {"up": (-1, 0), "right": (0, 1), "down": (1, 0), "left": (0, -1)}
DIAGONALS = {"up-left": (-1, -1), "up-right": (-1, 1), "down-right": (1, 1), "down-left": (1, -1)}
SMALL_MAP = "S.../.#../...H/...G"
FOUR_ROOMS = """
#############
#S....#.....#
#.....#.....#
#...........#
#.....#.....#
#.....#.....#
##.####.....#
#.....###.###
#.....#.....#
#.....#.....#
#...........#
#.....#....G#
#############
"""
# Column by column, the number of rows by which the wind carries up (Sutton and Barto, Example 6.5).
WIND = (0, 0, 0, 1, 1, 1, 2, 2, 1, 0)


@family
def from_text_map(layout: str = SMALL_MAP, *, slip: float = 0.0, horizon: int = 20) -> FiniteHorizonMDP:
    """A gridworld drawn in characters: reach the goal, once, before the horizon.

    `#` wall, `S` start, `G` goal, `H` hole, `.` or `F` free. The four actions move one cell; with probability `slip`
    the move turns aside, left or right with equal chance; a move into a wall or off the map stays. Entering a goal
    pays 1; goals and holes are absorbing. States are the cells that are no walls, in reading order, labelled `(row,
    col)`.

    Parameters
    ----------
    layout : str
        Rows of equal length separated by line breaks or `/`. Several starts have equal probability.
    slip : float
        In [0, 1]; 2/3 gives the ice of gymnasium's FrozenLake.
    horizon : int
        H, at least 1.

    Raises
    ------
    ValueError
        A character that means nothing (its place is named), rows of different lengths, no start.

    Notes
    -----
    Known constants: without slip the optimal value is the share of starts within H steps of a goal.

    References
    ----------
    Sutton and Barto (2018), Reinforcement learning: an introduction, Chapter 3; characters as in gymnasium's
    FrozenLake.
    """
    cells = read_map(layout)
    slip = require_real(slip, "slip", 0, 1)
    return _goal_model(cells, (1 - slip, slip / 2, 0.0, slip / 2), horizon)


@family
def four_rooms(*, slip: float = 1 / 3, horizon: int = 40) -> FiniteHorizonMDP:
    """Four rooms joined by four doors: from the upper left corner to the lower right one.

    With probability `slip` a move goes in one of the three other directions, each as likely; walls stop it. Entering
    the goal pays 1 and ends there. The 104 cells are labelled `(row, col)`.

    Parameters
    ----------
    slip : float
        In [0, 1].
    horizon : int
        H, at least 1.

    Notes
    -----
    Known constants: without slip the optimal value is 1 if H >= 20 and 0 otherwise.

    References
    ----------
    Sutton, Precup and Singh (1999), Between MDPs and semi-MDPs: the rooms and the slip of 1/3. Start and
    goal are corners here.
    """
    slip = require_real(slip, "slip", 0, 1)
    return _goal_model(read_map(FOUR_ROOMS), (1 - slip, slip / 3, slip / 3, slip / 3), horizon)


@family
def windy(*, king: bool = False, stochastic: bool = False, horizon: int = 20) -> FiniteHorizonMDP:
    """The windy grid: seven by ten cells with a crosswind that carries up by up to two cells.

    Every step costs 1 until the goal (3, 7) is entered, from the start (3, 0); the wind is that of the column one
    leaves.

    Parameters
    ----------
    king : bool
        Diagonal moves as well (eight actions).
    stochastic : bool
        Where there is wind, it blows one cell more or one less with probability 1/3 each.
    horizon : int
        H, at least 1.

    Notes
    -----
    Known constants: the optimal value is -min(H, 15), and -min(H, 7) with king's moves, when the wind is steady.

    References
    ----------
    Sutton and Barto (2018), Example 6.5, Exercises 6.9 and 6.10.
    """
    cells = {(row, column): "." for row in range(7) for column in range(len(WIND))}
    start, goal = (3, 0), (3, 7)
    moves = {**MOVES, **DIAGONALS} if king else MOVES

    def move(cell: Cell, action: str) -> Mapping[Cell, float]:
        if cell == goal:
            return {goal: 1.0}
        wind = WIND[cell[1]]
        gusts = {wind - 1: 1 / 3, wind: 1 / 3, wind + 1: 1 / 3} if stochastic and wind else {wind: 1.0}
        landed: dict[Cell, float] = {}
        for gust, probability in gusts.items():
            row = min(max(cell[0] + moves[action][0] - gust, 0), 6)
            column = min(max(cell[1] + moves[action][1], 0), len(WIND) - 1)
            landed[row, column] = landed.get((row, column), 0.0) + probability
        return landed

    return _grid_model(list(cells), [start], list(moves), move, lambda c, a, t: 0.0 if c == goal else -1.0, horizon)


@family
def cliff(*, width: int = 12, height: int = 4, horizon: int = 20) -> FiniteHorizonMDP:
    """Walk along a cliff: from the lower left corner to the lower right one, and the cells between are the abyss.

    Every step costs 1; a step into the abyss costs 100 and leads back to the start. The goal is absorbing and free.

    Parameters
    ----------
    width, height : int
        At least 3 and 2.
    horizon : int
        H, at least 1.

    Notes
    -----
    Known constants: the optimal value is -min(H, width + 1), -13 by default.

    References
    ----------
    Sutton and Barto (2018), Example 6.6.
    """
    width, height = require_int(width, 3, "width"), require_int(height, 2, "height")
    start, goal = (height - 1, 0), (height - 1, width - 1)
    cells = [
        (row, column)
        for row in range(height)
        for column in range(width)
        if row < height - 1 or column in (0, width - 1)
    ]

    def target(cell: Cell, action: str) -> Cell:
        row, column = cell[0] + MOVES[action][0], cell[1] + MOVES[action][1]
        return min(max(row, 0), height - 1), min(max(column, 0), width - 1)

    def falls(cell: Cell, action: str) -> bool:
        row, column = target(cell, action)
        return cell != goal and row == height - 1 and 0 < column < width - 1

    def move(cell: Cell, action: str) -> Mapping[Cell, float]:
        if cell == goal:
            return {goal: 1.0}
        return {start if falls(cell, action) else target(cell, action): 1.0}

    def reward(cell: Cell, action: str, _: Cell) -> float:
        return 0.0 if cell == goal else -100.0 if falls(cell, action) else -1.0

    return _grid_model(cells, [start], list(MOVES), move, reward, horizon)


def read_map(layout: str) -> dict[Cell, str]:
    """The cells of a text map that are no walls, in reading order, each with its character."""
    if not isinstance(layout, str):
        raise ValueError(f"layout must be text, not {type(layout).__name__}")
    rows = [line.strip() for line in layout.strip().replace("/", "\n").split("\n")]
    cells: dict[Cell, str] = {}
    for row, line in enumerate(rows):
        if len(line) != len(rows[0]):
            raise ValueError(f"layout: row {row} has {len(line)} cells, row 0 has {len(rows[0])}")
        for column, character in enumerate(line):
            if character not in "#SGHF.":
                raise ValueError(f"layout: {character!r} at ({row}, {column}) is none of # S G H F .")
            if character != "#":
                cells[row, column] = character
    if "S" not in cells.values():
        raise ValueError("layout has no start, S")
    return cells


def _goal_model(cells: dict[Cell, str], turns: Sequence[float], horizon: int) -> FiniteHorizonMDP:
    """Moves that turn by 0, 90, 180, 270 degrees with probabilities `turns`; entering a goal pays 1."""
    names = list(MOVES)

    def move(cell: Cell, action: str) -> Mapping[Cell, float]:
        if cells[cell] in "GH":
            return {cell: 1.0}
        landed: dict[Cell, float] = {}
        for turn, probability in enumerate(turns):
            step = MOVES[names[(names.index(action) + turn) % 4]]
            target = (cell[0] + step[0], cell[1] + step[1])
            target = target if target in cells else cell
            if probability > 0:
                landed[target] = landed.get(target, 0.0) + probability
        return landed

    def reward(cell: Cell, _: str, target: Cell) -> float:
        return float(cells[target] == "G" and cells[cell] != "G")

    starts = [cell for cell, character in cells.items() if character == "S"]
    return _grid_model(list(cells), starts, names, move, reward, horizon)


def _grid_model(
    cells: Sequence[Cell],
    starts: Sequence[Cell],
    actions: Sequence[str],
    move: Callable[[Cell, str], Mapping[Cell, float]],
    reward: Callable[[Cell, str, Cell], float],
    horizon: int,
) -> FiniteHorizonMDP:
    number = {cell: s for s, cell in enumerate(cells)}
    entries = [
        (s, a, number[target], probability, reward(cell, action, target))
        for s, cell in enumerate(cells)
        for a, action in enumerate(actions)
        for target, probability in sorted(move(cell, action).items(), key=lambda item: number[item[0]])
    ]
    source, chosen, targets, weights, rewards = zip(*entries, strict=True)
    initial = np.zeros(len(cells))
    initial[[number[cell] for cell in starts]] = 1 / len(starts)
    mdp = FiniteHorizonMDP(
        SparseTransition.from_entries(source, chosen, targets, weights, len(cells), len(actions)),
        outcome_reward=rewards,  # entries are in the order of the rows already
        horizon=horizon,
        initial=initial,
        state_labels=[f"({row}, {column})" for row, column in cells],
        action_labels=actions,
    )
    return mdp.to_dense() if len(cells) <= 500 else mdp
