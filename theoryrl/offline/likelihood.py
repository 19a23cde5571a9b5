"""Model-based learning by maximum likelihood in a finite list of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp._checks import Sealed, sealed
from theoryrl.mdp.dataset import Dataset
from theoryrl.mdp.model import FiniteHorizonMDP, require_model
from theoryrl.mdp.planning import Plan, backward_induction
from theoryrl.mdp.rounding import U
from theoryrl.offline._data import require_data


@dataclass(frozen=True, eq=False, repr=False)
class Likelihood(Sealed):
    """The most likely model of every layer.

    Attributes
    ----------
    members : (H,) int64
        Which model of the list each layer was taken from; the lowest-numbered of equally likely ones.
    log_likelihood : (nM, H) float64
        Of the rewards and successors of every layer given its pairs; -inf where the model rules out a row.
    model : FiniteHorizonMDP
        The layers put together.
    plan : Plan
        Its optimal plan.
    """

    members: NDArray[np.int64]
    log_likelihood: NDArray[np.float64]
    model: FiniteHorizonMDP
    plan: Plan

    def __repr__(self) -> str:
        return f"Likelihood(members={self.members.tolist()} of {len(self.log_likelihood)})"


def maximum_likelihood(data: Dataset, models: Sequence[FiniteHorizonMDP]) -> Likelihood:
    """The model of a finite list that makes each layer's rewards and successors most likely, and its optimal plan.

    M_h = argmax_{M in list} sum over the rows of layer h of log P^M_h(s' | s, a) p^M_h(r | s, a, s')

    Rewards count by their law: an exact match for deterministic and outcome rewards, the probability of Bernoulli ones,
    the density of uniform ones. A uniform reward without noise is an atom: where a row hits that of one model, the
    densities of the others are 0.

    Parameters
    ----------
    data : Dataset
    models : sequence of FiniteHorizonMDP
        Of the data's sizes, all with the same action mask, law of rewards, range and start; the plan starts there.

    Returns
    -------
    Likelihood

    Raises
    ------
    ValueError
        If the list is empty or its models differ in what they must share, or if every model rules out some row of a
        layer; the layer is named.

    Notes
    -----
    The guarantee (docs/theory/fqi.md) needs only that the truth is in the list, layer by layer. A list of one model per
    hypothesis is not enlarged by mixing layers in the union bound.
    """
    require_data(data)
    models = tuple(models)
    if not models:
        raise ValueError("models is empty")
    for i, model in enumerate(models):
        require_model(model, FiniteHorizonMDP)
        _same(models[0], model, i, data)
    atoms = np.zeros(len(data), bool)
    if models[0].reward_law == "uniform":
        for model in models:
            mean, half = _uniform(data, model.to_dense())
            atoms |= (half == 0) & (data.reward == mean)
    score = np.stack([_score(data, model, atoms) for model in models])
    members = score.argmax(axis=0)
    ruled_out = np.isneginf(score.max(axis=0))
    if ruled_out.any():
        raise ValueError(f"every model rules out some row of layer {int(np.argmax(ruled_out))}")
    mixed = _mixed(models, members)
    return Likelihood(sealed(members), sealed(score), mixed, backward_induction(mixed))


def _same(first: FiniteHorizonMDP, model: FiniteHorizonMDP, i: int, data: Dataset) -> None:
    sizes = data.horizon, data.n_states, data.n_actions
    mine = model.horizon, model.n_states, model.n_actions
    if mine != sizes:
        raise ValueError(f"models[{i}] has (H, S, A) = {mine}, the data {sizes}")
    for name in ("reward_law", "reward_range"):
        if getattr(model, name) != getattr(first, name):
            raise ValueError(f"models[{i}] has {name} = {getattr(model, name)!r}, models[0] {getattr(first, name)!r}")
    for name in ("action_mask", "initial"):
        if not np.array_equal(getattr(model, name), getattr(first, name)):
            raise ValueError(f"models[{i}] has another {name} than models[0]")


def _uniform(data: Dataset, dense: FiniteHorizonMDP) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and half-width of the reward of every row, under a dense model with uniform rewards."""
    noise = np.asarray(dense.reward_noise)
    noise = noise if noise.ndim == 3 else noise[np.newaxis]
    at = data.state, data.action
    return dense.reward_layers[data.step % len(dense.reward_layers), *at], noise[data.step % len(noise), *at]


def _score(data: Dataset, model: FiniteHorizonMDP, atoms: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Log-likelihood of every layer's rows, (H,); `atoms` are rows whose reward some model of the list is sure of."""
    dense = model.to_dense()
    at = data.state, data.action

    def layer(table: NDArray, axes: int) -> NDArray:
        return data.step if table.ndim == axes + 1 else np.zeros_like(data.step)

    chance = dense.transition_layers
    p = chance[data.step % len(chance), *at, data.next_state]
    mean = dense.reward_layers[data.step % len(dense.reward_layers), *at]
    if model.reward_law == "bernoulli":
        likely = np.where(data.reward == 1.0, mean, np.where(data.reward == 0.0, 1.0 - mean, 0.0))
    elif model.reward_law == "uniform":
        half = _uniform(data, dense)[1]
        # The sum of mean and noise is rounded when a reward is drawn, and their difference here.
        inside = np.abs(data.reward - mean) <= np.where(half > 0, half + 4 * U * (np.abs(mean) + half), 0.0)
        with np.errstate(divide="ignore"):
            likely = np.where(inside, np.where(half > 0, np.where(atoms, 0.0, 0.5 / half), 1.0), 0.0)
    elif model.reward_law == "outcome":
        paid = np.asarray(dense.outcome_reward)
        wanted = (paid if paid.ndim == 4 else paid[np.newaxis])[layer(paid, 3), *at, data.next_state]
        likely = (data.reward == wanted).astype(float)
    else:
        likely = (data.reward == mean).astype(float)
    allowed = model.action_mask[at]
    with np.errstate(divide="ignore"):
        each = np.where(allowed, np.log(p) + np.log(likely), -np.inf)
    return np.asarray(np.bincount(data.step, weights=each, minlength=data.horizon), np.float64)


def _mixed(models: tuple[FiniteHorizonMDP, ...], members: NDArray[np.int64]) -> FiniteHorizonMDP:
    """The model whose layer h is that of `models[members[h]]`, with mean rewards."""
    dense = [model.to_dense() for model in models]
    transition = np.stack(
        [dense[m].transition_layers[h % len(dense[m].transition_layers)] for h, m in enumerate(members)]
    )
    reward = np.stack([dense[m].reward_layers[h % len(dense[m].reward_layers)] for h, m in enumerate(members)])
    first = models[0]
    return FiniteHorizonMDP(
        transition,
        reward,
        horizon=first.horizon,
        initial=first.initial,
        action_mask=first.action_mask,
        reward_range=first.reward_range,
        name="most likely layers",
    )
