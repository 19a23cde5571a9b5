"""What both models share: transitions, rewards and their law, start, labels, allowed actions; validated once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp._checks import (
    Sealed,
    entry,
    first,
    frozen,
    require_distribution,
    require_finite,
    require_int,
    require_labels,
)
from theoryrl.mdp.transitions import SparseTransition, check_dense, check_sparse

RewardLaw = Literal["deterministic", "bernoulli", "uniform", "outcome"]
REWARD_LAWS = ("deterministic", "bernoulli", "uniform", "outcome")


@dataclass(frozen=True, eq=False, repr=False)
class Model(Sealed):
    """What both criteria share: transitions, rewards and their law, start, labels, allowed actions."""

    transition: Any
    reward: Any = None
    outcome_reward: Any = field(default=None, kw_only=True)
    initial: Any = field(default=None, kw_only=True)
    reward_law: RewardLaw | None = field(default=None, kw_only=True)
    reward_noise: Any = field(default=None, kw_only=True)
    reward_range: Any = field(default=None, kw_only=True)
    state_labels: Sequence[Any] | None = field(default=None, kw_only=True)
    action_labels: Sequence[Any] | None = field(default=None, kw_only=True)
    action_mask: Any = field(default=None, kw_only=True)
    name: str = field(default="", kw_only=True)
    n_states: int = field(init=False)
    n_actions: int = field(init=False)

    def __post_init__(self) -> None:
        self._set_transition()
        self._set_reward(self.reward, self.outcome_reward, self.reward_law, self.reward_noise, self.reward_range)
        self._set_initial(self.initial)
        self._put(
            state_labels=require_labels(self.state_labels, self.n_states, "state_labels"),
            action_labels=require_labels(self.action_labels, self.n_actions, "action_labels"),
            name=str(self.name),
        )

    def _put(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _copy(self) -> Self:
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    # -- transitions and allowed actions -------------------------------------------------------------------------

    def _set_transition(self) -> None:
        given = self.transition
        if _is_scipy_sparse(given) or (isinstance(given, (list, tuple)) and given and _is_scipy_sparse(given[0])):
            rows, n_states = (given[0] if isinstance(given, (list, tuple)) else given).shape
            if n_states == 0 or rows % n_states:
                raise ValueError(f"a sparse transition has S * A rows and S columns; {rows} x {n_states} is not that")
            given = SparseTransition.from_scipy(given, int(n_states), int(rows // n_states))
        if isinstance(given, SparseTransition):
            n_states, n_actions = given.n_states, given.n_actions
            staged = given.staged
            layers = given.n_layers
        else:
            given = frozen(given, np.float64, "transition")
            if given.ndim not in (3, 4) or given.shape[-3] != given.shape[-1]:
                raise ValueError(f"transition has shape {given.shape}, not (S, A, S) or (H, S, A, S)")
            if 0 in given.shape:
                raise ValueError(f"transition has shape {given.shape}: states, actions and layers cannot be empty")
            n_states, n_actions = given.shape[-3:-1]
            staged = given.ndim == 4
            layers = given.shape[0] if staged else 1
        if staged:
            self._require_layers(layers, "transition")
        self._put(transition=given, n_states=int(n_states), n_actions=int(n_actions))
        self._put(action_mask=_mask(self.action_mask, self.n_states, self.n_actions))
        (check_sparse if self.is_sparse else check_dense)(given, self.action_mask)

    def _require_layers(self, layers: int, name: str) -> None:
        raise ValueError(f"{name} has a layer axis; a {type(self).__name__} is stationary")

    @property
    def is_sparse(self) -> bool:
        """Whether `transition` is a SparseTransition."""
        return isinstance(self.transition, SparseTransition)

    @property
    def staged_transition(self) -> bool:
        """Whether the transitions have a layer axis."""
        return self.transition.staged if self.is_sparse else self.transition.ndim == 4

    @property
    def transition_layers(self) -> NDArray[np.float64]:
        """Dense transitions as (L, S, A, S), L = 1 when they do not change over time."""
        if self.is_sparse:
            raise TypeError("the model is sparse; its rows are in `transition` (or use to_dense())")
        return self.transition if self.transition.ndim == 4 else self.transition[np.newaxis]

    @property
    def reward_layers(self) -> NDArray[np.float64]:
        """Mean rewards as (L, S, A), L = 1 when they do not change over time."""
        return self.reward if self.reward.ndim == 3 else self.reward[np.newaxis]

    # -- rewards -------------------------------------------------------------------------------------------------

    def _set_reward(self, reward: Any, outcome: Any, law: Any, noise: Any, limits: Any) -> None:
        # dataclasses.replace hands both back; that is one reward only if they agree.
        both = reward is not None and outcome is not None
        if (both and law != "outcome") or (reward is None and outcome is None):
            raise ValueError("give either reward (means) or outcome_reward (one per successor), and not both")
        if outcome is not None:
            if law not in (None, "outcome"):
                raise ValueError(f"outcome_reward fixes the law of the reward; reward_law={law!r} contradicts it")
            law = "outcome"
            outcome = self._checked_outcome(outcome)
            mean = self._mean_of_outcomes(outcome)
            reward = self._same_means(reward, mean, outcome) if both else mean
        law = "deterministic" if law is None else law
        if law not in REWARD_LAWS or (law == "outcome" and outcome is None):
            raise ValueError(f"reward_law must be 'deterministic', 'bernoulli' or 'uniform', not {law!r}")
        reward = self._checked_table(reward, "reward")
        if (noise is not None) != (law == "uniform"):
            raise ValueError("reward_noise (a half-width) goes with reward_law='uniform', and only with it")
        if noise is not None:
            noise = frozen(noise, np.float64, "reward_noise")
            noise = self._checked_table(np.broadcast_to(noise, reward.shape), "reward_noise")
            if noise.min() < 0:
                raise ValueError(f"{entry('reward_noise', first(noise < 0))} is negative")
        if law == "bernoulli":
            wrong = ~((reward >= 0) & (reward <= 1))
            if wrong.any():
                raise ValueError(f"{entry('reward', first(wrong))} = {reward[first(wrong)]} is no Bernoulli mean")
        self._put(reward=reward, outcome_reward=outcome, reward_law=law, reward_noise=noise)
        self._put(reward_range=self._checked_range(limits))

    def _checked_table(self, table: Any, name: str) -> NDArray[np.float64]:
        table = frozen(table, np.float64, name)
        if table.shape[-2:] != (self.n_states, self.n_actions) or table.ndim not in (2, 3):
            raise ValueError(f"{name} has shape {table.shape}, not {self._table_shapes()}")
        if table.ndim == 3:
            self._require_layers(table.shape[0], name)
        if not self.action_mask.all():
            table = np.where(self.action_mask, table, 0.0)
            table.flags.writeable = False
        require_finite(table, name)
        return table

    def _table_shapes(self) -> str:
        return f"({self.n_states}, {self.n_actions})"

    def _checked_outcome(self, outcome: Any) -> NDArray[np.float64]:
        outcome = frozen(outcome, np.float64, "outcome_reward")
        shape = self.transition.data.shape if self.is_sparse else self.transition.shape
        if outcome.shape != shape:
            what = "the stored entries of transition" if self.is_sparse else "transition"
            raise ValueError(f"outcome_reward has shape {outcome.shape}, not {shape} as {what}")
        require_finite(outcome, "outcome_reward")
        return outcome

    def _mean_of_outcomes(self, outcome: NDArray[np.float64]) -> NDArray[np.float64]:
        if not self.is_sparse:
            mean = np.einsum("...t,...t->...", self.transition, outcome)
        else:
            rows = self.transition
            weighted = SparseTransition(
                rows.indptr,
                rows.indices,
                rows.data * outcome,
                rows.n_states,
                rows.n_actions,
                rows.n_layers,
                rows.staged,
            )
            mean = weighted.row_sums().reshape((-1, self.n_states, self.n_actions))
            mean = mean if rows.staged else mean[0]
        return np.where(self.action_mask, mean, 0.0)

    def _same_means(self, reward: Any, mean: NDArray[np.float64], outcome: NDArray[np.float64]) -> NDArray[np.float64]:
        # Means are sums, and the storage they were once summed in shows in the last bit: keep those given.
        reward, scale = self._checked_table(reward, "reward"), max(1.0, float(np.abs(outcome).max()))
        if reward.shape != mean.shape or not (np.abs(reward - mean) <= 1e-9 * scale).all():
            raise ValueError("reward is not the mean of outcome_reward; give one of them")
        return reward

    def _checked_range(self, limits: Any) -> tuple[float, float]:
        low, high = self._sampled_range()
        if limits is None:
            return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
        try:
            given_low, given_high = (float(limit) for limit in limits)
        except (TypeError, ValueError):
            raise ValueError(f"reward_range must be (low, high), not {limits!r}") from None
        if not (np.isfinite(given_low) and np.isfinite(given_high) and given_low <= given_high):
            raise ValueError(f"reward_range must be finite with low <= high, not {limits!r}")
        if low < given_low or high > given_high:
            raise ValueError(f"rewards reach from {low} to {high}, outside reward_range ({given_low}, {given_high})")
        return given_low, given_high

    def _sampled_range(self) -> tuple[float, float]:
        if self.reward_law == "outcome":
            weights = self.transition.data if self.is_sparse else self.transition
            if self.is_sparse:
                pairs = np.repeat(np.arange(self.transition.n_rows), np.diff(self.transition.indptr))
                allowed = self.action_mask.reshape(-1)[pairs % (self.n_states * self.n_actions)]
            else:
                allowed = self.action_mask[..., np.newaxis]
            seen = self.outcome_reward[(weights > 0) & allowed]
            return float(seen.min()), float(seen.max())
        if self.reward_law == "bernoulli":
            return 0.0, 1.0
        noise = 0.0 if self.reward_noise is None else self.reward_noise
        allowed = np.broadcast_to(self.action_mask, self.reward.shape)
        return float((self.reward - noise)[allowed].min()), float((self.reward + noise)[allowed].max())

    # -- start ---------------------------------------------------------------------------------------------------

    def _set_initial(self, initial: Any) -> None:
        if initial is None or np.ndim(initial) == 0:
            state = require_int(0 if initial is None else initial, 0, "initial")
            if state >= self.n_states:
                raise ValueError(f"initial = {state} is not a state (0 to {self.n_states - 1})")
            initial = np.zeros(self.n_states)
            initial[state] = 1.0
        initial = frozen(initial, np.float64, "initial")
        if initial.shape != (self.n_states,):
            raise ValueError(f"initial has shape {initial.shape}, not ({self.n_states},)")
        require_distribution(initial, "initial")
        self._put(initial=initial)

    # -- the same model with one thing changed -------------------------------------------------------------------

    def with_reward(
        self,
        reward: ArrayLike | None = None,
        *,
        outcome_reward: ArrayLike | None = None,
        reward_law: RewardLaw | None = None,
        reward_noise: ArrayLike | None = None,
        reward_range: tuple[float, float] | None = None,
    ) -> Self:
        """The same dynamics under another reward; the transitions are shared, not copied or checked again."""
        new = self._copy()
        new._set_reward(reward, outcome_reward, reward_law, reward_noise, reward_range)
        return new

    def with_initial(self, initial: ArrayLike | int) -> Self:
        """The same model from another start: a state number or a distribution (S,)."""
        new = self._copy()
        new._set_initial(initial)
        return new

    def renamed(self, name: str) -> Self:
        """The same model under another name."""
        new = self._copy()
        new._put(name=str(name))
        return new

    def to_dense(self) -> Self:
        """The same model with dense transitions."""
        return self if not self.is_sparse else self._restored(self.transition.to_dense(), self._outcome_as(dense=True))

    def to_sparse(self) -> Self:
        """The same model with sparse transitions."""
        if self.is_sparse:
            return self
        return self._restored(SparseTransition.from_dense(self.transition), self._outcome_as(dense=False))

    def _restored(self, transition: Any, outcome: Any) -> Self:
        if isinstance(transition, np.ndarray):
            transition.flags.writeable = False
        new = self._copy()
        new._put(transition=transition, outcome_reward=outcome)
        return new

    def _outcome_as(self, dense: bool) -> Any:
        if self.outcome_reward is None:
            return None
        if dense:
            rows = self.transition
            table = np.zeros((rows.n_rows, self.n_states))
            table[np.repeat(np.arange(rows.n_rows), np.diff(rows.indptr)), rows.indices] = self.outcome_reward
            table = table.reshape((-1, self.n_states, self.n_actions, self.n_states))
            table = table if rows.staged else table[0]
        else:
            table = self.outcome_reward[self.transition != 0]
        table.flags.writeable = False
        return table

    # -- identity ------------------------------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        return {
            "kind": type(self).__name__,
            "staged": self.staged_transition,
            "reward_law": self.reward_law,
            "reward_range": self.reward_range and list(self.reward_range),
            "state_labels": self.state_labels and list(self.state_labels),
            "action_labels": self.action_labels and list(self.action_labels),
        }

    def _arrays(self) -> dict[str, NDArray | None]:
        arrays = {"reward": self.reward, "initial": self.initial, "action_mask": self.action_mask}
        arrays |= {"outcome_reward": self.outcome_reward, "reward_noise": self.reward_noise}
        if self.is_sparse:
            rows = self.transition
            return arrays | {"indptr": rows.indptr, "indices": rows.indices, "data": rows.data}
        return arrays | {"transition": self.transition}

    def __eq__(self, other: object) -> bool:
        """Exact equality of arrays and settings; the name does not count."""
        if not isinstance(other, Model):
            return NotImplemented
        mine, theirs = self._arrays(), other._arrays()
        return (
            self._settings() == other._settings()
            and mine.keys() == theirs.keys()
            and all(
                (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b, equal_nan=True))
                for a, b in ((mine[k], theirs[k]) for k in mine)
            )
        )

    def __hash__(self) -> int:
        # Coarser than equality on purpose: 0.0 == -0.0, but their digests differ.
        return hash((type(self).__name__, self.n_states, self.n_actions, self.reward_law))

    def digest(self) -> str:
        """SHA-256 of the arrays and settings (not of the name), as a hexadecimal string."""
        code = hashlib.sha256(json.dumps(self._settings(), sort_keys=True).encode())
        for name, array in sorted(self._arrays().items()):
            if array is not None:
                code.update(f"{name}{array.dtype.str}{array.shape}".encode())
                code.update(np.ascontiguousarray(array).data)
        return code.hexdigest()

    def _describe(self) -> str:
        storage = "sparse" if self.is_sparse else "dense"
        title = f"{self.name!r}, " if self.name else ""
        return f"{title}n_states={self.n_states}, n_actions={self.n_actions}, {storage}"


def _mask(mask: Any, n_states: int, n_actions: int) -> NDArray[np.bool_]:
    if mask is None:
        mask = np.ones((n_states, n_actions), bool)
    mask = np.array(mask)
    if mask.dtype != bool:
        raise ValueError(f"action_mask must be boolean, not {mask.dtype}")
    if mask.shape != (n_states, n_actions):
        raise ValueError(f"action_mask has shape {mask.shape}, not ({n_states}, {n_actions})")
    if not mask.any(axis=1).all():
        raise ValueError(f"action_mask allows no action in state {int(np.argmin(mask.any(axis=1)))}")
    mask.flags.writeable = False
    return mask


def _is_scipy_sparse(value: Any) -> bool:
    return hasattr(value, "tocsr") and hasattr(value, "nnz")
