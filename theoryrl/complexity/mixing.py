"""How fast the chain of a policy forgets its start."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.complexity import _kernels as kernels
from theoryrl.complexity._graphs import Model, closed_classes, period
from theoryrl.complexity.hitting import policy_chain

THRESHOLD = 0.25
# A distance this close above the threshold counts as equal to it: powers are computed in floats.
SLACK = 1e-12
DOUBLINGS = 60


def stationary_distribution(mdp: Model, policy: Any) -> NDArray[np.float64]:
    """The stationary distribution of the chain of a stationary policy.

    nu(t) = sum_s nu(s) P^pi(t | s)

    Parameters
    ----------
    mdp : FiniteHorizonMDP or DiscountedMDP
        With stationary transitions.
    policy : (S,) actions or (S, A) probabilities

    Returns
    -------
    ndarray, shape (S,)
        Every entry to a small relative error; 0 where it is too small for a float.

    Raises
    ------
    ValueError
        Time-varying transitions or policy; more than one recurrent class (there is no single such distribution).
    OverflowError
        If a state is left with a probability below 1e-250 while others are eliminated.

    Notes
    -----
    Grassmann, Taksar and Heyman (1985), Regenerative analysis and steady state distributions for Markov chains. Cost:
    S^3 / 3 multiplications.
    """
    chain = policy_chain(mdp, policy)
    classes = closed_classes(chain > 0)
    if len(classes) > 1:
        names = " and ".join(str(int(states[0])) for states in classes[:2])
        raise ValueError(f"the chain has {len(classes)} recurrent classes (states {names} are in different ones)")
    return stationary_of(chain, classes[0])


def stationary_of(chain: NDArray[np.float64], states: NDArray[np.int64]) -> NDArray[np.float64]:
    """The stationary distribution (S,) that lives on one recurrent class."""
    weights = np.empty(len(states))
    if not kernels.stationary_weights(np.ascontiguousarray(chain[np.ix_(states, states)]), weights):
        raise OverflowError(
            f"the stationary distribution on the class of state {int(states[0])} needs probabilities below "
            f"{kernels.LEAST:g}"
        )
    result = np.zeros(len(chain))
    result[states] = weights
    result.flags.writeable = False
    return result


def mixing_time(mdp: Model, policy: Any) -> float:
    """Mixing time of the chain of a stationary policy, at total variation distance 1/4.

    t_mix = min{t >= 0 : max_s TV(P^t(. | s), nu) <= 1/4},   TV(p, q) = sum_x |p(x) - q(x)| / 2

    with nu the stationary distribution. Transient states are fine; with several recurrent classes or a period above 1
    the chain never mixes.

    Parameters
    ----------
    mdp : FiniteHorizonMDP or DiscountedMDP
        With stationary transitions.
    policy : (S,) actions or (S, A) probabilities

    Returns
    -------
    float
        A whole number of steps, or inf.

    Raises
    ------
    ValueError
        Time-varying transitions or policy.
    OverflowError
        If the chain mixes but needs more than 2^60 steps.

    Notes
    -----
    Levin and Peres (2017), Markov Chains and Mixing Times, section 4.5. The distance never increases, so powers by
    doubling and a binary search find the time. A distance within 1e-12 above 1/4 counts as 1/4. Cost: 2 log2(t_mix)
    products of S x S matrices.
    """
    chain = policy_chain(mdp, policy)
    classes = closed_classes(chain > 0)
    if len(classes) > 1 or period((chain > 0)[np.ix_(classes[0], classes[0])]) > 1:
        return math.inf
    stationary = stationary_of(chain, classes[0])
    here, steps = np.eye(len(chain)), 0
    if _mixed(here, stationary):
        return 0.0
    powers = [chain]
    while not _mixed(powers[-1], stationary):
        if len(powers) > DOUBLINGS:
            raise OverflowError(f"the chain has not mixed after 2^{DOUBLINGS} steps")
        square = powers[-1] @ powers[-1]
        powers.append(square / square.sum(axis=1, keepdims=True))
    for k in range(len(powers) - 2, -1, -1):
        further = here @ powers[k]
        if not _mixed(further, stationary):
            here, steps = further, steps + 2**k
    return float(steps + 1)


def _mixed(power: NDArray[np.float64], stationary: NDArray[np.float64]) -> bool:
    return bool(0.5 * np.abs(power - stationary).sum(axis=1).max() <= THRESHOLD + SLACK)
