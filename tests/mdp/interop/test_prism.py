import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theoryrl.mdp import DiscountedMDP, FiniteHorizonMDP, from_gymnasium, from_prism, to_prism
from theoryrl.mdp.files import load_any

# A robot on three cells, written out by hand in PRISM's format: two named choices in most cells.
ROBOT = {
    ".sta": "(x,y)\n0:(0,0)\n1:(0,1)\n2:(1,0)\n",
    ".tra": "3 5 7\n0 0 1 0.125 south\n0 0 2 0.875 south\n0 1 0 0.4 east\n0 1 1 0.6 east\n"
    "1 0 2 1 east\n1 1 1 1 stay\n2 0 2 1 stay\n",
    ".lab": '# Labels\n0="init" 1="deadlock" 2="goal"\n1: 0\n2: 1 2\n',
    ".srew": '# Reward structure "time"\n# State rewards\n3 2\n0 1\n1 0.5\n',
    ".trew": "# Transition rewards\n3 5 2\n0 0 2 3.5\n1 0 2 1/4\n",
}


def write(folder, files=ROBOT, **changes):
    for end, text in (files | {f".{end}": text for end, text in changes.items()}).items():
        if text is not None:
            (folder / f"robot{end}").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / "robot"


# ---- reading


def test_a_set_written_by_hand(tmp_path):
    mdp = from_prism(write(tmp_path), horizon=5)
    assert mdp.state_labels == ("(0,0)", "(0,1)", "(1,0)")
    assert mdp.action_labels == ("south", "east", "stay")
    assert mdp.action_mask.tolist() == [[True, True, False], [False, True, True], [False, False, True]]
    assert mdp.transition[0, 0].tolist() == [0, 0.125, 0.875]
    assert mdp.transition[1, 1].tolist() == [0, 0, 1]
    assert mdp.outcome_reward[0, 0].tolist() == [0, 1, 4.5]
    assert mdp.outcome_reward[1, 1].tolist() == [0, 0, 0.75]
    assert mdp.outcome_reward[1, 2].tolist() == [0, 0.5, 0]
    assert mdp.initial.tolist() == [0, 1, 0]
    assert (mdp.horizon, mdp.name) == (5, "robot")
    assert from_prism(tmp_path / "robot.tra", horizon=5) == mdp
    assert load_any(tmp_path / "robot.tra", horizon=5) == mdp
    assert from_prism(tmp_path / "robot", discount=0.5) == mdp.with_discount(0.5)
    assert from_prism(tmp_path / "robot", horizon=5, initial=0) == mdp.with_initial(0)


def test_actions_in_a_given_order(tmp_path):
    mdp = from_prism(write(tmp_path), horizon=5, actions=["stay", "south", "east"])
    assert mdp.action_labels == ("stay", "south", "east")
    assert mdp.action_mask[0].tolist() == [False, True, True]
    with pytest.raises(ValueError, match="does not have the action 'south'"):
        from_prism(tmp_path / "robot", horizon=5, actions=["stay", "east"])


def test_choices_without_names_are_numbered(tmp_path):
    """PRISM allows choices without names, and one name on several choices of a state."""
    for changed in (ROBOT[".tra"].replace(" stay", ""), ROBOT[".tra"].replace("east", "south")):
        mdp = from_prism(write(tmp_path, tra=changed), horizon=5)
        assert mdp.action_labels is None
        assert mdp.action_mask.tolist() == [[True, True], [True, True], [True, False]]
        assert mdp.transition[1].tolist() == [[0, 0, 1], [0, 1, 0]]
        with pytest.raises(ValueError, match="actions= needs a name on every choice"):
            from_prism(tmp_path / "robot", horizon=5, actions=["south"])


def test_optional_files(tmp_path):
    mdp = from_prism(write(tmp_path, sta=None, lab=None, trew=None), horizon=5)
    assert mdp.state_labels is None
    assert mdp.initial.tolist() == [1, 0, 0]
    assert mdp.reward_law == "deterministic"
    assert mdp.reward.tolist() == [[1, 1, 0], [0, 0.5, 0.5], [0, 0, 0]]


@pytest.mark.parametrize(("old", "new"), [(".srew", ".rews"), (".srew", ".rew")])
def test_other_names_of_reward_files(tmp_path, old, new):
    want = from_prism(write(tmp_path, trew=None), horizon=5)
    (tmp_path / f"robot{old}").rename(tmp_path / f"robot{new}")
    assert from_prism(tmp_path / "robot", horizon=5) == want


def test_transition_rewards_in_a_rew_file(tmp_path):
    want = from_prism(write(tmp_path, srew=None), horizon=5)
    (tmp_path / "robot.trew").rename(tmp_path / "robot.rew")
    assert from_prism(tmp_path / "robot", horizon=5) == want


def test_numbered_reward_structures(tmp_path):
    write(tmp_path, trew=None)
    (tmp_path / "robot.srew").rename(tmp_path / "robot2.srew")
    with pytest.raises(ValueError, match=r"no rewards .*rewards= says where"):
        from_prism(tmp_path / "robot", horizon=5)
    assert from_prism(tmp_path / "robot", horizon=5, rewards=tmp_path / "robot2").reward[0, 0] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tra": "3 5\n"}, "robot.tra:1: two numbers"),
        ({"tra": ""}, "robot.tra: empty"),
        ({"tra": "3 x 7\n"}, "robot.tra:1: the first line must be"),
        ({"tra": "0 0 0\n"}, "robot.tra:1: 0 states"),
        ({"tra": "999999999999 5 7\n0 0 0 1\n"}, "every state needs one"),
        ({"tra": ROBOT[".tra"].replace("1 0 2 1 east", "1 0 3 1 east")}, "robot.tra:6: state '3' is not in 0 to 2"),
        ({"tra": ROBOT[".tra"].replace("1 0 2 1 east", "1 0 2 one east")}, "robot.tra:6: the probability 'one'"),
        ({"tra": ROBOT[".tra"].replace("1 0 2 1 east", "1 0 2 nan east")}, "robot.tra:6: the probability is nan"),
        ({"tra": ROBOT[".tra"].replace("1 0 2 1 east", "1 0 2 1/0 east")}, "robot.tra:6: the probability '1/0'"),
        ({"tra": ROBOT[".tra"].replace("1 0 2 1 east", "1 0 2 -1 east")}, r"robot.tra:6: .* not in \[0, 1\]"),
        ({"tra": ROBOT[".tra"].replace("1 0 2 1 east", "1 0 2")}, "robot.tra:6: .* has 3 words"),
        ({"tra": ROBOT[".tra"].replace("0 1 1 0.6 east", "0 1 1 0.6 west")}, "robot.tra:5: .* two names"),
        ({"tra": ROBOT[".tra"].replace("0 1 1 0.6", "0 1 0 0.6")}, "robot.tra:5: the transition 0 1 0 appears twice"),
        ({"tra": ROBOT[".tra"].replace("0 1 1 0.6", "0 1 1 0.5")}, r"robot.tra: transition\[0, 1\] sums to 0.9, not 1"),
        ({"tra": ROBOT[".tra"].replace("1 1 1 1", "1 2 1 1")}, "state 1 has choice 2, but only 2 choices"),
        ({"tra": ROBOT[".tra"].replace("3 5 7", "4 5 7")}, "state 3 has no choice"),
        ({"tra": ROBOT[".tra"].replace("3 5 7", "3 5 8")}, "promises 8 transitions, the file has 7"),
        ({"tra": ROBOT[".tra"].replace("3 5 7", "3 6 7")}, "promises 6 choices, the file has 5"),
        ({"tra": b"\xff\xfe\n"}, "robot.tra: not a text file"),
        ({"srew": "4 0\n"}, "robot.srew:1: 4 states, but .*robot.tra has 3"),
        ({"srew": "3 1\n0 inf\n"}, "robot.srew:2: the reward is inf"),
        ({"srew": "3 1\n0\n"}, "robot.srew:2: .* 1 words"),
        ({"srew": "3 2\n0 1\n0 1\n"}, "robot.srew:3: .* appears twice"),
        ({"srew": "3 2\n0 1\n"}, "promises 2 rewards, the file has 1"),
        ({"trew": "3 4 0\n"}, "robot.trew:1: 3 states and 4 choices, but"),
        ({"trew": "3 5 1\n0 0 0 1\n"}, "robot.trew:2: .* has no transition 0 0 0"),
        ({"trew": "3 5 2\n0 0 1 1\n0 0 1 1\n"}, "robot.trew:3: .* appears twice"),
        ({"trew": "3 5 1\n0 0 1\n"}, "robot.trew:2: .* 3 words"),
        ({"lab": '0="deadlock"\n0: 0\n'}, "robot.lab:1: .*not declared"),
        ({"lab": '0="init"\n'}, "robot.lab: 0 states are labelled init"),
        ({"lab": '0="init"\n0: 0\n2: 0\n'}, "robot.lab: 2 states are labelled init; initial="),
        ({"lab": '0="init"\n0: 7\n'}, "robot.lab:2: label '7'"),
        ({"lab": '0="init"\n0 0\n'}, "robot.lab:2: a line of labels"),
        ({"sta": "x\n"}, "robot.sta:1: the first line must be"),
        ({"sta": "(x)\n0:(0)\n2:(1)\n1:(2)\n"}, "robot.sta:3: state 2 where state 1 was due"),
        ({"sta": "(x)\n0:(0)\n1:1\n"}, "robot.sta:3: a state is"),
        ({"sta": "(x)\n0:(0)\n1:(1)\n2:(1)\n"}, "repeats the label"),
    ],
)
def test_one_line_says_where(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        from_prism(write(tmp_path, **changes), horizon=5)
    assert "\n" not in str(caught.value)


def test_every_truncation_is_refused(tmp_path):
    whole = from_prism(write(tmp_path), horizon=5)
    # Label files do not say how many lines they have; what comes after the start is no part of the model.
    harmless = {(".lab", ROBOT[".lab"].index("2: 1 2"))}
    for end, text in ROBOT.items():
        for length in range(len(text)):
            write(tmp_path, ROBOT | {end: text[:length]})
            if (end, length) in harmless:
                assert from_prism(tmp_path / "robot", horizon=5) == whole
                continue
            with pytest.raises(ValueError, match=f"robot{end}") as caught:
                from_prism(tmp_path / "robot", horizon=5)
            assert "\n" not in str(caught.value)


def test_the_criterion_and_the_file_are_needed(tmp_path):
    for criterion in ({}, {"horizon": 3, "discount": 0.5}):
        with pytest.raises(ValueError, match="either horizon= or discount="):
            from_prism(write(tmp_path), **criterion)
    with pytest.raises(FileNotFoundError):
        from_prism(tmp_path / "absent", horizon=3)


# ---- writing


@st.composite
def models(draw):
    """Small stationary models with one start, as PRISM can hold them."""
    s, a = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    weights = rng.random((s, a, s)) * (rng.random((s, a, s)) < 0.7)
    weights[..., 0] += 0.1
    transition = weights / weights.sum(axis=-1, keepdims=True)
    mask = rng.random((s, a)) < 0.7 if draw(st.booleans()) else np.ones((s, a), bool)
    mask[:, 0] |= ~mask.any(axis=1)
    mask[0] |= ~mask.any(axis=0)  # an action that no state allows is nothing that PRISM knows of
    transition[~mask] = 0
    if draw(st.booleans()):
        reward = {"outcome_reward": rng.normal(size=transition.shape) * (transition > 0)}
        depends = np.ptp(np.where(transition > 0, reward["outcome_reward"], np.nan), axis=-1)
        if not (transition > 0).sum(axis=-1).max() > 1 or not np.isfinite(depends).any():
            reward = {"reward": reward["outcome_reward"].sum(axis=-1)}
    else:
        reward = {"reward": rng.normal(size=(s, a)) * mask}
    labels = draw(st.sampled_from([None, "({},{})", "room {}", "({}", "(label{})", "{},{}"]))
    mdp = FiniteHorizonMDP(
        transition,
        **reward,
        horizon=3,
        initial=draw(st.integers(0, s - 1)),
        action_mask=mask,
        state_labels=labels and [labels.format(i, i + 1) for i in range(s)],
        action_labels=[f"go{i}" for i in range(a)] if draw(st.booleans()) else None,
    )
    return mdp.with_discount(0.9) if draw(st.booleans()) else mdp


@given(mdp=models())
def test_there_and_back(tmp_path_factory, mdp):
    prefix = tmp_path_factory.mktemp("prism") / "model"
    to_prism(mdp, prefix)
    criterion = {"horizon": 3} if isinstance(mdp, FiniteHorizonMDP) else {"discount": 0.9}
    back = from_prism(prefix, **criterion, actions=mdp.action_labels)
    depends = mdp.reward_law == "outcome"
    assert back.reward_law in ("deterministic", "outcome")
    if depends and back.reward_law == "deterministic":
        # Rewards that happen not to depend on the successor are read as such.
        shown = np.where(mdp.transition > 0, mdp.outcome_reward, back.reward[..., None])
        assert np.array_equal(shown, np.broadcast_to(back.reward[..., None], shown.shape))
    else:
        assert back == mdp
    to_prism(mdp.to_sparse(), prefix.with_name("sparse"))
    for end in (".tra", ".trew", ".srew", ".lab"):
        assert (prefix.parent / f"model{end}").read_text() == (prefix.parent / f"sparse{end}").read_text()


def test_frozen_lake_there_and_back(tmp_path):
    for name in ("FrozenLake-v1", "FrozenLake8x8-v1"):
        mdp = from_gymnasium(name)
        to_prism(mdp, tmp_path / "lake")
        assert from_prism(tmp_path / "lake", horizon=mdp.horizon) == mdp


def test_a_second_set_replaces_the_first(tmp_path):
    to_prism(from_gymnasium("FrozenLake-v1"), tmp_path / "m")
    plain = FiniteHorizonMDP(np.ones((1, 1, 1)), [[2.0]], horizon=1)
    to_prism(plain, tmp_path / "m")
    assert from_prism(tmp_path / "m", horizon=1) == plain
    assert sorted(os.listdir(tmp_path)) == ["m.lab", "m.srew", "m.tra", "m.trew"]


def test_what_prism_cannot_say(tmp_path):
    one = np.ones((1, 1, 1))
    half = np.full((2, 1, 2), 0.5)
    for mdp, message in [
        (
            FiniteHorizonMDP(half, np.zeros((2, 1)), horizon=1, initial=[0.5, 0.5]),
            r"at random in 2: use mdp.with_initial",
        ),
        (FiniteHorizonMDP(one[None], [[0.0]], horizon=1), "has layers"),
        (DiscountedMDP(one, [[0.0]], discount=0.5, action_labels=["go on"]), "action label 'go on'"),
        (DiscountedMDP(one, [[0.0]], discount=0.5, action_labels=["_0"]), "action label '_0'"),
        (DiscountedMDP(one, [[0.0]], discount=0.5, state_labels=["a\nb"]), "state label"),
        (DiscountedMDP(one, [[0.0]], discount=0.5, state_labels=[" a"]), "state label"),
    ]:
        with pytest.raises(ValueError, match=message):
            to_prism(mdp, tmp_path / "m")
    assert not os.listdir(tmp_path)
