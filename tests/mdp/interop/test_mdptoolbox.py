import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from theoryrl.mdp import DiscountedMDP, FiniteHorizonMDP, from_mdptoolbox, to_mdptoolbox


@st.composite
def arrays(draw):
    """(P, R) with rewards of one of the three shapes."""
    s, a = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    weights = rng.random((a, s, s)) * (rng.random((a, s, s)) < 0.6)
    weights[..., 0] += 0.1
    shape = draw(st.sampled_from([(s,), (s, a), (a, s, s)]))
    return weights / weights.sum(axis=-1, keepdims=True), rng.normal(size=shape)


def mean_rewards(P, R):
    """r(s, a), written out."""
    n_actions, n_states, _ = P.shape
    reward = np.zeros((n_states, n_actions))
    for a in range(n_actions):
        for s in range(n_states):
            if R.ndim == 1:
                reward[s, a] = R[s]
            elif R.ndim == 2:
                reward[s, a] = R[s, a]
            else:
                reward[s, a] = sum(P[a, s, t] * R[a, s, t] for t in range(n_states))
    return reward


@given(arrays())
def test_arrays_mean_what_they_mean_there(given_arrays):
    P, R = given_arrays
    mdp = from_mdptoolbox(P, R, horizon=3)
    assert isinstance(mdp, FiniteHorizonMDP)
    assert np.array_equal(mdp.transition, P.transpose(1, 0, 2))
    assert mdp.reward == pytest.approx(mean_rewards(P, R), abs=1e-13)
    assert mdp.reward_law == ("outcome" if R.ndim == 3 else "deterministic")
    assert from_mdptoolbox(list(P), R, discount=0.5) == mdp.with_discount(0.5)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csr_array, sparse.coo_matrix])
@given(given_arrays=arrays())
def test_sparse_is_the_same_model(kind, given_arrays):
    P, R = given_arrays
    dense = from_mdptoolbox(P, R, horizon=3)
    matrices = [kind(part) for part in P]
    mdp = from_mdptoolbox(matrices, R, horizon=3)
    assert mdp.is_sparse
    assert np.array_equal(mdp.to_dense().transition, dense.transition)
    assert mdp.reward == pytest.approx(dense.reward, abs=1e-13)
    if R.ndim == 2:
        assert from_mdptoolbox(matrices, kind(R), horizon=3) == mdp
    if R.ndim == 3:
        assert from_mdptoolbox(matrices, [kind(part) for part in R], horizon=3) == mdp
        assert from_mdptoolbox(P, [kind(part) for part in R], horizon=3) == dense
        stored = P.transpose(1, 0, 2) > 0
        assert np.array_equal(mdp.outcome_reward, R.transpose(1, 0, 2)[stored])


@given(arrays(), st.booleans())
def test_there_and_back(given_arrays, in_rows):
    mdp = from_mdptoolbox(*given_arrays, horizon=3)
    mdp = mdp.to_sparse() if in_rows else mdp
    P, R = to_mdptoolbox(mdp)
    assert isinstance(P, list) == in_rows
    back = from_mdptoolbox(P, R, horizon=3)
    assert back == mdp or mdp.reward_law == "outcome"
    # Means of outcomes depend on the storage in the last bit; the rest is the same.
    assert {k: v.tobytes() for k, v in back._arrays().items() if v is not None and k != "reward"} == {
        k: v.tobytes() for k, v in mdp._arrays().items() if v is not None and k != "reward"
    }
    assert from_mdptoolbox(*to_mdptoolbox(mdp.with_discount(0.75)), discount=0.75) == back.with_discount(0.75)


@given(arrays(), st.booleans())
def test_the_toolbox_agrees(given_arrays, in_rows):
    toolbox = pytest.importorskip("mdptoolbox.mdp")
    mdp = from_mdptoolbox(*given_arrays, horizon=4)
    P, R = to_mdptoolbox(mdp.to_sparse() if in_rows else mdp)
    solver = toolbox.FiniteHorizon(P, R, 1, 4)
    solver.run()
    value = np.zeros((5, mdp.n_states))
    for h in reversed(range(4)):
        value[h] = (mdp.reward + mdp.transition @ value[h + 1]).max(axis=1)
    assert solver.V.T == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(
    ("P", "R", "criterion", "message"),
    [
        (np.ones((1, 1, 1)), np.zeros(1), {}, "either horizon= or discount="),
        (np.ones((1, 1, 1)), np.zeros(1), {"horizon": 2, "discount": 0.5}, "either horizon= or discount="),
        ([], np.zeros(1), {"horizon": 2}, "P is empty"),
        ([np.eye(2), np.eye(3)], np.zeros(2), {"horizon": 2}, r"P\[1\] has shape \(3, 3\), not \(2, 2\)"),
        ([np.ones((2, 3))], np.zeros(2), {"horizon": 2}, r"P\[0\] has shape \(2, 3\)"),
        ([["a"]], np.zeros(1), {"horizon": 2}, r"P\[0\] must hold numbers"),
        ([np.eye(2)], np.zeros(3), {"horizon": 2}, r"R has shape \(3,\), not \(2,\), \(2, 1\) or \(1, 2, 2\)"),
        ([np.eye(2)], [sparse.eye_array(3)], {"horizon": 2}, "R has 1 matrices of shapes"),
        ([np.eye(2) / 2], np.zeros(2), {"horizon": 2}, r"transition\[0, 0\] sums to 0.5, not 1"),
        ([np.eye(2)], [np.nan, 0], {"horizon": 2}, r"reward\[0, 0\] is nan"),
        ([np.eye(2)], np.zeros(2), {"discount": 1.0}, "discount must lie in"),
    ],
)
def test_what_is_no_model(P, R, criterion, message):
    with pytest.raises(ValueError, match=message):
        from_mdptoolbox(P, R, **criterion)


def test_what_the_toolbox_cannot_say():
    with pytest.raises(ValueError, match="has layers"):
        to_mdptoolbox(FiniteHorizonMDP(np.ones((2, 1, 1, 1)), np.zeros((1, 1)), horizon=2))
    masked = DiscountedMDP(np.ones((1, 2, 1)), np.zeros((1, 2)), discount=0.5, action_mask=[[True, False]])
    with pytest.raises(ValueError, match="action 1 is forbidden in state 0"):
        to_mdptoolbox(masked)
