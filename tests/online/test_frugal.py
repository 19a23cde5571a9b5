"""The loop that counts no references: the same numbers, nothing left behind, and allocation refused."""

import numpy as np
import pytest
from numba.core import config
from numba.core.errors import TypingError
from numba.core.runtime import _nrt_python, rtsys

import theoryrl as trl
from theoryrl._jit import compiled, kernel
from theoryrl.online import EULER, OPPO, RLSVI, UCBB, UCBH, UCBVI, UCBVIRTDP, Uniform, driver, run
from theoryrl.online.verbs import FRUGAL, Problem

pytestmark = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="only compiled code counts references")
LEARNERS = (UCBVI(bonus="bernstein"), UCBVIRTDP(), EULER(), UCBH(), UCBB(), RLSVI(), OPPO(50))


def problem(mdp):
    """What a learner is told of a model with rewards in [0, 1]."""
    return Problem(mdp.n_states, mdp.n_actions, mdp.horizon, 0.0, 1.0, mdp.stationary, mdp.action_mask)


def kept(call):
    """How many blocks of numba's memory `call` leaves behind."""
    _nrt_python.memsys_enable_stats()
    before = rtsys.get_allocation_stats()
    call()
    after = rtsys.get_allocation_stats()
    return after.mi_alloc - before.mi_alloc - (after.mi_free - before.mi_free)


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: type(learner).__name__)
def test_frugal_learners_leave_nothing_behind(learner):
    mdp = trl.envs.make("chain", n_states=3, horizon=4)
    assert type(learner.init(problem(mdp))) in FRUGAL
    run(learner, mdp, 2, jobs=1)
    assert kept(lambda: run(learner, mdp, 50, jobs=1)) == 0


def test_counting_changes_no_number(monkeypatch):
    mdp = trl.envs.make("chain", n_states=3, horizon=4)
    borrowed = run(OPPO(50), mdp, 50, rng=5, jobs=1)
    monkeypatch.setattr(driver, "FRUGAL", set())
    counted = run(OPPO(50), mdp, 50, rng=5, jobs=1)
    np.testing.assert_array_equal(borrowed.regret, counted.regret)
    np.testing.assert_array_equal(borrowed.collected, counted.collected)


def test_learners_that_do_not_say_so_have_their_references_counted(monkeypatch):
    calls = []
    monkeypatch.setattr(driver, "_cached", lambda *arguments: calls.append("counted"))
    monkeypatch.setattr(driver, "_borrowed", lambda *arguments: calls.append("borrowed"))
    for learner in (Uniform(), UCBH()):
        run(learner, trl.envs.make("chain", n_states=3, horizon=4), 1, jobs=1)
    assert calls == ["counted", "borrowed"]


@kernel("strict")
def fresh_array(n):
    """What a frugal learner must not call."""
    return np.zeros(n)


def first_of_a_fresh_array(n):
    return fresh_array(n)[0]


def test_the_count_sees_an_array_that_is_never_freed():
    borrowed, counted = (
        compiled(first_of_a_fresh_array, "strict", cache=False, borrowed=each) for each in (True, False)
    )
    assert kept(lambda: borrowed(4)) == 1
    assert kept(lambda: counted(4)) == 0


def test_allocation_is_refused():
    with pytest.raises(TypingError, match="Only accept returning of array|NRT"):
        compiled(lambda n: np.zeros(n).sum(), "strict", cache=False, borrowed=True)(4)
