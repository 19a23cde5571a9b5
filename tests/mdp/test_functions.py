"""Models from callables."""

import re

import numpy as np
import pytest

from theoryrl import DiscountedMDP, FiniteHorizonMDP

STATES = ["sun", "rain"]


def weather(state, action):
    return {"sun": 0.75, "rain": 0.25} if action == "wait" else {state: 1.0}


def test_a_model_from_functions():
    mdp = FiniteHorizonMDP.from_functions(
        STATES, ["wait", "stay"], weather, lambda s, a: float(s == "sun"), horizon=3, initial="rain", name="weather"
    )
    assert mdp.is_sparse and mdp.state_labels == ("sun", "rain") and mdp.action_labels == ("wait", "stay")
    expected = [[[0.75, 0.25], [1, 0]], [[0.75, 0.25], [0, 1]]]
    np.testing.assert_array_equal(mdp.to_dense().transition, expected)
    np.testing.assert_array_equal(mdp.reward, [[1, 1], [0, 0]])
    assert mdp.initial.tolist() == [0, 1] and mdp.name == "weather" and mdp.stationary


def test_layers_come_first_when_staged():
    mdp = FiniteHorizonMDP.from_functions(
        STATES,
        ["wait"],
        lambda h, s, a: {"sun" if h % 2 else "rain": 1.0},
        lambda h, s, a: 10 * h + STATES.index(s),
        horizon=3,
        staged=True,
        initial={"sun": 0.5, "rain": 0.5},
    )
    assert not mdp.stationary and mdp.initial.tolist() == [0.5, 0.5]
    np.testing.assert_array_equal(mdp.to_dense().transition[:, 0, 0], [[0, 1], [1, 0], [0, 1]])
    np.testing.assert_array_equal(mdp.reward[:, :, 0], [[0, 1], [10, 11], [20, 21]])


def test_actions_that_depend_on_the_state():
    def allowed(n):
        return [m for m in ("up", "down") if 0 <= n + (1 if m == "up" else -1) < 3]

    mdp = DiscountedMDP.from_functions(
        range(3), allowed, lambda n, a: {n + (1 if a == "up" else -1): 1.0}, lambda n, a: n, discount=0.5
    )
    assert mdp.action_mask.tolist() == [[True, False], [True, True], [False, True]]
    assert mdp.discount == 0.5 and mdp.initial.tolist() == [1, 0, 0]
    np.testing.assert_array_equal(mdp.reward, [[0, 0], [1, 1], [0, 2]])


def test_pairs_and_repeated_labels():
    states = [1, "1"]
    mdp = FiniteHorizonMDP.from_functions(states, [0], lambda s, a: [(s, 1.0)], lambda s, a: 0, horizon=1)
    assert mdp.state_labels is None and mdp.action_labels == ("0",)


def build(states=STATES, actions=("wait",), transition=weather, reward=lambda s, a: 0, **settings):
    return FiniteHorizonMDP.from_functions(states, actions, transition, reward, **{"horizon": 2} | settings)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(states=[]), "states is empty"),
        (dict(actions=[]), "actions is empty"),
        (dict(states=["sun", "sun"]), "states repeats a state"),
        (
            dict(transition=lambda s, a: {"snow": 1.0}),
            "transition('sun', 'wait') leads to 'snow', which is not a state",
        ),
        (dict(transition=lambda s, a: {"sun": 0.5}), "transition[0, 0] sums to 0.5, not 1"),
        (dict(transition=lambda s, a: {}), "transition[0, 0] has no successor"),
        (dict(transition=lambda s, a: {"sun": 1.5, "rain": -0.5}), "transition[0, 0, 1] is negative (-0.5)"),
        (dict(reward=lambda s, a: float("nan")), "reward[0, 0] is nan, not finite"),
        (dict(initial="snow"), "initial names 'snow', which is not a state"),
        (dict(initial={"sun": 0.5}), "initial sums to 0.5, not 1"),
        (dict(actions=lambda s: ["wait"] if s == "sun" else []), "action_mask allows no action in state 1"),
        (dict(horizon=0), "horizon must be at least 1, not 0"),
        (
            dict(horizon=0, staged=True, transition=lambda h, s, a: {s: 1}, reward=lambda h, s, a: 0),
            "horizon must be at least 1",
        ),
    ],
)
def test_bad_functions_are_named(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build(**settings)
