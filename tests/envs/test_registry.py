"""Families by name: smallest sizes, parameters out of range, text in, descriptions out."""

import inspect
import re

import numpy as np
import pytest

from theoryrl import FiniteHorizonMDP, envs, reachability
from theoryrl.envs.registry import FAMILIES

SMALLEST = {
    "chain": dict(n_states=2),
    "strens_chain": dict(n_states=2),
    "riverswim": dict(n_states=2),
    "combination_lock": dict(length=1, n_actions=1),
    "deep_sea": {},
    "binary_tree": dict(depth=1),
    "jao_two_state": dict(n_actions=1),
    "jao_copies": dict(n_states=2, n_actions=1),
    "hard_episodic": dict(n_states=4, horizon=3),
    "garnet": dict(n_states=1, n_actions=1, branching=1),
    "random_dense": dict(n_states=1, n_actions=1),
    "linear_mdp": dict(n_states=1, n_actions=1, dimension=1),
    "from_text_map": dict(layout="S"),
    "four_rooms": {},
    "windy": {},
    "cliff": dict(width=3, height=2),
    "block_mdp": dict(n_observations=1),
    "exogenous": dict(n_noise=1),
    "inventory": dict(capacity=1, demand=(1.0,)),
    "machine_replacement": dict(n_states=2),
    "queue_admission": dict(capacity=1),
}


@pytest.mark.parametrize("name", envs.names())
def test_smallest_sizes(name):
    params = {"horizon": 1} | SMALLEST[name]
    mdp = envs.make(name, **params)
    assert isinstance(mdp, FiniteHorizonMDP)
    assert mdp.horizon == params["horizon"]
    smaller = {key: value - 1 for key, value in params.items() if isinstance(value, int)}
    assert "horizon" in smaller
    for key, value in smaller.items():
        with pytest.raises(ValueError, match=f"^{key} must be at least {params[key]}.*, not {value}$"):
            envs.make(name, **params | {key: value})


@pytest.mark.parametrize("name", envs.names())
def test_defaults_are_repeatable_and_named(name):
    mdp = envs.make(name)
    assert mdp == envs.make(name)
    assert mdp.name.startswith(f"{name}(")
    assert repr(mdp).startswith(f"FiniteHorizonMDP('{name}(")
    assert np.isfinite(mdp.reward).all()


@pytest.mark.parametrize("name", [n for n in envs.names() if "rng" in inspect.signature(getattr(envs, n)).parameters])
def test_seeds_matter(name):
    make = getattr(envs, name)
    assert envs.make(name, rng=1) == envs.make(name, rng=1)
    assert envs.make(name, rng=1) != envs.make(name, rng=2)
    generator = make(rng=np.random.default_rng(0))
    assert "rng=Generator" in (generator if isinstance(generator, FiniteHorizonMDP) else generator.mdp).name


@pytest.mark.parametrize("name", ["deep_sea", "binary_tree", "combination_lock", "hard_episodic", "queue_admission"])
def test_every_state_can_be_reached(name):
    reached = reachability(envs.make(name, horizon=12)).max(axis=0)
    if name in ("queue_admission", "deep_sea"):
        assert (reached > 0).all()
    else:
        assert (reached > 0.2).all()


def test_names_are_functions_of_the_package():
    for name in envs.names():
        assert callable(getattr(envs, name))
        assert name in envs.__all__
    assert set(FAMILIES) == set(SMALLEST)


def test_make_and_parse_agree():
    mdp = envs.parse("riverswim", ["n_states=8", "horizon=20"])
    assert mdp == envs.make("riverswim", n_states=8, horizon=20) == envs.riverswim(n_states=8, horizon=20)
    assert mdp.name == "riverswim(n_states=8, horizon=20)"
    assert envs.parse("chain", ["slip=0.25"]) == envs.chain(slip=0.25)
    assert envs.parse("chain", ["slip=0"]) == envs.chain(slip=0)
    assert envs.parse("windy", ["king=True", "horizon=3"]) == envs.windy(king=True, horizon=3)
    assert envs.parse("garnet", ["sparse=false"]) == envs.garnet()
    assert envs.parse("from_text_map", ["layout=S./.G"]) == envs.from_text_map("S.\n.G")
    assert envs.parse("hard_episodic", ["waiting=2"]) == envs.hard_episodic(waiting=2)
    assert envs.parse("inventory", ["demand=0.5,0.5"]) == envs.inventory(demand=(0.5, 0.5))
    assert envs.parse("exogenous", ["base=chain", "horizon=4"]) == envs.exogenous("chain", horizon=4).mdp
    assert envs.parse("linear_mdp", []) == envs.linear_mdp().mdp


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("rivrswim", [], "there is no environment 'rivrswim'; did you mean 'riverswim'?"),
        ("zzz", [], "there is no environment 'zzz'; there are chain, strens_chain, riverswim"),
        ("riverswim", ["n_state=3"], "riverswim has no parameter 'n_state'; did you mean 'n_states'?"),
        ("riverswim", ["zzz=3"], "riverswim has no parameter 'zzz'; there are n_states, horizon"),
        ("riverswim", ["horizon"], "'horizon' is not of the form parameter=value"),
        ("riverswim", ["horizon=2", "horizon=3"], "riverswim: horizon is given twice"),
        ("riverswim", ["horizon=2.5"], "horizon must be an integer, not '2.5'"),
        ("chain", ["slip=x"], "slip must be a number, not 'x'"),
        ("chain", ["slip=nan"], "slip must be in [0, 1], not nan"),
        ("windy", ["king=maybe"], "king must be true or false, not 'maybe'"),
        ("inventory", ["demand=a,b"], "demand must be numbers separated by commas, not 'a,b'"),
        ("hard_episodic", ["waiting=x"], "waiting must be an integer, not 'x'"),
    ],
)
def test_parse_says_what_is_wrong(name, text, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        envs.parse(name, text)


def test_make_says_what_is_wrong():
    with pytest.raises(ValueError, match="did you mean 'four_rooms'"):
        envs.make("four_room")
    with pytest.raises(ValueError, match="has no parameter 'n_sates'; did you mean 'n_states'"):
        envs.make("garnet", n_sates=3)


@pytest.mark.parametrize(
    "name, params, message",
    [
        ("chain", dict(slip=1.5), "slip must be in [0, 1], not 1.5"),
        ("chain", dict(slip="much"), "slip must be a number, not 'much'"),
        ("chain", dict(n_states=2.5), "n_states must be an integer at least 2, not 2.5"),
        ("deep_sea", dict(cost=-1), "cost must be at least 0, not -1"),
        ("deep_sea", dict(cost=float("inf")), "cost must be at least 0, not inf"),
        ("binary_tree", dict(slip=0.6), "slip must be in [0, 0.5], not 0.6"),
        ("jao_two_state", dict(delta=0.0), "delta must be positive"),
        ("jao_two_state", dict(delta=0.7, epsilon=0.5), "delta + epsilon = 1.2 is no probability"),
        ("jao_two_state", dict(special=2), "special = 2 is out of range: there are 2 actions"),
        ("jao_copies", dict(n_states=5), "n_states must be even, not 5"),
        ("jao_copies", dict(special=8), "special = 8 is out of range: there are 8 choices of better actions"),
        ("hard_episodic", dict(n_states=7), "n_states must be 3 + the size of a full 2-ary tree (6, 10), not 7"),
        ("hard_episodic", dict(n_actions=1), "n_actions must be at least 2, not 1"),
        ("hard_episodic", dict(horizon=3), "horizon must be at least 4 for a tree of 2 levels, not 3"),
        ("hard_episodic", dict(waiting=7), "waiting must be at most horizon - 3 = 6, not 7"),
        ("hard_episodic", dict(wait=3), "wait = 3 is out of range: there are 3 waits"),
        ("hard_episodic", dict(leaf=2), "leaf = 2 is out of range: there are 2 leaves"),
        ("hard_episodic", dict(action=2), "action = 2 is out of range: there are 2 actions"),
        ("hard_episodic", dict(epsilon=0.6), "epsilon must be in [0, 0.5], not 0.6"),
        ("garnet", dict(branching=21), "branching = 21 exceeds the number of states, 20"),
        ("random_dense", dict(concentration=0.0), "concentration must be positive and finite, not 0.0"),
        ("random_dense", dict(rng=-1), "rng must be a non-negative int"),
        ("inventory", dict(demand=(0.5, 0.4)), "demand sums to 0.9, not 1"),
        ("inventory", dict(demand=()), "demand must be a list of probabilities"),
        ("inventory", dict(price=-1.0), "price must be at least 0, not -1"),
        ("machine_replacement", dict(wear=2), "wear must be in [0, 1], not 2"),
        ("queue_admission", dict(arrival=-0.1), "arrival must be in [0, 1], not -0.1"),
    ],
)
def test_out_of_range(name, params, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        envs.make(name, **params)
    assert "\n" not in str(caught.value)


def test_describe_tells_everything():
    families = {family["name"]: family for family in envs.describe()}
    assert list(families) == envs.names()
    for name, family in families.items():
        assert family["summary"].endswith(".") and family["source"], name
        assert family["parameters"] == {
            key: parameter.default for key, parameter in inspect.signature(getattr(envs, name)).parameters.items()
        }
        assert "horizon" in family["parameters"]
        assert "----" not in family["source"] + family["constants"]
    assert families["deep_sea"]["constants"].startswith("the optimal value is max(0, 1 - cost)")
    assert families["riverswim"]["source"].startswith("Strehl and Littman (2008)")
    without = {name for name, family in families.items() if not family["constants"]}
    assert without == {"garnet", "random_dense"}
