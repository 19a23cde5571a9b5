"""Data sets: validation, counts against a naive loop, empirical models, files that were damaged."""

import io
import json
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theoryrl.mdp import Dataset, FiniteHorizonMDP, dataset, random_mdp, rollout, uniform_policy

GOOD = {
    "trajectory": [0, 0, 0, 4],
    "step": [0, 1, 2, 1],
    "state": [1, 2, 0, 0],
    "action": [0, 1, 0, 1],
    "reward": [0.5, -1.0, 2.0, 0.25],
    "next_state": [2, 0, 0, 2],
}
SIZES = {"n_states": 3, "n_actions": 2, "horizon": 3}


def good(**changes):
    return Dataset(**(GOOD | SIZES | changes))


def changed(name, row, value):
    return {name: [value if i == row else x for i, x in enumerate(GOOD[name])]}


def rolled(episodes=40, seed=0):
    mdp = random_mdp(4, 2, 3, seed)
    return rollout(mdp, uniform_policy(mdp), episodes, rng=seed)


@st.composite
def loose_rows(draw):
    """Any rows at all, each a trajectory of its own."""
    n_states, n_actions, horizon = draw(st.tuples(*[st.integers(1, 4)] * 3))
    n = draw(st.integers(0, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    columns = {
        "trajectory": np.arange(n),
        "step": rng.integers(0, horizon, n),
        "state": rng.integers(0, n_states, n),
        "action": rng.integers(0, n_actions, n),
        "reward": rng.normal(size=n),
        "next_state": rng.integers(0, n_states, n),
    }
    return Dataset(**columns, n_states=n_states, n_actions=n_actions, horizon=horizon)


# ---- construction


@pytest.mark.parametrize(
    "changes, message",
    [
        (changed("trajectory", 1, -1), r"trajectory\[1\] = -1 is negative"),
        (changed("step", 3, 3), r"step\[3\] = 3 is not in 0 to 2"),
        (changed("step", 0, -1), r"step\[0\] = -1 is not in 0 to 2"),
        (changed("state", 3, 3), r"state\[3\] = 3 is not in 0 to 2"),
        (changed("action", 2, 2), r"action\[2\] = 2 is not in 0 to 1"),
        (changed("action", 2, 0.5), r"action\[2\] = 0.5 is not an integer"),
        (changed("state", 2, float("nan")), r"state\[2\] = nan is not an integer"),
        (changed("reward", 1, float("nan")), r"reward\[1\] is nan, not finite"),
        (changed("reward", 1, float("inf")), r"reward\[1\] is inf, not finite"),
        (changed("next_state", 3, -2), r"next_state\[3\] = -2 is not in 0 to 2"),
        (changed("state", 2, 1), r"state\[2\] = 1, but the step before in trajectory 0 ended in next_state\[1\] = 0"),
        ({"reward": [1.0] * 3}, "reward has 3 rows, trajectory has 4"),
        ({"state": [[0]] * 4}, r"state has shape \(4, 1\); a column has one axis"),
        ({"action": ["left"] * 4}, "action must hold numbers"),
        ({"horizon": 0}, "horizon must be at least 1"),
        ({"n_states": 2.5}, "n_states must be an integer"),
    ],
)
def test_the_entry_at_fault_is_named(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        good(**changes)


def test_columns_are_typed_and_read_only():
    given_states = np.array(GOOD["state"], np.int32)
    data = good(state=given_states)
    given_states[:] = 9
    assert data.state.tolist() == GOOD["state"]
    for name, column in data.columns.items():
        assert column.dtype == (np.float64 if name == "reward" else np.int64)
        assert not column.flags.writeable
    assert len(data) == 4
    assert repr(data) == "Dataset(4 rows, n_states=3, n_actions=2, horizon=3)"


def test_trajectories_may_have_gaps():
    data = good(trajectory=[0, 0, 0, 0], step=[0, 2, 0, 2], state=[1, 1, 1, 1], next_state=[2, 2, 2, 2])
    assert data.step.tolist() == [0, 2, 0, 2]


def test_equality_is_of_every_entry():
    assert good() == good()
    for name, other in {"trajectory": 5, "step": 2, "state": 1, "action": 0, "reward": 0.0, "next_state": 1}.items():
        assert good() != good(**changed(name, 3, other))
    assert good() != good(n_states=4)
    assert good() != 3


def test_from_columns_and_to_frame_are_inverse():
    data = rolled()
    frame = data.to_frame()
    assert list(frame.columns) == list(GOOD)
    assert Dataset.from_columns(frame, n_states=4, n_actions=2, horizon=3) == data
    assert Dataset.from_columns(GOOD) == good()


def test_from_columns_fills_in_what_is_missing():
    columns = {name: GOOD[name] for name in ("state", "action", "reward", "next_state")}
    data = Dataset.from_columns(columns | {"remark": ["x"] * 4})
    assert data.trajectory.tolist() == [0, 1, 2, 3]
    assert data.step.tolist() == [0] * 4
    assert (data.n_states, data.n_actions, data.horizon) == (3, 2, 1)
    del columns["reward"]
    with pytest.raises(ValueError, match="there is no column 'reward'"):
        Dataset.from_columns(pd.DataFrame(columns))


def test_concatenated_trajectories_stay_apart():
    both = Dataset.concatenate([good(), good(), good(**{name: [] for name in GOOD}), good()])
    assert both.trajectory.tolist() == [0, 0, 0, 4, 5, 5, 5, 9, 10, 10, 10, 14]
    assert both.state.tolist() == GOOD["state"] * 3
    assert good(**both.columns) == both
    with pytest.raises(ValueError, match=r"datasets\[1\] has \(n_states, n_actions, horizon\) = \(4, 2, 3\)"):
        Dataset.concatenate([good(), good(n_states=4)])
    with pytest.raises(ValueError, match="no data set"):
        Dataset.concatenate([])


# ---- counts and empirical models


@given(loose_rows())
def test_counts_are_those_of_a_naive_loop(data):
    for staged in (False, True):
        lead = (data.horizon,) if staged else ()
        transitions = np.zeros((*lead, data.n_states, data.n_actions, data.n_states), int)
        sums = np.zeros((*lead, data.n_states, data.n_actions))
        for _, row in data.to_frame().iterrows():
            h, s, a, s_next = (int(row[name]) for name in ("step", "state", "action", "next_state"))
            index = (h, s, a) if staged else (s, a)
            transitions[(*index, s_next)] += 1
            sums[index] += row["reward"]
        counts = data.counts(staged)
        assert np.array_equal(counts.transitions, transitions)
        assert np.array_equal(counts.visits, transitions.sum(axis=-1))
        assert np.array_equal(counts.reward_sums, sums)


@pytest.mark.parametrize("unseen", ["uniform", "self-loop"])
@pytest.mark.parametrize("staged", [False, True])
@given(data=loose_rows())
def test_the_empirical_model_is_the_frequencies(data, unseen, staged):
    estimate = data.empirical_mdp(staged, unseen, initial=0)
    counts = data.counts(staged)
    assert estimate.horizon == data.horizon
    assert estimate.stationary is not staged
    for index in np.ndindex(counts.visits.shape):
        n = counts.visits[index]
        unknown = np.full(data.n_states, 1 / data.n_states) if unseen == "uniform" else np.eye(data.n_states)[index[-2]]
        assert np.array_equal(estimate.transition[index], counts.transitions[index] / n if n else unknown)
        assert estimate.reward[index] == (counts.reward_sums[index] / n if n else 0.0)


@pytest.mark.parametrize("unseen", ["uniform", "self-loop"])
@pytest.mark.parametrize("staged", [False, True])
def test_sparse_and_dense_estimates_agree(staged, unseen, monkeypatch):
    for data in (rolled(3), rolled(200)):
        dense = data.empirical_mdp(staged, unseen)
        with monkeypatch.context() as patch:
            patch.setattr(dataset, "DENSE_LIMIT", 0)
            sparse = data.empirical_mdp(staged, unseen)
        assert sparse.is_sparse and not dense.is_sparse
        assert np.array_equal(sparse.to_dense().transition, dense.transition)
        assert np.allclose(sparse.reward, dense.reward, rtol=1e-14, atol=0)
        assert np.array_equal(sparse.initial, dense.initial)


def test_an_unseen_pair_is_named(monkeypatch):
    for limit in (dataset.DENSE_LIMIT, 0):
        monkeypatch.setattr(dataset, "DENSE_LIMIT", limit)
        with pytest.raises(ValueError, match=r"^\(s, a\) = \(1, 1\) was never seen"):
            good().empirical_mdp()
        with pytest.raises(ValueError, match=r"^\(h, s, a\) = \(0, 0, 0\) was never seen"):
            good().empirical_mdp(staged=True)
    with pytest.raises(ValueError, match="unseen must be"):
        good().empirical_mdp(unseen="zero")


def test_forbidden_pairs_need_no_data():
    mask = np.array([[1, 1], [1, 0], [0, 1]], bool)
    estimate = good().empirical_mdp(action_mask=mask)
    assert np.array_equal(estimate.action_mask, mask)
    assert estimate.transition[0, 1].tolist() == [0, 0, 1]
    assert estimate.reward[2, 1] == -1.0
    with pytest.raises(ValueError, match=r"action_mask has shape \(2,\), not \(3, 2\)"):
        good().empirical_mdp(action_mask=[True, True])


def test_the_start_is_estimated_from_step_zero():
    data = good(trajectory=[0, 1, 2, 3], step=[0, 0, 0, 1])
    assert data.empirical_mdp(unseen="uniform").initial.tolist() == [1 / 3, 1 / 3, 1 / 3]
    late = good(trajectory=[0, 1, 2, 3], step=[1, 1, 2, 2])
    with pytest.raises(ValueError, match="no row is at step 0"):
        late.empirical_mdp(unseen="uniform")
    assert late.empirical_mdp(unseen="uniform", initial=2).initial.tolist() == [0, 0, 1]


def test_the_empirical_model_of_enough_data_is_the_model():
    mdp = FiniteHorizonMDP(np.eye(3)[[[1, 2], [2, 0], [0, 0]]], [[0.5, 1], [0, 0], [0.25, 0]], horizon=4)
    assert rollout(mdp, uniform_policy(mdp), 100).empirical_mdp() == mdp


# ---- files


@given(loose_rows())
def test_files_round_trip(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("data") / "data.npz"
    data.save(path)
    assert Dataset.load(path) == data
    assert [file.name for file in path.parent.iterdir()] == ["data.npz"]


def test_large_numbers_survive_the_narrow_columns_on_disk(tmp_path):
    data = good(trajectory=[0, 255, 256, 2**40], n_states=2**33, next_state=[2**32, 0, 0, 2**33 - 1])
    data.save(tmp_path / "data.npz")
    assert Dataset.load(tmp_path / "data.npz") == data


def test_truncated_files_are_refused(tmp_path):
    path = tmp_path / "data.npz"
    rolled().save(path)
    content = path.read_bytes()
    for length in [0, 1, 30, *range(100, len(content), 211), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"data\.npz: "):
            Dataset.load(path)


def test_a_damaged_byte_is_noticed_or_harmless(tmp_path):
    path = tmp_path / "data.npz"
    data = rolled(5)
    data.save(path)
    content = path.read_bytes()
    refused, harmless = 0, 0
    for place in range(0, len(content), 17):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        try:
            loaded = Dataset.load(path)
        except ValueError as error:
            refused += str(error).startswith(f"{path}: ") and "\n" not in str(error)
        else:
            assert loaded == data
            harmless += 1
    assert refused > 50
    assert refused + harmless == len(range(0, len(content), 17))


def archive(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def header(**changes):
    return np.frombuffer(json.dumps(dataset.FORMAT | SIZES | changes).encode(), np.uint8)


@pytest.mark.parametrize(
    "content",
    [
        b"state,action\n1,2\n",
        archive(state=np.arange(3)),
        archive(header=header(format="other"), **GOOD),
        archive(header=header(version=2), **GOOD),
        archive(header=header(n_states="many"), **GOOD),
        archive(header=header(n_states=2), **GOOD),
        archive(header=np.frombuffer(b"[1]", np.uint8), **GOOD),
        archive(header=np.frombuffer(b"{", np.uint8), **GOOD),
        archive(header=np.array(3.5), **GOOD),
        archive(header=header(), **{name: GOOD[name] for name in list(GOOD)[1:]}),
        archive(header=header(), **(GOOD | changed("reward", 0, float("nan")))),
        archive(header=header(), **(GOOD | {"action": np.array([None] * 4, object)})),
    ],
)
def test_foreign_files_are_refused(tmp_path, content):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"data\.npz: "):
        Dataset.load(path)


def test_the_header_of_the_cases_above_is_otherwise_right(tmp_path):
    path = tmp_path / "data.npz"
    path.write_bytes(archive(header=header(), **GOOD))
    assert Dataset.load(path) == good()
    assert zipfile.is_zipfile(path)


def test_other_failures_to_read(tmp_path):
    with pytest.raises(FileNotFoundError):
        Dataset.load(tmp_path / "none.npz")
    np.save(tmp_path / "array.npy", np.arange(3))
    with pytest.raises(ValueError, match="not a data set"):
        Dataset.load(tmp_path / "array.npy")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "data.npz"
    good().save(path)

    def full(file, **arrays):
        file.write(b"half")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(OSError, match="No space"):
            rolled().save(path)
    assert Dataset.load(path) == good()
    assert [file.name for file in tmp_path.iterdir()] == ["data.npz"]
