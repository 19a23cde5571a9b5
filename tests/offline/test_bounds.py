import math

import numpy as np
import pytest

from theoryrl.mdp import FiniteHorizonMDP, backward_induction, occupancy, random_mdp, uniform_policy
from theoryrl.offline import bounds

MDP = random_mdp(3, 2, 3, np.random.default_rng(4), staged=True).with_initial(np.array([0.5, 0.25, 0.25]))
MU = occupancy(MDP, uniform_policy(MDP))


def test_constants():
    # 2.5414940825 = 1 / (1 - e^{-1/2}), the exact form of the constant 2.55.
    assert bounds.FIT == pytest.approx(2.5414940825, abs=1e-10)
    kappa = bounds.fit_error(np.log([8, 4]), 2, 0.05)
    assert kappa[0] == pytest.approx(2.5414940825 * 4 * math.log(8 * 4 * 2 / 0.05), rel=1e-10)
    assert kappa[1] == pytest.approx(2.5414940825 * math.log(4 * 2 / 0.05), rel=1e-10)
    wanted = 2 * (math.sqrt(3 * kappa[0]) + math.sqrt(2 * kappa[1])) / 1000
    found = bounds.fqi_suboptimality_bound(10**6, log_sizes=np.log([8, 4]), concentrability=[3, 2], delta=0.05)
    assert found == pytest.approx(wanted, rel=1e-12)
    assert bounds.fqe_error_bound(10**6, log_sizes=np.log([8, 4]), concentrability=[3, 2], delta=0.05) == pytest.approx(
        wanted / 2, rel=1e-12
    )
    mle = bounds.maximum_likelihood_bound(10**6, n_models=5, concentrability=[3, 2], delta=0.05)
    one = math.log(5 * 2 / 0.05)
    assert mle == pytest.approx(2 * (math.sqrt(3 * 8 * one) + math.sqrt(2 * 2 * one)) / 1000, rel=1e-12)
    msbo = bounds.msbo_suboptimality_bound(
        10**6, log_size=math.log(7), helper_log_sizes=np.log([7, 7]), concentrability=[3, 2], delta=0.05
    )
    total = 2.5414940825 * 5 * 2 * math.log(2 * 7 * 2 / 0.05)
    assert msbo == pytest.approx(2 * math.sqrt(5 * total) / 1000, rel=1e-9)
    mabo = bounds.mabo_suboptimality_bound(
        10**6, log_size=math.log(7), weights_log_size=math.log(9), largest_weights=[2, 5], delta=0.05
    )
    assert mabo == pytest.approx(4 * math.sqrt(2) * 9 * math.sqrt(math.log(2 * 63 / 0.05)) / 1000, rel=1e-12)
    lcb = bounds.vi_lcb_suboptimality_bound(
        2 * 10**6, n_states=3, n_actions=2, horizon=2, concentrability=4, delta=0.05
    )
    assert lcb == pytest.approx(3 * math.sqrt(8 * 3 * 4 * math.log(4 * 12 / 0.05)) / 1000, rel=1e-12)


def test_bounds_fall_like_the_root_and_never_exceed_the_trivial():
    settings = dict(log_sizes=[1.0, 1.0, 1.0], concentrability=[2.0, 2.0, 2.0], delta=0.1)
    a, b, c = bounds.fqi_suboptimality_bound([1, 10**8, 4 * 10**8], **settings)
    assert a == 3.0 and b == pytest.approx(2 * c)
    wide = bounds.fqi_suboptimality_bound([1, 10**8], reward_width=2.0, **settings)
    np.testing.assert_allclose(wide, [6.0, 2 * b])
    assert bounds.fqi_suboptimality_bound(10**9, **settings | {"concentrability": [math.inf, 1, 1]}) == 3.0


def test_closed_form_is_above_the_model_form():
    best = occupancy(MDP, backward_induction(MDP).policy)
    ratio = float((best / MU).max())
    for n in (100, 10_000, 10**6, 10**8):
        loose = bounds.vi_lcb_suboptimality_bound(
            n, n_states=3, n_actions=2, horizon=3, concentrability=ratio, delta=0.05
        )
        sharp = bounds.vi_lcb_model_bound(MDP, MU, n, 0.05)
        width = MDP.reward_range[1] - MDP.reward_range[0]
        assert 0 < sharp <= loose and sharp <= 3 * width
    assert bounds.vi_lcb_model_bound(MDP, MU, 2, 0.05) == pytest.approx(3.0)


def test_second_moment_ratio():
    target = np.random.default_rng(0).dirichlet([1, 1], (3, 3))
    d = occupancy(MDP, target)
    np.testing.assert_allclose(bounds.second_moment_ratio(MDP, target, MU), (MU * (d / MU) ** 2).sum(axis=(1, 2)))
    np.testing.assert_allclose(bounds.second_moment_ratio(MDP, uniform_policy(MDP), MU), 1.0)
    one = FiniteHorizonMDP(np.ones((1, 2, 1)), np.zeros((1, 2)), horizon=1)
    assert bounds.second_moment_ratio(one, np.array([1]), np.array([[[1.0, 0.0]]]))[0] == math.inf
    assert bounds.vi_lcb_model_bound(one, np.array([[[0.0, 1.0]]]), 10**9, 0.05) == pytest.approx(1.0)


def test_bad_calls():
    with pytest.raises(ValueError, match="delta is 1"):
        bounds.fit_error([0.0], 1, 1)
    with pytest.raises(ValueError, match="log_sizes must be 2 numbers"):
        bounds.fit_error([0.0], 2, 0.1)
    with pytest.raises(ValueError, match="concentrability must be 1 numbers"):
        bounds.fqi_suboptimality_bound(1, log_sizes=[0.0], concentrability=[1, 1], delta=0.1)
    with pytest.raises(ValueError, match="concentrability must be 1 numbers"):
        bounds.fqi_suboptimality_bound(1, log_sizes=[0.0], concentrability=[math.nan], delta=0.1)
    with pytest.raises(ValueError, match="episodes must not be negative"):
        bounds.fqi_suboptimality_bound(math.nan, log_sizes=[0.0], concentrability=[1], delta=0.1)
    with pytest.raises(ValueError, match="concentrability is 0.5, below 1"):
        bounds.vi_lcb_suboptimality_bound(1, n_states=1, n_actions=1, horizon=1, concentrability=0.5, delta=0.1)
    with pytest.raises(ValueError, match="reward_width is nan"):
        bounds.fit_error([0.0], 1, 0.1, math.nan)
    with pytest.raises(ValueError, match="mu has shape"):
        bounds.second_moment_ratio(MDP, uniform_policy(MDP), MU[0])


def test_min_episodes_inverts():
    settings = dict(log_sizes=np.log([8, 4]), concentrability=[3.0, 2.0], delta=0.05)
    n = bounds.min_episodes(bounds.fqi_suboptimality_bound, 0.1, **settings)
    assert bounds.fqi_suboptimality_bound(n, **settings) <= 0.1 < bounds.fqi_suboptimality_bound(n - 1, **settings)
    closed = (2 * np.sqrt(np.array([3.0, 2.0]) * bounds.fit_error(np.log([8, 4]), 2, 0.05)).sum() / 0.1) ** 2
    assert n == math.ceil(closed)
    steps = dict(n_states=2, n_actions=2, horizon=3, concentrability=2.0, delta=0.05)
    m = bounds.min_episodes(bounds.vi_lcb_suboptimality_bound, 0.5, **steps)
    assert m % 3 == 0  # the bound is constant between multiples of H
    with pytest.raises(ValueError, match="is above 0.1 for all n"):
        bounds.min_episodes(bounds.fqi_suboptimality_bound, 0.1, **settings | {"concentrability": [math.inf, 1]})
    with pytest.raises(ValueError, match="epsilon must be positive"):
        bounds.min_episodes(bounds.fqi_suboptimality_bound, math.nan, **settings)


def test_constant_rewards_leave_nothing_to_lose():
    common = {"concentrability": [2.0], "delta": 0.05, "reward_width": 0.0}
    assert bounds.fqi_suboptimality_bound([0, 5], log_sizes=[1.0], **common).tolist() == [0, 0]
    assert bounds.maximum_likelihood_bound([0, 5], n_models=2, **common).tolist() == [0, 0]


def test_numbers_that_are_none_are_named():
    sizes = dict(log_size=1.0, delta=0.1)
    with pytest.raises(ValueError, match="log_size is nan, not a number of at least 0"):
        bounds.msbo_suboptimality_bound(9, helper_log_sizes=[1], concentrability=[1], **sizes | {"log_size": math.nan})
    with pytest.raises(ValueError, match="helper_log_sizes must be 1 numbers of at least 0"):
        bounds.msbo_suboptimality_bound(9, helper_log_sizes=[math.nan], concentrability=[1], **sizes)
    with pytest.raises(ValueError, match="weights_log_size is -1, not a number of at least 0"):
        bounds.mabo_suboptimality_bound(9, weights_log_size=-1, largest_weights=[1], **sizes)
    with pytest.raises(ValueError, match="largest_weights must be 1 numbers of at least 0, one per layer"):
        bounds.mabo_suboptimality_bound(9, weights_log_size=1, largest_weights=1.0, **sizes)
    with pytest.raises(ValueError, match="concentrability must be 1 numbers of at least 0, one per layer"):
        bounds.maximum_likelihood_bound(9, n_models=1, concentrability=1.0, delta=0.1)


def test_what_is_no_distribution_of_data_is_named():
    wrong = MU.copy()
    wrong[1] *= 2
    bad = MU.copy()
    bad[2, 0, 1] = math.nan
    for bound in (
        lambda mu: bounds.second_moment_ratio(MDP, uniform_policy(MDP), mu),
        lambda mu: bounds.vi_lcb_model_bound(MDP, mu, 100, 0.1),
    ):
        with pytest.raises(ValueError, match=r"mu\[1\] sums to 2, not 1"):
            bound(wrong)
        with pytest.raises(ValueError, match=r"mu\[2, 0, 1\] is nan, not finite"):
            bound(bad)
