"""The two models: a finite-horizon MDP and a discounted one. Frozen, validated once, arrays read-only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from theoryrl.mdp._base import REWARD_LAWS, Model, RewardLaw
from theoryrl.mdp._checks import frozen, require_int
from theoryrl.mdp.transitions import SparseTransition


@dataclass(frozen=True, eq=False, repr=False)
class FiniteHorizonMDP(Model):
    """A Markov decision process of H steps, with states 0..S-1, actions 0..A-1 and layers h = 0..H-1.

    Parameters
    ----------
    transition : (S, A, S) or (H, S, A, S) array, scipy CSR (S * A, S) or list of H such, or SparseTransition
        Probabilities; every allowed row is non-negative and sums to 1 within 1e-9. The model that is solved has the
        rows divided by their exact sums. A read-only C-contiguous float64 array is adopted without a copy, anything
        else is copied.
    reward : (S, A) or (H, S, A) array
        Mean rewards.
    horizon : int
        H, at least 1; equal to the layer axis of whatever has one.
    outcome_reward : array like `transition` (for sparse storage: one number per stored entry), optional
        Rewards per successor, instead of `reward`: the sampled reward is then r(s, a, s').
    initial : (S,) distribution or state number, default state 0
    reward_law : {"deterministic", "bernoulli", "uniform"}
        How rewards are sampled around their means: exactly, as a 0/1 coin, or uniformly within `reward_noise`.
    reward_noise : float or array like `reward`
        Half-width of the uniform law.
    reward_range : (low, high), optional
        Declared range of sampled rewards; default (0, 1) if they all lie in it, else their exact minimum and maximum.
    state_labels, action_labels : sequence of distinct strings, optional
    action_mask : (S, A) bool, optional
        True where the action is allowed. Rows of forbidden pairs are never read; in results their action value is
        -inf and their occupancy 0.
    name : str

    Raises
    ------
    ValueError
        NaN, infinities, negative probabilities, rows off 1, wrong shapes or types, empty sets, a horizon below 1: the
        message names the first entry at fault, e.g. `transition[2, 5, 0] sums to 0.98, not 1`.
    """

    horizon: int = field(kw_only=True)

    def __post_init__(self) -> None:
        self._put(horizon=require_int(self.horizon, 1, "horizon"))
        super().__post_init__()

    def _require_layers(self, layers: int, name: str) -> None:
        if layers != self.horizon:
            raise ValueError(f"{name} has {layers} layers, but the horizon is {self.horizon}")

    def _table_shapes(self) -> str:
        return f"({self.n_states}, {self.n_actions}) or ({self.horizon}, {self.n_states}, {self.n_actions})"

    @property
    def stationary(self) -> bool:
        """Whether neither transitions nor rewards change over time."""
        return not self.staged_transition and self.reward.ndim == 2

    def with_horizon(self, horizon: int) -> FiniteHorizonMDP:
        """The same model with another horizon; a time-varying one can only be cut, to its first layers."""
        horizon = require_int(horizon, 1, "horizon")
        if not self.stationary and horizon > self.horizon:
            raise ValueError(f"a time-varying model of {self.horizon} layers cannot be extended to {horizon}")
        new = self._copy()
        if not self.stationary:
            transition, outcome = self.transition, self.outcome_reward
            if self.staged_transition and self.is_sparse:
                end = transition.indptr[horizon * self.n_states * self.n_actions]
                pointer = transition.indptr[: horizon * self.n_states * self.n_actions + 1]
                transition = SparseTransition(
                    pointer,
                    transition.indices[:end],
                    transition.data[:end],
                    self.n_states,
                    self.n_actions,
                    horizon,
                    True,
                )
                outcome = None if outcome is None else frozen(outcome[:end], np.float64, "outcome_reward")
            elif self.staged_transition:
                transition = transition[:horizon]
                outcome = None if outcome is None else outcome[:horizon]
            cut = {
                key: table[:horizon] if table is not None and table.ndim == 3 else table
                for key, table in (("reward", self.reward), ("reward_noise", self.reward_noise))
            }
            new._put(transition=transition, outcome_reward=outcome, **cut)
        new._put(horizon=horizon)
        return new

    def with_discount(self, discount: float) -> DiscountedMDP:
        """The infinite-horizon discounted model with the same stationary transitions and rewards."""
        if not self.stationary:
            raise ValueError("a time-varying model has no discounted counterpart here; its layers differ")
        return _converted(self, DiscountedMDP, discount=_discount(discount))

    def induced(self, policy: Any) -> FiniteHorizonMDP:
        """The Markov chain under `policy` as a model with a single action; its rewards are the policy's means.

        `policy` is an action per state, (S,) or (H, S), or probabilities, (S, A) or (H, S, A); the chain is stationary
        when both the model and the policy are.
        """
        from theoryrl.mdp.policy import induced_chain

        return induced_chain(self, policy)

    @classmethod
    def from_functions(
        cls,
        states: Sequence[Any],
        actions: Sequence[Any] | Callable[[Any], Sequence[Any]],
        transition: Callable[..., Any],
        reward: Callable[..., float],
        *,
        horizon: int,
        staged: bool = False,
        initial: Any = None,
        **settings: Any,
    ) -> FiniteHorizonMDP:
        """A sparse model from callables.

        Parameters
        ----------
        states : sequence of hashable labels
        actions : sequence of hashable labels, or callable state -> the actions allowed there
        transition : callable (state, action) -> mapping from successor to probability
        reward : callable (state, action) -> mean reward
        staged : bool
            Both callables take the layer first, `(h, state, action)`.
        initial : a state, or mapping from state to probability; default the first state
        settings
            As in the constructor.
        """
        from theoryrl.mdp.functions import arguments_from_functions

        given = arguments_from_functions(states, actions, transition, reward, horizon if staged else None, initial)
        return cls(**given, horizon=horizon, **settings)

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {"horizon": self.horizon}

    def __repr__(self) -> str:
        kind = "" if self.stationary else ", time-varying"
        return f"FiniteHorizonMDP({self._describe()}, horizon={self.horizon}{kind})"


@dataclass(frozen=True, eq=False, repr=False)
class DiscountedMDP(Model):
    """A stationary Markov decision process with discount factor gamma in [0, 1).

    Parameters and errors as in `FiniteHorizonMDP`, with `discount` in place of `horizon` and no layer axes.
    """

    discount: float = field(kw_only=True)

    def __post_init__(self) -> None:
        self._put(discount=_discount(self.discount))
        super().__post_init__()

    @property
    def stationary(self) -> bool:
        """Always true."""
        return True

    def with_discount(self, discount: float) -> DiscountedMDP:
        """The same model with another discount factor."""
        new = self._copy()
        new._put(discount=_discount(discount))
        return new

    def with_horizon(self, horizon: int) -> FiniteHorizonMDP:
        """The undiscounted finite-horizon model with the same transitions and rewards."""
        return _converted(self, FiniteHorizonMDP, horizon=require_int(horizon, 1, "horizon"))

    @classmethod
    def from_functions(
        cls,
        states: Sequence[Any],
        actions: Sequence[Any] | Callable[[Any], Sequence[Any]],
        transition: Callable[..., Any],
        reward: Callable[..., float],
        *,
        discount: float,
        initial: Any = None,
        **settings: Any,
    ) -> DiscountedMDP:
        """A sparse model from callables, as `FiniteHorizonMDP.from_functions`."""
        from theoryrl.mdp.functions import arguments_from_functions

        given = arguments_from_functions(states, actions, transition, reward, None, initial)
        return cls(**given, discount=discount, **settings)

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {"discount": self.discount}

    def __repr__(self) -> str:
        return f"DiscountedMDP({self._describe()}, discount={self.discount:g})"


def require_model(mdp: Any, *kinds: type) -> None:
    """Raise a TypeError unless `mdp` is one of `kinds`, by default a model of either criterion."""
    kinds = kinds or (FiniteHorizonMDP, DiscountedMDP)
    if isinstance(mdp, kinds):
        return
    hint = ""
    if isinstance(mdp, Model):
        hint = f"; {'with_discount(gamma)' if isinstance(mdp, FiniteHorizonMDP) else 'with_horizon(H)'} makes one of it"
    raise TypeError(f"this needs a {' or a '.join(kind.__name__ for kind in kinds)}, not a {type(mdp).__name__}{hint}")


def _converted(model: Model, target: type, **criterion: Any) -> Any:
    new: Any = object.__new__(target)
    new.__dict__.update({k: v for k, v in model.__dict__.items() if k not in ("horizon", "discount")})
    new._put(**criterion)
    return new


def _discount(value: Any) -> float:
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not (number and 0 <= value < 1):
        raise ValueError(f"discount must lie in [0, 1), not {value!r}")
    return float(value)


__all__ = ["REWARD_LAWS", "DiscountedMDP", "FiniteHorizonMDP", "RewardLaw", "require_model"]
