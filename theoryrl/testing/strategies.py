"""Hypothesis strategies. They shrink to two states, one action, horizon 1, uniform rows and rewards at the lower bound.

The values are adversarial on purpose: exact ties, zero and tiny probabilities, deterministic rows, rewards at both ends
of their range, explicit zeros in sparse rows, forbidden pairs whose rows hold nonsense that nobody may read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp.dataset import Dataset
from theoryrl.mdp.model import REWARD_LAWS, DiscountedMDP, FiniteHorizonMDP
from theoryrl.mdp.policy import MixturePolicy
from theoryrl.mdp.transitions import SparseTransition

try:
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as hnp
except ImportError as error:
    raise ImportError("theoryrl.testing needs hypothesis: pip install theoryrl[testing]") from error

_NONSENSE = 7.0


@st.composite
def mdps(
    draw: Any,
    max_states: int = 4,
    max_actions: int = 3,
    max_horizon: int = 4,
    *,
    staged: bool | None = None,
    sparse: bool | None = None,
    masked: bool | None = None,
    reward_laws: tuple[str, ...] | None = None,
    reward_bounds: tuple[float, float] = (0.0, 1.0),
) -> FiniteHorizonMDP:
    """Small finite-horizon models of every kind.

    Parameters
    ----------
    max_states, max_actions, max_horizon : int
        Largest sizes, at least 1; every smaller one occurs as well, a single state included.
    staged, sparse, masked : bool, optional
        Whether transitions have a layer axis, are stored sparse, and some action is forbidden (at least one, and then
        there are two actions or more); default both ways.
    reward_laws : tuple of {"deterministic", "bernoulli", "uniform", "outcome"}, optional
        Default all of them ("bernoulli" only if `reward_bounds` lie in [0, 1]).
    reward_bounds : (low, high)
        Range of the sampled rewards.

    Returns
    -------
    strategy of FiniteHorizonMDP
    """
    horizon = draw(st.integers(1, max_horizon))
    arguments = draw(_arguments(max_states, max_actions, horizon, staged, sparse, masked, reward_laws, reward_bounds))
    return FiniteHorizonMDP(**arguments, horizon=horizon)


@st.composite
def discounted_mdps(
    draw: Any,
    max_states: int = 4,
    max_actions: int = 3,
    max_discount: float = 0.95,
    *,
    sparse: bool | None = None,
    masked: bool | None = None,
    reward_laws: tuple[str, ...] | None = None,
    reward_bounds: tuple[float, float] = (0.0, 1.0),
) -> DiscountedMDP:
    """Small discounted models; the discount lies in [0, max_discount], other parameters as in `mdps`."""
    arguments = draw(_arguments(max_states, max_actions, 1, False, sparse, masked, reward_laws, reward_bounds))
    discount = draw(st.sampled_from((0.0, max_discount / 2, max_discount)) | st.floats(0, max_discount))
    return DiscountedMDP(**arguments, discount=discount)


@st.composite
def policies(
    draw: Any, mdp: FiniteHorizonMDP | DiscountedMDP, kind: str | None = None, *, staged: bool | None = None
) -> Any:
    """Policies of a model: integer arrays, probability arrays, or mixtures of both.

    Parameters
    ----------
    mdp : FiniteHorizonMDP or DiscountedMDP
    kind : {"deterministic", "stochastic", "mixture"}, optional
        Default "deterministic" or "stochastic", the two kinds of arrays.
    staged : bool, optional
        Whether the policy has a layer axis (finite horizon only); default both ways.

    Returns
    -------
    strategy of int64 (S,) or (H, S), float64 (S, A) or (H, S, A), or MixturePolicy
        They choose allowed actions only. Shrinks to the lowest-numbered allowed action, or the uniform policy.
    """
    kind = draw(st.sampled_from(("deterministic", "stochastic"))) if kind is None else kind
    if kind == "mixture":
        parts = draw(st.lists(policies(mdp, staged=staged), min_size=1, max_size=3))
        return MixturePolicy(parts, draw(_distributions((len(parts),))))
    if kind not in ("deterministic", "stochastic"):
        raise ValueError(f"kind must be 'deterministic', 'stochastic' or 'mixture', not {kind!r}")
    lead = draw(_layers(mdp, staged))
    if kind == "stochastic":
        return draw(_distributions((*lead, mdp.n_states, mdp.n_actions), mdp.action_mask))
    rank = draw(_integers((*lead, mdp.n_states), mdp.n_actions - 1)) % mdp.action_mask.sum(axis=1)
    # The rank-th allowed action of every state.
    order = np.argsort(~mdp.action_mask, axis=1, kind="stable")
    return np.ascontiguousarray(order[np.arange(mdp.n_states), rank])


@st.composite
def rewards(
    draw: Any,
    mdp: FiniteHorizonMDP | DiscountedMDP,
    reward_bounds: tuple[float, float] = (0.0, 1.0),
    *,
    staged: bool | None = None,
) -> NDArray[np.float64]:
    """Mean rewards that fit a model, (S, A) or (H, S, A), within `reward_bounds`; many ties."""
    lead = draw(_layers(mdp, staged))
    return draw(_tables((*lead, mdp.n_states, mdp.n_actions), *reward_bounds))


@st.composite
def datasets(draw: Any, mdp: FiniteHorizonMDP, max_episodes: int = 4) -> Dataset:
    """Data that `mdp` can produce: 1 to `max_episodes` whole episodes of allowed actions.

    States, actions and rewards are any that have positive probability, not samples in proportion to it. Shrinks to one
    episode through the lowest-numbered states and actions.
    """
    columns: dict[str, list[Any]] = {name: [] for name in Dataset.COLUMNS}
    for episode in range(draw(st.integers(1, max_episodes))):
        state = draw(_support(mdp.initial))
        for h in range(mdp.horizon):
            action = draw(st.sampled_from(np.flatnonzero(mdp.action_mask[state]).tolist()))
            weights, outcomes = _row(mdp, h, state, action)
            after = draw(_support(weights))
            reward = outcomes[after] if mdp.reward_law == "outcome" else draw(_sampled_rewards(mdp, h, state, action))
            for column, value in zip(columns.values(), (episode, h, state, action, reward, after), strict=True):
                column.append(value)
            state = after
    return Dataset.from_columns(columns, n_states=mdp.n_states, n_actions=mdp.n_actions, horizon=mdp.horizon)


def _support(weights: NDArray[np.float64]) -> Any:
    return st.sampled_from(np.flatnonzero(weights > 0).tolist())


def _row(mdp: FiniteHorizonMDP, h: int, s: int, a: int) -> tuple[NDArray[np.float64], Any]:
    dense = mdp.to_dense()
    place = (h, s, a) if dense.staged_transition else (s, a)
    return dense.transition[place], None if dense.outcome_reward is None else dense.outcome_reward[place]


def _sampled_rewards(mdp: FiniteHorizonMDP, h: int, s: int, a: int) -> Any:
    """Rewards that (s, a) can pay at layer h, unless they depend on the successor."""
    place = (h, s, a) if mdp.reward.ndim == 3 else (s, a)
    mean = float(mdp.reward[place])
    if mdp.reward_law == "bernoulli":
        return st.sampled_from([0.0] * (mean < 1) + [1.0] * (mean > 0))
    noise = float(mdp.reward_noise[place]) if mdp.reward_law == "uniform" else 0.0
    return st.sampled_from((mean, mean - noise, mean + noise)) if noise else st.just(mean)


def _layers(mdp: FiniteHorizonMDP | DiscountedMDP, staged: bool | None) -> Any:
    """The leading axes of a table: none or (H,)."""
    if not isinstance(mdp, FiniteHorizonMDP):
        if staged:
            raise ValueError("tables of a DiscountedMDP have no layer axis")
        return st.just(())
    return st.sampled_from([()] * (not staged) + [(mdp.horizon,)] * (staged is not False))


@st.composite
def _arguments(
    draw: Any,
    max_states: int,
    max_actions: int,
    horizon: int,
    staged: bool | None,
    sparse: bool | None,
    masked: bool | None,
    reward_laws: tuple[str, ...] | None,
    bounds: tuple[float, float],
) -> dict[str, Any]:
    """Constructor arguments of either model."""
    # The first choice is what hypothesis shrinks to: two states, not the trivial one.
    n_states = draw(st.sampled_from([*range(2, max_states + 1), 1]))
    n_actions = draw(st.integers(2 if masked else 1, max(max_actions, 2 if masked else 1)))
    maybe = st.booleans()
    staged_rows = draw(maybe) if staged is None else staged
    staged_reward = staged is not False and draw(maybe)
    mask = draw(_masks(n_states, n_actions, masked))
    shape = ((horizon,) if staged_rows else ()) + (n_states, n_actions, n_states)
    transition = draw(_distributions(shape))
    transition[..., ~mask, :] = draw(st.sampled_from((0.0, _NONSENSE)))
    laws = reward_laws or tuple(law for law in REWARD_LAWS if law != "bernoulli" or 0 <= bounds[0] <= bounds[1] <= 1)
    law = draw(st.sampled_from(laws))
    arguments: dict[str, Any] = {"action_mask": mask, "initial": draw(st.just(0) | _distributions((n_states,)))}
    if law == "outcome":
        arguments["outcome_reward"] = draw(_tables(shape, *bounds))
    else:
        lead = (horizon,) if staged_reward else ()
        reward = draw(_tables((*lead, n_states, n_actions), *bounds))
        arguments |= {"reward": reward, "reward_law": law}
        if law == "uniform":
            room = np.minimum(reward - bounds[0], bounds[1] - reward)
            arguments["reward_noise"] = room * draw(st.sampled_from((0.0, 0.5, 1.0)))
    if draw(maybe) if sparse is None else sparse:
        keep = np.ones(shape, bool) if draw(maybe) else transition != 0  # with or without explicit zeros
        count = keep.reshape(-1, n_states).sum(axis=1)
        arguments["transition"] = SparseTransition(
            np.concatenate([[0], np.cumsum(count)]),
            np.nonzero(keep)[-1].astype(np.uint32),
            transition[keep],
            n_states,
            n_actions,
            horizon if staged_rows else 1,
            staged_rows,
        )
        if law == "outcome":
            arguments["outcome_reward"] = arguments["outcome_reward"][keep]
    else:
        arguments["transition"] = transition
    return arguments


@st.composite
def _masks(draw: Any, n_states: int, n_actions: int, masked: bool | None) -> NDArray[np.bool_]:
    mask = np.ones((n_states, n_actions), bool)
    if masked is False or n_actions == 1 or (masked is None and not draw(st.booleans())):
        return mask
    mask = ~draw(hnp.arrays(np.bool_, mask.shape))
    mask[~mask.any(axis=1)] = True
    if masked and mask.all():
        mask[0, draw(st.integers(0, n_actions - 1))] = False
    return mask


@st.composite
def _distributions(draw: Any, shape: tuple[int, ...], mask: Any = True) -> NDArray[np.float64]:
    """Rows of probabilities along the last axis, zero outside `mask`; shrinks to uniform rows."""
    weights = st.sampled_from((0.0, 1.0, 2.0, 3.0, 1e-12))
    table = draw(hnp.arrays(np.float64, shape, elements=weights, fill=draw(st.sampled_from((st.just(0.0), weights)))))
    table = np.where(mask, table, 0.0)
    empty = table.sum(axis=-1) == 0
    table[empty] = np.broadcast_to(mask, shape)[empty]
    return table / table.sum(axis=-1, keepdims=True)


def _tables(shape: tuple[int, ...], low: float, high: float) -> Any:
    """Numbers in [low, high], mostly from a few that tie."""
    middle = low + (high - low) / 2
    return hnp.arrays(
        np.float64, shape, elements=st.sampled_from((low, high, middle)) | st.floats(low, high), fill=st.just(low)
    )


def _integers(shape: tuple[int, ...], high: int) -> Any:
    return hnp.arrays(np.int64, shape, elements=st.integers(0, high))
