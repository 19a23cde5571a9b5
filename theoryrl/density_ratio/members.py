"""What the members of a class are worth: return, regret, occupancy and Bellman errors of their greedy policies."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.classes.values import FiniteClass
from theoryrl.complexity.ranks import bellman_errors
from theoryrl.density_ratio.problem import in_units, units_of
from theoryrl.mdp.evaluation import evaluate, occupancy
from theoryrl.mdp.model import FiniteHorizonMDP, require_model
from theoryrl.mdp.planning import backward_induction


class MemberValues(NamedTuple):
    """Exact values of the members of a class, in units of reward.

    Attributes
    ----------
    value : (nF,)
        J(pi_f), the expected return of the greedy policy of f.
    regret : (nF,)
        J* - J(pi_f).
    optimistic : (nF,)
        E max_a f_0(s_0, a), what f promises.
    occupancies : (nF, H, S, A)
        d^f, the occupancies of the greedy policy.
    bellman_errors : (nF, H)
        E_{d^f_h} [f_h - T_h f_{h+1}], the mean residual along its own greedy policy. They sum to what f promises minus
        what its policy yields.
    """

    value: NDArray[np.float64]
    regret: NDArray[np.float64]
    optimistic: NDArray[np.float64]
    occupancies: NDArray[np.float64]
    bellman_errors: NDArray[np.float64]


def member_values(mdp: FiniteHorizonMDP, cls: FiniteClass, total_reward: float | None = None) -> MemberValues:
    """Return, regret, promise, occupancies and on-policy Bellman errors of every member of a class.

    E max_a f_0(s_0, a) - J(pi_f) = sum_h E_{d^f_h} [f_h - T_h f_{h+1}]

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    cls : FiniteClass
        F, in units of reward.
    total_reward : positive float, optional
        As given to the learner: it decides the units in which it compares actions, hence its greedy policies.

    Returns
    -------
    MemberValues

    Raises
    ------
    ValueError
        A class that does not fit the model, or a value that no total reward can have; the entry is named.
    """
    require_model(mdp, FiniteHorizonMDP)
    policies = in_units(cls, mdp, units_of(mdp, total_reward)).greedy
    promised = cls.state_values(mdp.action_mask)[:, :-1]
    residuals = bellman_errors(mdp, cls.values, promised)
    flows = np.stack([occupancy(mdp, policy) for policy in policies])
    value = np.array([_at_start(mdp, evaluate(mdp, policy)[0]) for policy in policies])
    optimum = _at_start(mdp, backward_induction(mdp).value[0])
    return MemberValues(
        value=value,
        regret=optimum - value,
        optimistic=np.array([_at_start(mdp, row) for row in promised[:, 0]]),
        occupancies=flows,
        bellman_errors=np.einsum("fhsa,fhsa->fh", flows, residuals),
    )


def adversarial_order(cls: FiniteClass, mdp: FiniteHorizonMDP, total_reward: float | None = None) -> NDArray[np.int64]:
    """The members by the return of their greedy policies, worst first: ties broken as an adversary would.

    Parameters
    ----------
    cls : FiniteClass
    mdp : FiniteHorizonMDP
    total_reward : positive float, optional
        As given to the learner.

    Returns
    -------
    ndarray, shape (nF,)
        A permutation, as `tie_order` of the learners takes it; equal returns in the order of their numbers.
    """
    return np.argsort(member_values(mdp, cls, total_reward).value, kind="stable")


def _at_start(mdp: FiniteHorizonMDP, values: NDArray[np.float64]) -> float:
    """The mean over the start law, rounded once more than its products."""
    return math.fsum(mdp.initial * values)
