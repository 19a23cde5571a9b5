"""How random one step is: environmental norm, largest conditional variance, span of the optimal value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theoryrl.complexity import _kernels as kernels
from theoryrl.mdp._checks import Sealed
from theoryrl.mdp._kernels_rows import rows_of
from theoryrl.mdp.evaluation import moments
from theoryrl.mdp.model import FiniteHorizonMDP, require_model
from theoryrl.mdp.planning import backward_induction


@dataclass(frozen=True, eq=False, repr=False)
class Variances(Sealed):
    """One-step variances under the optimal value; forbidden pairs are 0 and count nowhere.

    Attributes
    ----------
    reward : (H, S, A)
        Var R_h(s, a), of the sampled reward.
    value : (H, S, A)
        Var V*_{h+1}(s'), s' ~ P_h(. | s, a).
    environmental_norm : float
        max_{h, s, a} of the root of `value`.
    conditional_variance : float
        max_{h, s, a} of `reward` + `value`.
    where : (h, s, a)
        The first triple at which that maximum is attained.
    return_variance : float
        Variance of the return of the optimal policy of `backward_induction` from the initial distribution.
    value_span : (H,)
        max V*_h - min V*_h over the states.
    """

    reward: NDArray[np.float64]
    value: NDArray[np.float64]
    environmental_norm: float
    conditional_variance: float
    where: tuple[int, int, int]
    return_variance: float
    value_span: NDArray[np.float64]

    def __repr__(self) -> str:
        return (
            f"Variances(environmental_norm={self.environmental_norm:.6g}, "
            f"conditional_variance={self.conditional_variance:.6g} at {self.where}, "
            f"return_variance={self.return_variance:.6g}, value_span={self.value_span.max():.6g})"
        )


def variances(mdp: FiniteHorizonMDP) -> Variances:
    """Environmental norm, largest per-step conditional variance, span of V* and variance of the optimal return.

    C_env = max_{h, s, a} sqrt(Var_{s' ~ P_h(. | s, a)} V*_{h+1}(s')),
    Q* = max_{h, s, a} (Var R_h(s, a) + Var_{s' ~ P_h(. | s, a)} V*_{h+1}(s'))

    Parameters
    ----------
    mdp : FiniteHorizonMDP

    Returns
    -------
    Variances

    Notes
    -----
    Environmental norm: Maillard, Mann and Mannor (2014), How hard is my MDP? The distribution-norm to the rescue,
    there for the discounted and the average-reward criterion, here with the values of a finite horizon. Largest
    conditional variance: Zanette and Brunskill (2019), Tighter problem-dependent regret bounds in reinforcement
    learning without domain knowledge using value function bounds. Under the outcome law, where the reward is a
    function of s', Q* is still the sum of the two variances. All triples count, reachable or not, as in the sources.
    Cost: one backward induction, one pass per layer and the moments of one policy.
    """
    require_model(mdp, FiniteHorizonMDP)
    plan = backward_induction(mdp)
    shape = (mdp.horizon, mdp.n_states, mdp.n_actions)
    zero, spread = np.zeros(mdp.n_states), np.empty(shape)
    nothing = np.empty(0 if mdp.is_sparse else (0, 0, 0))
    nothing.flags.writeable = False
    kernels.next_variance(rows_of(mdp), mdp.staged_transition, mdp.action_mask, plan.value, zero, nothing, spread)
    noise = np.broadcast_to(_reward_variance(mdp), shape)
    total = noise + spread
    h, s, a = np.unravel_index(int(np.argmax(np.where(mdp.action_mask, total, -1.0))), shape)
    span = plan.value[:-1].max(axis=1) - plan.value[:-1].min(axis=1)
    own = moments(mdp, plan.policy)
    start = mdp.initial @ own.value[0]
    # A random start adds the spread of the values over the initial states.
    returns = mdp.initial @ (own.variance[0] + (own.value[0] - start) ** 2)
    for array in (spread, noise, span):
        array.flags.writeable = False
    return Variances(
        noise,
        spread,
        float(np.sqrt(spread.max())),
        float(total[h, s, a]),
        (int(h), int(s), int(a)),
        float(returns),
        span,
    )


def _reward_variance(mdp: FiniteHorizonMDP) -> NDArray[np.float64]:
    """Var R, (L, S, A) with L in {1, H}; 0 where forbidden."""
    mean = mdp.reward_layers
    if mdp.reward_law == "outcome":
        layers = mdp.horizon if mdp.staged_transition else 1
        outcome = mdp.outcome_reward
        if not mdp.is_sparse:
            outcome = outcome.reshape(-1, mdp.n_states * mdp.n_actions, mdp.n_states)
        result = np.empty((layers, mdp.n_states, mdp.n_actions))
        kernels.outcome_variance(rows_of(mdp), mdp.action_mask, outcome, mean, np.zeros(mdp.n_states), result)
        return result
    if mdp.reward_law == "bernoulli":
        result = mean * (1 - mean)
    elif mdp.reward_law == "uniform":
        result = (mdp.reward_noise**2 / 3).reshape(mean.shape)
    else:
        result = np.zeros((1, *mean.shape[1:]))
    return np.where(mdp.action_mask, result, 0.0)
