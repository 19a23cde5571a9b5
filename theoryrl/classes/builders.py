"""Classes built from a model, which contain its optimal action values or are closed under its backups."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.classes import _distractors as distractors
from theoryrl.classes.backups import Backups
from theoryrl.classes.linear import LinearClass
from theoryrl.classes.values import FiniteClass, ProductClass, best
from theoryrl.classes.weights import WeightClass
from theoryrl.mdp._checks import entry, first, frozen, require_int
from theoryrl.mdp.model import FiniteHorizonMDP, require_model
from theoryrl.mdp.planning import backward_induction
from theoryrl.mdp.randomness import Rng, as_generator

C = TypeVar("C", FiniteClass, ProductClass, WeightClass, LinearClass)


def optimal_values(mdp: FiniteHorizonMDP) -> NDArray[np.float64]:
    """Q* as a table (H, S, A), 0 at forbidden pairs."""
    return np.where(mdp.action_mask, backward_induction(mdp).q, 0.0)


def realizable_class(
    mdp: FiniteHorizonMDP,
    n_distractors: int = 8,
    *,
    kind: str = "consistent",
    ceiling: ArrayLike | None = None,
    rng: Rng = 0,
) -> FiniteClass:
    """A class with Q* as member 0, followed by distractors that are hard in a stated way.

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    n_distractors : int
    kind : {"consistent", "optimistic", "bad-policy", "random"}
        What is true of every distractor f (J is the expected return, J* the optimal one, V_f the largest action value):

        - "consistent": f = T f at every layer but one. There one reachable suboptimal pair is valued too high and is
          greedy: f >= Q* everywhere, E V_f(s_0) > J*, and J(greedy f) < J*. Only data at that pair exposes it.
        - "optimistic": f >= Q* everywhere and E V_f(s_0) > J*; each excess is uniform between 0 and the ceiling.
        - "bad-policy": V_f = V* in every state and layer, yet J(greedy f) < J*: in a random set of states the values
          of a best and of a worst action are exchanged. Optimism cannot tell it from Q*.
        - "random": independent uniform values between (H - h) low and the ceiling; nothing more.
    ceiling : float or (H,) array, optional
        The largest value a distractor may take at each layer, in units of reward; default (H - h) high, for rewards
        in [low, high]. Where returns lie in [0, 1], `ceiling=1` keeps all members there.
    rng : int, SeedSequence or Generator

    Returns
    -------
    FiniteClass
        n_distractors + 1 members; 0 at forbidden pairs.

    Raises
    ------
    ValueError
        A kind that the model does not allow (no reachable action is suboptimal, or none can be raised below the
        ceiling), or a ceiling below Q*; the entry is named.
    """
    require_model(mdp, FiniteHorizonMDP)
    generator = as_generator(rng)
    frame = distractors.frame_of(mdp, ceiling)
    members = distractors.make(frame, kind, require_int(n_distractors, 0, "n_distractors"), generator)
    return FiniteClass(np.concatenate([frame.q[np.newaxis], members]))


def complete_class(
    mdp: FiniteHorizonMDP, n_distractors: int = 2, rng: Rng = 0, *, kind: str = "random"
) -> ProductClass:
    """A product class that is closed under the Bellman operator: T_h f is in F_h for every f in F_{h+1}.

    F_{H-1} = {r_{H-1}} + distractors,   F_h = {T_h g : g in F_{h+1}} + distractors

    So |F_h| is (H - h) n_distractors + 1 (fewer where a layer has no distractor of the kind), member 0 of every layer
    is Q*_h, and members 0..|F_{h+1}|-1 of layer h are the images of layer h + 1 in order.

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    n_distractors : int
        Added to every layer.
    rng : int, SeedSequence or Generator
    kind : {"random", "consistent"}
        "random": independent uniform values between (H - h) low and (H - h) high. "consistent": Q*_h with one
        reachable suboptimal pair raised above V*_h, so that with its images it is a function without a Bellman residual
        at any other layer; a layer where no reachable action is suboptimal gets none.

    Returns
    -------
    ProductClass

    Raises
    ------
    ValueError
        An unknown kind.
    """
    require_model(mdp, FiniteHorizonMDP)
    if kind not in ("random", "consistent"):
        raise ValueError(f"kind must be 'random' or 'consistent', not {kind!r}")
    n_distractors, generator = require_int(n_distractors, 0, "n_distractors"), as_generator(rng)
    frame = distractors.frame_of(mdp, None)
    layers: list[NDArray[np.float64]] = []
    values = np.zeros((1, mdp.n_states))
    for h in reversed(range(mdp.horizon)):
        images = frame.backups.apply(h, values)
        if kind == "random":
            fresh = distractors.uniform_layer(frame, h, n_distractors, generator)
        else:
            fresh = distractors.raised_layer(frame, h, n_distractors, generator)
        layers.append(np.concatenate([images, fresh]))
        values = best(layers[-1], mdp.action_mask)
    return ProductClass(layers[::-1])


def bellman_closure(cls: ProductClass, mdp: FiniteHorizonMDP) -> ProductClass:
    """The smallest product class that contains a given one and is closed under the Bellman operator.

    C_{H-1} = F_{H-1} + {r_{H-1}},   C_h = F_h + {T_h g : g in C_{h+1}}

    Parameters
    ----------
    cls : ProductClass
        F.
    mdp : FiniteHorizonMDP

    Returns
    -------
    ProductClass
        The members of F first and in order, then the images that are not among them (equal within 1e-12 of the largest
        value, over allowed pairs).

    Raises
    ------
    ValueError
        If the class is for another H, S or A.
    """
    require_model(mdp, FiniteHorizonMDP)
    cls.require_fits(mdp)
    backups, mask = Backups(mdp), mdp.action_mask
    layers: list[NDArray[np.float64]] = []
    values = np.zeros((1, mdp.n_states))
    for h in reversed(range(mdp.horizon)):
        members = cls.layers[h]
        for image in backups.apply(h, values):
            off = np.abs(np.where(mask, members - image, 0.0)).max(axis=(1, 2))
            if not off.min() <= 1e-12 * max(1.0, float(np.abs(image).max())):
                members = np.concatenate([members, image[np.newaxis]])
        layers.append(members)
        values = best(members, mask)
    return ProductClass(layers[::-1])


def model_class(mdps: Sequence[FiniteHorizonMDP]) -> FiniteClass:
    """The optimal action values of several models of one size; realizable for each of them.

    Parameters
    ----------
    mdps : sequence of FiniteHorizonMDP
        With the same H, S and A.

    Returns
    -------
    FiniteClass
        Member i is Q* of `mdps[i]`; 0 at pairs that this model forbids.

    Raises
    ------
    ValueError
        No model, or models of different sizes.
    """
    models = list(mdps)
    if not models:
        raise ValueError("mdps is empty")
    for i, mdp in enumerate(models):
        require_model(mdp, FiniteHorizonMDP)
        mine = mdp.horizon, mdp.n_states, mdp.n_actions
        wanted = models[0].horizon, models[0].n_states, models[0].n_actions
        if mine != wanted:
            raise ValueError(f"mdps[{i}] has (H, S, A) = {mine}, mdps[0] has {wanted}")
    return FiniteClass(np.stack([optimal_values(mdp) for mdp in models]))


def decoder_lift(cls: C, decoder: ArrayLike) -> C:
    """A class of functions of the hidden state as one of functions of the observation, f(h, decoder[x], a).

    A class that is realizable or complete for a model is so for its block MDP, and for its product with exogenous
    noise: T of a function of the decoded state is the lift of T of that function.

    Parameters
    ----------
    cls : FiniteClass, ProductClass, WeightClass or LinearClass
        Over S states.
    decoder : (X,) integers
        The hidden state, 0 to S - 1, of every observation x.

    Returns
    -------
    the same kind of class, over X states

    Raises
    ------
    ValueError
        A decoded state that the class does not have; the entry is named.
    """
    if not isinstance(cls, (FiniteClass, ProductClass, WeightClass, LinearClass)):
        raise TypeError(f"cannot lift a {type(cls).__name__}")
    hidden = frozen(decoder, np.int64, "decoder")
    if hidden.ndim != 1 or hidden.size == 0:
        raise ValueError(f"decoder has shape {hidden.shape}, not (X,)")
    wrong = (hidden < 0) | (hidden >= cls.n_states)
    if wrong.any():
        place = first(wrong)
        raise ValueError(f"{entry('decoder', place)} = {hidden[place]} is not a state (0 to {cls.n_states - 1})")
    new: Any
    if isinstance(cls, ProductClass):
        new = ProductClass([layer[:, hidden] for layer in cls.layers])
    elif isinstance(cls, LinearClass):
        new = dataclasses.replace(cls, features=cls.features[..., hidden, :, :])
    else:
        new = dataclasses.replace(cls, values=cls.values[:, :, hidden])
    return new
