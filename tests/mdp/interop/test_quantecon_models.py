from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from theoryrl.mdp import DiscountedMDP, FiniteHorizonMDP, from_quantecon, to_quantecon

quantecon = pytest.importorskip("quantecon")


@st.composite
def models(draw):
    """Small stationary models with forbidden actions, discounted or not, dense or sparse."""
    s, a = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    weights = rng.random((s, a, s)) * (rng.random((s, a, s)) < 0.6)
    weights[..., 0] += 0.1
    transition = weights / weights.sum(axis=-1, keepdims=True)
    mask = rng.random((s, a)) < 0.7
    mask[:, a - 1] |= ~mask.any(axis=1)
    mask[0, a - 1] = True  # the number of actions is the highest that occurs
    transition[~mask] = 0
    reward = rng.normal(size=(s, a))
    mdp = DiscountedMDP(transition, reward, discount=0.9, action_mask=mask)
    mdp = mdp.to_sparse() if draw(st.booleans()) else mdp
    return mdp if draw(st.booleans()) else mdp.with_horizon(4)


def values(mdp, horizon, beta):
    """Backward induction over H discounted stages, written out."""
    dense = mdp.to_dense()
    value = np.zeros((horizon + 1, mdp.n_states))
    for h in reversed(range(horizon)):
        q = dense.reward + beta * dense.transition @ value[h + 1]
        value[h] = np.where(mdp.action_mask, q, -np.inf).max(axis=1)
    return value


@given(models())
def test_there_and_back(mdp):
    horizon = getattr(mdp, "horizon", None)
    pairs = from_quantecon(to_quantecon(mdp, "sa-pair"), horizon)
    assert pairs == mdp
    assert from_quantecon(to_quantecon(mdp), horizon) == mdp.to_dense()
    assert from_quantecon(to_quantecon(mdp).to_sa_pair_form(sparse=False), horizon) == mdp.to_dense()
    assert from_quantecon(to_quantecon(mdp, "sa-pair").to_product_form(), horizon) == mdp.to_dense()


@pytest.mark.parametrize("form", ["product", "sa-pair"])
@given(mdp=models())
def test_quantecon_agrees(form, mdp):
    ddp = to_quantecon(mdp, form)
    if isinstance(mdp, FiniteHorizonMDP):
        value, _ = quantecon.markov.backward_induction(ddp, mdp.horizon)
        assert value == pytest.approx(values(mdp, mdp.horizon, 1.0), abs=1e-12)
        return
    result = ddp.solve(method="policy_iteration")
    assert result.v == pytest.approx(values(mdp, 400, mdp.discount)[0], abs=1e-9)
    finite = from_quantecon(ddp, horizon=6)
    want, _ = quantecon.markov.backward_induction(ddp, 6)
    value = np.zeros(mdp.n_states)
    for h in reversed(range(6)):
        q = finite.reward[h] + finite.to_dense().transition @ value
        value = np.where(finite.action_mask, q, -np.inf).max(axis=1)
    assert value == pytest.approx(want[0], abs=1e-12)
    assert finite.horizon == 6


def test_the_pairs_may_come_in_any_order():
    Q = sparse.csr_matrix([[0.5, 0.5], [0.0, 1.0], [1.0, 0.0]])
    ddp = quantecon.markov.DiscreteDP([3.0, 2.0, 1.0], Q, 0.5, [1, 0, 0], [1, 1, 0])
    mdp = from_quantecon(ddp)
    assert mdp.is_sparse
    assert mdp.action_mask.tolist() == [[True, True], [False, True]]
    assert mdp.reward.tolist() == [[1, 2], [0, 3]]
    assert mdp.to_dense().transition.tolist() == [[[1, 0], [0, 1]], [[0, 0], [0.5, 0.5]]]


def test_pairs_with_reward_minus_infinity_are_forbidden():
    for Q in (np.eye(2), sparse.eye_array(2, format="csr")):
        ddp = SimpleNamespace(R=[-np.inf, 1.0, 2.0], Q=Q[[0, 0, 1]], beta=0.5, s_indices=[0, 0, 1], a_indices=[0, 1, 0])
        assert from_quantecon(ddp).action_mask.tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize(
    ("change", "horizon", "message"),
    [
        ({"beta": 1.0}, None, "beta = 1 is no discount factor below 1; pass horizon="),
        ({"beta": 1.5}, 3, r"beta = 1.5 is not in \[0, 1\]"),
        ({"beta": np.nan}, 3, "beta = nan"),
        ({"R": [[np.inf]]}, None, r"reward\[0, 0\] is inf"),
        ({"R": [[np.nan]]}, None, r"reward\[0, 0\] is nan"),
        ({"R": [[-np.inf]]}, None, "allows no action in state 0"),
        ({"Q": [[[0.5]]]}, None, r"transition\[0, 0\] sums to 0.5"),
        ({"s_indices": [0], "a_indices": [0, 1], "Q": np.ones((1, 1)), "R": [0.0]}, None, "1 states, 2 actions"),
        ({}, 0, "horizon must be at least 1"),
    ],
)
def test_what_is_no_model(change, horizon, message):
    fields = {"R": [[0.0]], "Q": [[[1.0]]], "beta": 0.5, "s_indices": None, "a_indices": None} | change
    with pytest.raises(ValueError, match=message):
        from_quantecon(SimpleNamespace(**fields), horizon)


def test_what_quantecon_cannot_say():
    with pytest.raises(ValueError, match="has layers"):
        to_quantecon(FiniteHorizonMDP(np.ones((2, 1, 1, 1)), np.zeros((1, 1)), horizon=2))
    with pytest.raises(ValueError, match="'product' or 'sa-pair', not 'pairs'"):
        to_quantecon(DiscountedMDP(np.ones((1, 1, 1)), np.zeros((1, 1)), discount=0.5), form="pairs")
