"""The models: what they refuse (and how they say so), what they adopt, copy and share, and when two are equal."""

import dataclasses
import re

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from theoryrl import DiscountedMDP, FiniteHorizonMDP, SparseTransition
from theoryrl.testing import discounted_mdps, mdps, rewards

S, A, H = 3, 2, 4


def kernel(*lead):
    return np.full((*lead, S, A, S), 1 / 3)


def changed(array, index, value):
    array = np.array(array, float)
    array[index] = value
    return array


def model(transition=None, reward=None, **settings):
    transition = kernel() if transition is None else transition
    if reward is None and "outcome_reward" not in settings:
        reward = np.zeros((S, A))
    return FiniteHorizonMDP(transition, reward, **{"horizon": H} | settings)


# ---- what is refused


BAD = [
    (dict(transition=changed(kernel(), (2, 1, 0), np.nan)), "transition[2, 1, 0] is nan, not finite"),
    (dict(transition=changed(kernel(), (2, 1, 0), np.inf)), "transition[2, 1, 0] is inf, not finite"),
    (dict(transition=changed(kernel(), (0, 1, 2), -0.1)), "transition[0, 1, 2] is negative (-0.1)"),
    (dict(transition=changed(kernel(), (2, 1), [0.5, 0.3, 0.18])), "transition[2, 1] sums to 0.98, not 1"),
    (dict(transition=changed(kernel(H), (2, 1, 0), [0.5, 0.3, 0.18])), "transition[2, 1, 0] sums to 0.98, not 1"),
    (dict(transition=changed(kernel(), (1, 0), [0.5, 0.5, 2e-9])), "transition[1, 0] sums to 1.000000002, not 1"),
    (dict(transition=np.ones((S, S))), "transition has shape (3, 3), not (S, A, S) or (H, S, A, S)"),
    (dict(transition=np.ones((S, A, S + 1))), "transition has shape (3, 2, 4), not (S, A, S) or (H, S, A, S)"),
    (dict(transition=np.ones((0, A, 0))), "states, actions and layers cannot be empty"),
    (dict(transition=np.ones((S, 0, S))), "states, actions and layers cannot be empty"),
    (dict(transition=kernel(H - 1)), "transition has 3 layers, but the horizon is 4"),
    (dict(transition=[[1.0], [2.0, 3.0]]), "transition is not a rectangular array"),
    (dict(transition=kernel().astype(complex)), "transition must hold numbers, not complex128"),
    (dict(transition=np.full((S, A, S), "x")), "transition must hold numbers, not <U1"),
    (dict(transition=scipy.sparse.csr_array(np.ones((5, 2)))), "has S * A rows and S columns; 5 x 2 is not that"),
    (dict(transition=[]), "transition has shape (0,)"),
    (dict(reward=changed(np.zeros((S, A)), (1, 1), np.nan)), "reward[1, 1] is nan, not finite"),
    (dict(reward=changed(np.zeros((H, S, A)), (3, 1, 0), -np.inf)), "reward[3, 1, 0] is -inf, not finite"),
    (dict(reward=np.zeros((A, S))), "reward has shape (2, 3), not (3, 2) or (4, 3, 2)"),
    (dict(reward=np.zeros((H + 1, S, A))), "reward has 5 layers, but the horizon is 4"),
    (dict(reward=0.5), "reward has shape (), not (3, 2) or (4, 3, 2)"),
    (dict(reward=np.zeros((S, A)), outcome_reward=kernel()), "give either reward (means) or outcome_reward"),
    (dict(outcome_reward=None), "give either reward (means) or outcome_reward"),
    (dict(outcome_reward=np.zeros((S, A))), "outcome_reward has shape (3, 2), not (3, 2, 3) as transition"),
    (dict(outcome_reward=changed(kernel(), (0, 1, 1), np.nan)), "outcome_reward[0, 1, 1] is nan, not finite"),
    (dict(outcome_reward=kernel(), reward_law="uniform"), "reward_law='uniform' contradicts it"),
    (dict(reward_law="gauss"), "reward_law must be 'deterministic', 'bernoulli' or 'uniform', not 'gauss'"),
    (dict(reward_law="outcome"), "reward_law must be 'deterministic', 'bernoulli' or 'uniform', not 'outcome'"),
    (
        dict(reward=changed(np.zeros((S, A)), (2, 0), 1.5), reward_law="bernoulli"),
        "reward[2, 0] = 1.5 is no Bernoulli mean",
    ),
    (dict(reward_law="uniform"), "reward_noise (a half-width) goes with reward_law='uniform'"),
    (dict(reward_noise=0.1), "reward_noise (a half-width) goes with reward_law='uniform'"),
    (dict(reward_law="uniform", reward_noise=changed(np.zeros((S, A)), (1, 0), -1)), "reward_noise[1, 0] is negative"),
    (dict(reward_law="uniform", reward_noise=np.nan), "reward_noise[0, 0] is nan, not finite"),
    (dict(reward_range=(0.5, 1)), "rewards reach from 0.0 to 0.0, outside reward_range (0.5, 1.0)"),
    (dict(reward_range=(1, 0)), "reward_range must be finite with low <= high"),
    (dict(reward_range=(0, np.nan)), "reward_range must be finite with low <= high"),
    (dict(reward_range=3), "reward_range must be (low, high), not 3"),
    (dict(initial=3), "initial = 3 is not a state (0 to 2)"),
    (dict(initial=-1), "initial must be at least 0, not -1"),
    (dict(initial=1.0), "initial must be an integer at least 0, not 1.0"),
    (dict(initial=[0.5, 0.5]), "initial has shape (2,), not (3,)"),
    (dict(initial=[0.5, 0.4, 0.0]), "initial sums to 0.9, not 1"),
    (dict(initial=[1.5, -0.5, 0.0]), "initial[1] is negative (-0.5)"),
    (dict(initial=[np.nan, 1, 0]), "initial[0] is nan, not finite"),
    (dict(horizon=0), "horizon must be at least 1, not 0"),
    (dict(horizon=2.0), "horizon must be an integer at least 1, not 2.0"),
    (dict(horizon=True), "horizon must be an integer at least 1, not True"),
    (dict(state_labels=["a", "b"]), "state_labels has 2 labels for 3 entries"),
    (dict(action_labels=["a", "a"]), "action_labels repeats the label 'a'"),
    (dict(action_mask=np.ones((S, A))), "action_mask must be boolean, not float64"),
    (dict(action_mask=np.ones((A, S), bool)), "action_mask has shape (2, 3), not (3, 2)"),
    (
        dict(action_mask=np.array([[True, True], [False, False], [True, False]])),
        "action_mask allows no action in state 1",
    ),
]


@pytest.mark.parametrize("settings, message", BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named_in_one_line(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        model(**settings)
    assert "\n" not in str(caught.value)


def sparse(transition):
    return SparseTransition.from_dense(np.asarray(transition))


@pytest.mark.parametrize(
    "transition, message",
    [
        (changed(kernel(), (2, 1, 0), np.nan), "transition[2, 1, 0] is nan, not finite"),
        (changed(kernel(), (2, 1, 0), np.inf), "transition[2, 1, 0] is inf, not finite"),
        (changed(kernel(), (0, 1, 2), -0.1), "transition[0, 1, 2] is negative (-0.1)"),
        (changed(kernel(), (0, 1), [-1, 1, 1]), "transition[0, 1, 0] is negative (-1.0)"),
        (changed(kernel(H), (2, 1, 0), [0.5, 0.3, 0.18]), "transition[2, 1, 0] sums to 0.98, not 1"),
        (changed(kernel(), (1, 1), 0), "transition[1, 1] has no successor"),
        (kernel(H + 1), "transition has 5 layers, but the horizon is 4"),
    ],
)
def test_bad_sparse_rows_are_named(transition, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        model(sparse(transition))


def test_rows_are_accepted_up_to_rounding():
    for weight in (1e-10, -1e-10):
        row = changed(kernel(), (1, 0), [0.5, 0.25, 0.25 + weight])
        assert model(row).transition[1, 0, 2] == 0.25 + weight
        assert model(sparse(row)).transition.data.sum() != S * A


def test_forbidden_pairs_may_hold_anything():
    mask = np.array([[True, False], [True, True], [True, True]])
    nonsense = changed(kernel(), (0, 1), [np.nan, -3, np.inf])
    mdp = model(nonsense, changed(np.zeros((S, A)), (0, 1), np.nan), action_mask=mask)
    assert mdp.reward[0, 1] == 0 and mdp.reward_range == (0, 1)
    assert mdp == model(nonsense, action_mask=mask) and hash(mdp) == hash(model(nonsense, action_mask=mask))
    assert model(sparse(changed(kernel(), (0, 1), 0)), action_mask=mask).transition.row_sums()[1] == 0
    high = model(reward=np.full((S, A), 5.0), action_mask=mask)
    assert high.reward_range == (5, 5), "the zero of a forbidden pair is no reward"


def test_a_discounted_model_is_stationary():
    for settings, message in [
        (
            dict(transition=kernel(H), reward=np.zeros((S, A))),
            "transition has a layer axis; a DiscountedMDP is stationary",
        ),
        (dict(transition=kernel(), reward=np.zeros((H, S, A))), "reward has a layer axis"),
    ]:
        with pytest.raises(ValueError, match=message):
            DiscountedMDP(**settings, discount=0.5)
    for discount in (1, -0.1, np.nan, True, "0.5", None):
        with pytest.raises(ValueError, match=r"discount must lie in \[0, 1\)"):
            DiscountedMDP(kernel(), np.zeros((S, A)), discount=discount)


# ---- arrays


def test_a_writable_array_is_copied_and_never_changed():
    transition, reward, initial = kernel(), np.zeros((S, A)), np.array([0.5, 0.5, 0.0])
    given = [array.copy() for array in (transition, reward, initial)]
    mdp = model(transition, reward, initial=initial)
    for array, before in zip((transition, reward, initial), given, strict=True):
        assert array.flags.writeable
        np.testing.assert_array_equal(array, before)
    transition[:] = reward[:] = initial[:] = 9
    assert mdp == model(*given[:2], initial=given[2])


def test_a_read_only_array_is_adopted_without_a_copy():
    transition, reward = kernel(H), np.zeros((S, A))
    transition.flags.writeable = reward.flags.writeable = False
    mdp = model(transition, reward)
    assert mdp.transition is transition and mdp.reward is reward
    fortran = np.asfortranarray(kernel())
    fortran.flags.writeable = False
    assert model(fortran).transition.flags.c_contiguous
    single = np.eye(S, dtype=np.float32)[:, np.newaxis].repeat(A, axis=1)
    assert model(single).transition.dtype == np.float64


@given(mdps() | discounted_mdps())
def test_every_array_is_read_only_and_contiguous(mdp):
    arrays = [mdp.reward, mdp.initial, mdp.action_mask, mdp.outcome_reward, mdp.reward_noise]
    rows = mdp.transition
    arrays += [rows.indptr, rows.indices, rows.data] if mdp.is_sparse else [rows]
    for array in arrays:
        if array is not None:
            assert not array.flags.writeable and array.flags.c_contiguous
    with pytest.raises(dataclasses.FrozenInstanceError):
        mdp.name = "x"


def test_layers_for_kernels():
    assert model().transition_layers.shape == (1, S, A, S) and model().reward_layers.shape == (1, S, A)
    staged = model(kernel(H), np.zeros((H, S, A)))
    assert staged.transition_layers is staged.transition and staged.reward_layers is staged.reward
    assert not staged.stationary and model().stationary
    assert not model(kernel(H)).stationary and not model(reward=np.zeros((H, S, A))).stationary
    with pytest.raises(TypeError, match="the model is sparse"):
        _ = model(sparse(kernel())).transition_layers


# ---- rewards


def test_outcome_rewards_give_means():
    rng = np.random.default_rng(0)
    transition = rng.dirichlet(np.ones(S), size=(H, S, A))
    outcome = rng.normal(size=(H, S, A, S))
    mdp = FiniteHorizonMDP(transition, outcome_reward=outcome, horizon=H)
    expected = [[[sum(transition[h, s, a] * outcome[h, s, a]) for a in range(A)] for s in range(S)] for h in range(H)]
    np.testing.assert_allclose(mdp.reward, expected, atol=1e-15)
    assert mdp.reward_law == "outcome"
    assert mdp.reward_range == (outcome.min(), outcome.max())
    np.testing.assert_allclose(mdp.to_sparse().reward, expected, atol=1e-15)


@pytest.mark.parametrize(
    "reward, settings, limits",
    [
        (0.5, {}, (0, 1)),
        (1.5, {}, (1.5, 1.5)),
        (-0.5, {}, (-0.5, -0.5)),
        (0.5, dict(reward_range=(0, 2)), (0, 2)),
        (0.5, dict(reward_law="uniform", reward_noise=0.5), (0, 1)),
        (0.5, dict(reward_law="uniform", reward_noise=0.75), (-0.25, 1.25)),
        (0.0, dict(reward_law="bernoulli"), (0, 1)),
    ],
)
def test_range_of_sampled_rewards(reward, settings, limits):
    assert model(reward=np.full((S, A), reward), **settings).reward_range == limits


def test_rewards_that_cannot_occur_do_not_widen_the_range():
    transition = np.eye(S)[:, np.newaxis].repeat(A, axis=1)
    outcome = np.where(transition > 0, 0.5, 99.0)
    assert model(transition, outcome_reward=outcome).reward_range == (0, 1)
    rows = SparseTransition(np.arange(0, 19, 3), np.tile(np.arange(3), 6), transition.reshape(-1), S, A)
    assert model(rows, outcome_reward=outcome.reshape(-1)).reward_range == (0, 1)
    mask = np.array([[True, False]] * S)
    outcome[:, 1] = 99.0
    assert model(transition, outcome_reward=outcome, action_mask=mask).reward_range == (0, 1)
    assert model(rows, outcome_reward=outcome.reshape(-1), action_mask=mask).reward_range == (0, 1)


# ---- the same model with one thing changed


@given(st.data())
def test_with_reward_shares_the_dynamics(data):
    mdp = data.draw(mdps())
    reward = data.draw(rewards(mdp, (-2.0, 3.0)))
    new = mdp.with_reward(reward)
    assert new.transition is mdp.transition and new.initial is mdp.initial
    np.testing.assert_array_equal(new.reward, np.where(mdp.action_mask, reward, 0))
    assert (new.reward_law, new.outcome_reward, new.reward_noise) == ("deterministic", None, None)
    assert new.with_horizon(1).with_horizon(1).horizon == 1


def test_with_reward_validates():
    with pytest.raises(ValueError, match=r"reward\[0, 0\] is nan"):
        model().with_reward(np.full((S, A), np.nan))
    with pytest.raises(ValueError, match="give either reward"):
        model().with_reward()
    assert model().with_reward(outcome_reward=kernel()).reward_law == "outcome"
    with pytest.raises(ValueError, match="reward has 2 layers, but the horizon is 4"):
        model().with_reward(np.zeros((2, S, A)))


def test_with_initial_and_renamed():
    mdp = model(name="a")
    assert mdp.with_initial(2).initial.tolist() == [0, 0, 1] and mdp.initial.tolist() == [1, 0, 0]
    assert mdp.with_initial([0.5, 0.25, 0.25]).transition is mdp.transition
    assert mdp.renamed("b").name == "b" and mdp.renamed("b") == mdp and mdp.name == "a"
    with pytest.raises(ValueError, match="initial = 7 is not a state"):
        mdp.with_initial(7)


@given(mdps(), st.integers(1, 6))
def test_with_horizon(mdp, horizon):
    if not mdp.stationary and horizon > mdp.horizon:
        with pytest.raises(
            ValueError, match=f"a time-varying model of {mdp.horizon} layers cannot be extended to {horizon}"
        ):
            mdp.with_horizon(horizon)
        return
    new = mdp.with_horizon(horizon)
    assert new.horizon == horizon
    cut = slice(0, horizon)
    for name in ("reward", "reward_noise"):
        table = getattr(mdp, name)
        expected = table[cut] if table is not None and table.ndim == 3 else table
        np.testing.assert_array_equal(getattr(new, name), expected)
    for name in ("transition", "outcome_reward"):
        old, now = getattr(mdp.to_dense(), name), getattr(new.to_dense(), name)
        np.testing.assert_array_equal(now, old[cut] if old is not None and old.ndim == 4 else old)
    # The cut model passes the checks of a fresh one.
    given = (
        {"outcome_reward": new.outcome_reward}
        if new.reward_law == "outcome"
        else {"reward": new.reward, "reward_law": new.reward_law, "reward_noise": new.reward_noise}
    )
    fresh = FiniteHorizonMDP(
        new.transition,
        horizon=horizon,
        initial=new.initial,
        action_mask=new.action_mask,
        reward_range=new.reward_range,
        **given,
    )
    assert (fresh.transition == new.transition) if fresh.is_sparse else fresh == new


@given(discounted_mdps(), st.integers(1, 3))
def test_discounted_and_back(mdp, horizon):
    finite = mdp.with_horizon(horizon)
    assert isinstance(finite, FiniteHorizonMDP) and finite.transition is mdp.transition
    assert finite.with_discount(mdp.discount) == mdp
    assert finite != mdp and mdp.stationary
    assert mdp.with_discount(0.125).discount == 0.125 != mdp.with_discount(0.25).discount
    assert mdp.with_discount(0.125) != mdp.with_discount(0.25)


def test_a_time_varying_model_has_no_discounted_counterpart():
    with pytest.raises(ValueError, match="time-varying"):
        model(kernel(H)).with_discount(0.5)


# ---- storage and identity


@given(mdps() | discounted_mdps())
def test_sparse_and_dense_hold_the_same(mdp):
    dense, rows = mdp.to_dense(), mdp.to_sparse()
    assert rows.to_dense().to_sparse() == dense.to_sparse()
    assert dense.to_dense() is dense and rows.to_sparse() is rows
    np.testing.assert_array_equal(rows.to_dense().transition, dense.transition)
    assert (rows.reward_law, rows.reward_range, rows.stationary) == (
        dense.reward_law,
        dense.reward_range,
        dense.stationary,
    )
    if mdp.reward_law == "outcome":
        seen = dense.transition > 0
        np.testing.assert_array_equal(rows.to_dense().outcome_reward[seen], dense.outcome_reward[seen])


@given(mdps() | discounted_mdps())
def test_scipy_matrices_are_taken(mdp):
    if not mdp.action_mask.all():
        mdp = mdp.to_dense()
    rows = mdp.to_sparse().transition
    again = SparseTransition.from_scipy(rows.to_scipy(), mdp.n_states, mdp.n_actions)
    assert again == rows
    settings = {"horizon": mdp.horizon} if isinstance(mdp, FiniteHorizonMDP) else {"discount": mdp.discount}
    built = type(mdp)(rows.to_scipy(), mdp.reward, action_mask=mdp.action_mask, **settings)
    assert built.transition == rows


SETTINGS = {
    "transition": dict(transition=changed(kernel(), (0, 0), [1, 0, 0])),
    "reward": dict(reward=changed(np.zeros((S, A)), (0, 0), 0.5)),
    "horizon": dict(horizon=5),
    "initial": dict(initial=1),
    "law": dict(reward_law="bernoulli"),
    "noise": dict(reward_law="uniform", reward_noise=0.0),
    "range": dict(reward_range=(0, 2)),
    "state labels": dict(state_labels="abc"),
    "action labels": dict(action_labels="ab"),
    "mask": dict(action_mask=np.array([[True, False], [True, True], [True, True]])),
    "storage": dict(transition=sparse(kernel())),
    "layers": dict(transition=kernel(H)),
    "outcomes": dict(outcome_reward=np.zeros((S, A, S))),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_equality_sees_every_setting(setting):
    mdp, other = model(), model(**SETTINGS[setting])
    assert mdp == model() and mdp.digest() == model().digest() and hash(mdp) == hash(model())
    assert mdp != other and other != mdp
    assert mdp.digest() != other.digest()
    assert model(name="x") == mdp and model(name="x").digest() == mdp.digest()


def test_a_layer_axis_counts_at_horizon_one():
    for store in (np.asarray, sparse):
        staged, still = model(store(kernel(1)), horizon=1), model(store(kernel()), horizon=1)
        assert staged != still and staged.digest() != still.digest()


def test_equality_with_other_things():
    assert model() != 3 and model() != "model" and (model() == None) is False  # noqa: E711


def test_equal_models_have_equal_hashes():
    negative = model(reward=np.full((S, A), -0.0))
    assert negative == model() and hash(negative) == hash(model())


@given(mdps())
def test_models_equal_themselves(mdp):
    assert mdp == mdp.renamed("other") and mdp.digest() == mdp.renamed("other").digest()
    assert len(mdp.digest()) == 64


def test_repr_is_short():
    assert repr(model(name="toy")) == "FiniteHorizonMDP('toy', n_states=3, n_actions=2, dense, horizon=4)"
    assert (
        repr(model(sparse(kernel(H)))) == "FiniteHorizonMDP(n_states=3, n_actions=2, sparse, horizon=4, time-varying)"
    )
    assert repr(model().with_discount(0.95)) == "DiscountedMDP(n_states=3, n_actions=2, dense, discount=0.95)"
    assert repr(sparse(kernel(2))) == "SparseTransition(n_states=3, n_actions=2, n_layers=2, nnz=36)"


# ---- sparse rows


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(indices=[0, 3, 0, 1]), "indices[1] = 3 is not a state (0 to 1)"),
        (dict(indices=[0, -1, 0, 1]), "indices[1] = -1 is not a state (0 to 1)"),
        (dict(indices=[1, 0, 0, 1]), "the successors of transition[0, 0] are not strictly increasing"),
        (dict(indices=[0, 1, 1, 1]), "the successors of transition[1, 0] are not strictly increasing"),
        (dict(indptr=[0, 3, 2]), "indptr runs from 0 to 2 over 4 indices and 4 data"),
        (dict(indptr=[0, 5, 4]), "indptr[2] decreases"),
        (dict(indptr=[0, 4]), "indptr has shape (2,), not (3,)"),
        (dict(indptr=[0, 2.5, 4]), "indptr[1] = 2.5 is not an integer"),
        (dict(indptr=[0, np.inf, 4]), "indptr[1] = inf is not an integer"),
        (dict(data=[0.5, 0.5, 1]), "4 indices and 3 data"),
        (dict(n_layers=2), "a stationary SparseTransition has one layer, not 2"),
        (dict(n_states=0), "n_states must be at least 1, not 0"),
    ],
)
def test_bad_rows_are_named(change, message):
    good = dict(indptr=[0, 2, 4], indices=[0, 1, 0, 1], data=[0.5] * 4, n_states=2, n_actions=1)
    assert SparseTransition(**good).row_sums().tolist() == [1, 1]
    with pytest.raises(ValueError, match=re.escape(message)):
        SparseTransition(**good | change)


def test_rows_from_entries_add_up_in_any_order():
    rows = SparseTransition.from_entries([1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 0, 1], [0.25, 1.0, 0.5, 0.25], 2, 1)
    np.testing.assert_array_equal(rows.to_dense(), [[[0, 1]], [[0.5, 0.5]]])
    staged = SparseTransition.from_entries([0, 0], [0, 0], [0, 0], [1.0, 1.0], 1, 1, layers=[1, 0], n_layers=2)
    assert staged.staged and staged.to_dense().shape == (2, 1, 1, 1)
    with pytest.raises(ValueError, match="entry 1: successor 2 is not in 0 to 1"):
        SparseTransition.from_entries([0, 0], [0, 0], [0, 2], [0.5, 0.5], 2, 1)
    with pytest.raises(ValueError, match="layers must lie in 0 to 0"):
        SparseTransition.from_entries([0], [0], [0], [1.0], 1, 1, layers=[1])


def test_scipy_input_is_not_changed():
    matrix = scipy.sparse.coo_array(([0.5, 0.5, 1.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2)).tocsr()
    twice = scipy.sparse.csr_array(([0.5, 0.5, 1.0], [1, 1, 0], [0, 2, 3]), shape=(2, 2))
    mdp = FiniteHorizonMDP(twice, np.zeros((2, 1)), horizon=1)
    np.testing.assert_array_equal(mdp.transition.to_dense(), [[[0, 1]], [[1, 0]]])
    assert twice.nnz == 3 and twice.data.flags.writeable
    assert FiniteHorizonMDP([matrix, matrix], np.zeros((2, 1)), horizon=2).transition.n_layers == 2
    with pytest.raises(ValueError, match=re.escape("transition[1] has shape (3, 2), not (2, 2)")):
        FiniteHorizonMDP([matrix, scipy.sparse.csr_array((3, 2))], np.zeros((2, 1)), horizon=2)


def test_a_read_only_view_of_a_writable_array_is_copied():
    owner = np.full((2, 1, 2), 0.5)
    view = owner[:]
    view.flags.writeable = False
    mdp = FiniteHorizonMDP(view, np.zeros((2, 1)), horizon=2)
    owner[...] = 0.0
    assert (mdp.transition == 0.5).all()
    assert mdp.transition.ctypes.data % 64 == 0
    assert not mdp.transition.base.flags.writeable
