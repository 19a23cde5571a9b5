"""Gridworlds against shortest paths and against gymnasium's own tables."""

from collections import deque

import gymnasium
import numpy as np
import pytest

from theoryrl import backward_induction, envs
from theoryrl.envs.grid import MOVES, read_map


def optimal(mdp):
    return mdp.initial @ backward_induction(mdp).value[0]


def distance(layout):
    """Fewest moves from every start to a goal, by breadth-first search; holes are avoided."""
    cells = read_map(layout)
    found = {}
    for start in (cell for cell, character in cells.items() if character == "S"):
        steps, queue = {start: 0}, deque([start])
        while queue:
            cell = queue.popleft()
            if cells[cell] in "GH":
                continue
            for move in MOVES.values():
                target = (cell[0] + move[0], cell[1] + move[1])
                if target in cells and target not in steps:
                    steps[target] = steps[cell] + 1
                    queue.append(target)
        found[start] = min((steps[c] for c in steps if cells[c] == "G"), default=10**9)
    return list(found.values())


@pytest.mark.parametrize("layout", ["S.../.#../...H/...G", "SG", "S#G", "S..G\n.##.\nS..S", "GSG", "S"])
@pytest.mark.parametrize("horizon", [1, 2, 3, 6, 20])
def test_text_map_without_slip_is_a_shortest_path_problem(layout, horizon):
    within = np.mean([d <= horizon for d in distance(layout)])
    assert optimal(envs.from_text_map(layout, horizon=horizon)) == pytest.approx(within, abs=1e-12)


@pytest.mark.parametrize("horizon, value", [(19, 0), (20, 1), (40, 1)])
def test_four_rooms_without_slip(horizon, value):
    mdp = envs.four_rooms(slip=0.0, horizon=horizon)
    assert mdp.n_states == 104
    assert optimal(mdp) == value


def test_four_rooms_slips_to_all_sides():
    mdp = envs.four_rooms()
    at = {label: s for s, label in enumerate(mdp.state_labels)}
    row = mdp.transition[at["(2, 2)"], mdp.action_labels.index("up")]
    expected = {"(1, 2)": 2 / 3, "(2, 3)": 1 / 9, "(3, 2)": 1 / 9, "(2, 1)": 1 / 9}
    np.testing.assert_allclose([row[at[cell]] for cell in expected], list(expected.values()))


@pytest.mark.parametrize("king, best", [(False, 15), (True, 7)])
@pytest.mark.parametrize("horizon", [1, 6, 7, 14, 15, 40])
def test_windy(king, best, horizon):
    assert optimal(envs.windy(king=king, horizon=horizon)) == -min(horizon, best)


def test_windy_in_gusts():
    mdp = envs.windy(stochastic=True)
    at = {label: s for s, label in enumerate(mdp.state_labels)}
    row = mdp.transition[at["(5, 3)"], mdp.action_labels.index("right")]
    assert {mdp.state_labels[s] for s in np.flatnonzero(row)} == {"(5, 4)", "(4, 4)", "(3, 4)"}
    assert -20 < optimal(mdp) < -15


@pytest.mark.parametrize("width, height", [(12, 4), (3, 2), (5, 2)])
@pytest.mark.parametrize("horizon", [1, 4, 13, 30])
def test_cliff(width, height, horizon):
    assert optimal(envs.cliff(width=width, height=height, horizon=horizon)) == -min(horizon, width + 1)


def gymnasium_value(name, horizon, **settings):
    """Optimal value at the start by plain dynamic programming on the environment's table."""
    env = gymnasium.make(name, **settings).unwrapped
    value = dict.fromkeys(env.P, 0.0)
    for _ in range(horizon):
        value = {
            s: max(
                sum(p * (r + (0.0 if done else value[int(t)])) for p, t, r, done in outcomes)
                for outcomes in env.P[s].values()
            )
            for s in env.P
        }
    return float(env.initial_state_distrib @ [value[s] for s in sorted(value)])


@pytest.mark.parametrize("size", [4, 8])
def test_frozen_lake_is_a_text_map(size):
    from gymnasium.envs.toy_text.frozen_lake import MAPS

    name = f"{size}x{size}"
    ours = envs.from_text_map("\n".join(MAPS[name]), slip=2 / 3, horizon=60)
    assert optimal(ours) == pytest.approx(
        gymnasium_value("FrozenLake-v1", 60, map_name=name, is_slippery=True), abs=1e-12
    )


def test_cliff_is_that_of_gymnasium():
    name = next(spec for spec in ("CliffWalking-v1", "CliffWalking-v0") if spec in gymnasium.registry)
    for horizon in (3, 13, 25):
        assert optimal(envs.cliff(horizon=horizon)) == gymnasium_value(name, horizon)


def test_falling_off_the_cliff():
    mdp = envs.cliff()
    at = {label: s for s, label in enumerate(mdp.state_labels)}
    start = at["(3, 0)"]
    for cell, action in (("(3, 0)", "right"), ("(2, 5)", "down")):
        s, a = at[cell], mdp.action_labels.index(action)
        assert mdp.reward[s, a] == -100 and mdp.transition[s, a, start] == 1
    assert "(3, 5)" not in at


def test_cells_are_labelled_for_drawing():
    mdp = envs.from_text_map("S#/.G")
    assert mdp.state_labels == ("(0, 0)", "(1, 0)", "(1, 1)")
    assert mdp.action_labels == ("up", "right", "down", "left")


def test_large_maps_are_sparse():
    assert envs.from_text_map("S" + "." * 600 + "G").is_sparse
    assert not envs.from_text_map("S" + "." * 60 + "G").is_sparse


@pytest.mark.parametrize(
    "layout, message",
    [
        ("S.x", r"'x' at \(0, 2\)"),
        ("S./...", "row 1 has 3 cells, row 0 has 2"),
        ("..G", "no start"),
        ("", "no start"),
        ("###", "no start"),
        (3, "must be text"),
    ],
)
def test_bad_maps(layout, message):
    with pytest.raises(ValueError, match=message):
        envs.from_text_map(layout)
