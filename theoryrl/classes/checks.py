"""Checks of what theorems assume about a class: realizability, completeness, closure under a policy's backup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.classes import _linear_checks as linear
from theoryrl.classes._nearest import Gap, nearest, widest
from theoryrl.classes.backups import Backups
from theoryrl.classes.builders import optimal_values
from theoryrl.classes.linear import LinearClass
from theoryrl.classes.values import FiniteClass, ProductClass, TabularClass, best
from theoryrl.classes.weights import WeightClass, ratio_class
from theoryrl.mdp.model import FiniteHorizonMDP, require_model
from theoryrl.mdp.policy import stochastic_layers
from theoryrl.mdp.randomness import Rng

ValueClass = FiniteClass | ProductClass | TabularClass | LinearClass
TOLERANCE = 1e-9


@dataclass(frozen=True)
class ClassCheck:
    """Whether a class has a property, and where it is farthest from having it.

    Attributes
    ----------
    what : str
        The property that was checked.
    holds : bool
        `violation <= tolerance`. Also the truth value of the record.
    violation : float
        The largest distance, over the functions that should be in the class, to the nearest one that is, in the
        sup norm over allowed pairs, in units of reward.
    tolerance : float
        What counts as rounding.
    exact : bool
        Whether every function was tried. If not, `holds` says only that none of those tried was missing, while a
        violation found is a fact.
    layer : int
        Where the distance is attained.
    member : int or None
        Realizability: the nearest member (of the layer, in a product). Completeness: the member of layer + 1 whose
        image is missing. None where members have no number (a table, linear functions, the zero function of layer H).
    pair : (s, a) or None
        Where the missing function and the nearest member differ most.
    """

    what: str
    holds: bool
    violation: float
    tolerance: float
    exact: bool
    layer: int
    member: int | None
    pair: tuple[int, int] | None

    def __bool__(self) -> bool:
        return self.holds

    @property
    def message(self) -> str:
        """One line that says what was found."""
        if self.holds:
            return f"{self.what}: holds within {self.tolerance:.3g}{'' if self.exact else ' where sampled'}"
        member = "" if self.member is None else f", member {self.member}"
        pair = "" if self.pair is None else f", at (s, a) = {self.pair}"
        return f"{self.what}: fails by {self.violation:.6g} at layer {self.layer}{member}{pair}"

    def require(self) -> None:
        """Raise ValueError with the message unless the property holds."""
        if not self.holds:
            raise ValueError(self.message)


def realizability(cls: ValueClass, mdp: FiniteHorizonMDP, *, tolerance: float | None = None) -> ClassCheck:
    """Whether Q* is a member.

    min_{f in F} max_{h, s, a} |f_h(s, a) - Q*_h(s, a)|, over allowed pairs

    Parameters
    ----------
    cls : FiniteClass, ProductClass, TabularClass or LinearClass
        Of a LinearClass the distance is that of the least-squares fit of each layer: 0 if and only if Q* is linear,
        and at least the smallest distance.
    mdp : FiniteHorizonMDP
    tolerance : float, optional
        Default 1e-9 times the largest of 1 and the absolute values of Q*.

    Returns
    -------
    ClassCheck
        Always exact.

    Raises
    ------
    ValueError
        If the class is for another H, S or A.
    """
    _require(cls, mdp)
    target = optimal_values(mdp)
    mask = mdp.action_mask
    if isinstance(cls, FiniteClass):
        member, spread = nearest(target[np.newaxis], cls.values, mask)
        off = np.where(mask, np.abs(cls.values[member[0]] - target), 0.0)
        layer, s, a = (int(i) for i in np.unravel_index(off.argmax(), off.shape))
        gap = Gap(float(spread[0]), layer, int(member[0]), (s, a))
    elif isinstance(cls, ProductClass):
        gap = widest(_missing(target[h][np.newaxis], cls.layers[h], mask, h, of_target=False) for h in _layers(mdp))
    elif isinstance(cls, TabularClass):
        gap = widest(_outside(target[h], cls.bounds[h], mask, h) for h in _layers(mdp))
    else:
        gap = widest(linear.residual(target[h][np.newaxis], cls.at(h), mask, h) for h in _layers(mdp))
    return _check("realizability (Q* in F)", gap, tolerance, target)


def completeness(
    cls: ValueClass,
    mdp: FiniteHorizonMDP,
    *,
    into: ProductClass | FiniteClass | None = None,
    tolerance: float | None = None,
    samples: int = 200,
    rng: Rng = 0,
) -> ClassCheck:
    """Whether the layers are closed under the Bellman operator: T_h f_{h+1} is in F_h (or in G_h) for every f in F.

    max_{h, f in F_{h+1}} min_{g in F_h} max_{s, a} |T_h f(s, a) - g(s, a)|, over allowed pairs, with F_H = {0}

    Parameters
    ----------
    cls : FiniteClass, ProductClass, TabularClass or LinearClass
        Of a FiniteClass the layers are compared: g may belong to another member than f. A LinearClass is complete if
        rewards and transitions are linear in the features, which is decided exactly; otherwise `samples` random
        members (Gaussian weights, scaled so that the largest value is H - h times the largest reward, or times 1 if
        that is larger) are tried.
    mdp : FiniteHorizonMDP
    into : ProductClass or FiniteClass, optional
        G, where the images should lie; default F.
    tolerance : float, optional
        Default 1e-9 times the largest of 1 and the absolute values of the images.
    samples : int
        For a LinearClass.
    rng : int, SeedSequence or Generator
        For the samples.

    Returns
    -------
    ClassCheck

    Raises
    ------
    ValueError
        If the class is for another H, S or A.

    Notes
    -----
    Jin, Liu and Miryoosefi (2021), Bellman eluder dimension, Assumption 2 (completeness) and Assumption 14
    (generalised completeness, `into`).
    """

    def state_values(h: int, members: NDArray[np.float64]) -> NDArray[np.float64]:
        return best(members, mdp.action_mask)

    return _closure("completeness (T F in F)", cls, mdp, state_values, into, tolerance, samples, rng)


def policy_closure(
    cls: ValueClass,
    mdp: FiniteHorizonMDP,
    policy: Any,
    *,
    into: ProductClass | FiniteClass | None = None,
    tolerance: float | None = None,
    samples: int = 200,
    rng: Rng = 0,
) -> ClassCheck:
    """Whether the layers are closed under the backup of a policy: T^pi_h f_{h+1} is in F_h for every f in F.

    T^pi_h f(s, a) = r_h(s, a) + sum_t P_h(t | s, a) sum_b pi_{h+1}(b | t) f(t, b)

    Parameters
    ----------
    cls, mdp, into, tolerance, samples, rng
        As in `completeness`. Of a LinearClass the backup is affine in the weights, so that its d + 1 images of 0 and of
        the unit weights decide exactly and nothing is sampled.
    policy : (S,) or (H, S) actions, or (S, A) or (H, S, A) probabilities

    Returns
    -------
    ClassCheck

    Raises
    ------
    ValueError
        If the class is for another H, S or A, or the policy does not fit.
    """
    _require(cls, mdp)
    choice = stochastic_layers(policy, mdp)

    def state_values(h: int, members: NDArray[np.float64]) -> NDArray[np.float64]:
        weights = choice[h % len(choice)]
        return np.einsum("sa,msa->ms", weights, np.where(weights > 0, members, 0.0))

    return _closure("policy closure (T^pi F in F)", cls, mdp, state_values, into, tolerance, samples, rng, policy=True)


def ratio_realizability(
    cls: WeightClass,
    mdp: FiniteHorizonMDP,
    policies: Sequence[Any],
    *,
    against: Any = "each",
    tolerance: float = TOLERANCE,
) -> ClassCheck:
    """Whether density ratios are members: every d^pi / d^pi', or every d^pi / mu, layer by layer.

    max_{h, ratio v} min_{w in W_h} max_{s, a} |v(s, a) - w(s, a)|, over allowed pairs; infinity matches infinity only

    Parameters
    ----------
    cls : WeightClass
    mdp : FiniteHorizonMDP
    policies, against
        As in `ratio_class`, which numbers the ratios.
    tolerance : float

    Returns
    -------
    ClassCheck
        `member` is the ratio that is missing.

    Raises
    ------
    ValueError
        If the class is for another H, S or A.

    Notes
    -----
    Amortila et al. (2024), Assumptions 2.2 (`against="each"`) and F.4 (an array).
    """
    _require(cls, mdp, WeightClass)
    targets = ratio_class(mdp, policies, against=against).values
    gap = widest(_missing(targets[:, h], cls.values[:, h], mdp.action_mask, h) for h in _layers(mdp))
    return _check("ratio realizability (d / d' in W)", gap, tolerance, np.zeros(1))


def _layers(mdp: FiniteHorizonMDP) -> range:
    return range(mdp.horizon)


def _require(cls: Any, mdp: Any, kinds: Any = ValueClass) -> None:
    require_model(mdp, FiniteHorizonMDP)
    if not isinstance(cls, kinds):
        raise TypeError(f"cannot check a {type(cls).__name__}")
    cls.require_fits(mdp)


def _check(name: str, gap: Gap, tolerance: float | None, scale: NDArray[np.float64], exact: bool = True) -> ClassCheck:
    limit = TOLERANCE * max(1.0, float(np.abs(scale).max())) if tolerance is None else tolerance
    if not limit >= 0:
        raise ValueError(f"tolerance must be at least 0, not {tolerance!r}")
    return ClassCheck(name, gap.distance <= limit, gap.distance, limit, exact, gap.layer, gap.member, gap.pair)


def _missing(
    targets: NDArray[np.float64],
    members: NDArray[np.float64],
    mask: NDArray[np.bool_],
    h: int,
    of_target: bool = True,
) -> Gap:
    """The target of layer h that is farthest from every member."""
    index, spread = nearest(targets[:, np.newaxis], members[:, np.newaxis], mask)
    worst = int(spread.argmax())
    with np.errstate(invalid="ignore"):
        off = np.abs(targets[worst] - members[index[worst]])
    off = np.where(mask & (targets[worst] != members[index[worst]]), off, 0.0)
    s, a = np.unravel_index(int(off.argmax()), off.shape)
    return Gap(float(spread[worst]), h, worst if of_target else int(index[worst]), (int(s), int(a)))


def _outside(target: NDArray[np.float64], bounds: NDArray[np.float64], mask: NDArray[np.bool_], h: int) -> Gap:
    """How far a table is outside an interval."""
    off = np.where(mask, np.maximum(np.maximum(target - bounds[1], bounds[0] - target), 0.0), 0.0)
    s, a = np.unravel_index(int(off.argmax()), off.shape)
    return Gap(float(off.max()), h, None, (int(s), int(a)))


def _closure(
    name: str,
    cls: Any,
    mdp: FiniteHorizonMDP,
    state_values: Callable[[int, NDArray[np.float64]], NDArray[np.float64]],
    into: Any,
    tolerance: float | None,
    samples: int,
    rng: Rng,
    policy: bool = False,
) -> ClassCheck:
    _require(cls, mdp)
    if into is not None:
        _require(into, mdp, ProductClass | FiniteClass)
        if isinstance(cls, (TabularClass, LinearClass)):
            raise TypeError(f"the images of a {type(cls).__name__} cannot all lie in a finite class")
    backups, mask, exact, largest = Backups(mdp), mdp.action_mask, True, 0.0
    if isinstance(cls, LinearClass) and not policy:
        gap, exact = linear.closure(cls, backups, samples, rng)
        return _check(name, gap, tolerance, mdp.reward_layers * mdp.horizon, exact)
    gaps = []
    reward = linear.reward_size(mdp)
    for h in _layers(mdp):
        if h == mdp.horizon - 1:
            values = np.zeros((1, mdp.n_states))
        else:
            values = state_values(h + 1, _members(cls, h + 1, mask, reward))
        images = backups.apply(h, values)
        largest = max(largest, float(np.abs(images).max()))
        if isinstance(cls, TabularClass):
            gaps.append(widest(_outside(image, cls.bounds[h], mask, h) for image in images))
        elif isinstance(cls, LinearClass):
            gaps.append(linear.residual(images, cls.at(h), mask, h))
        else:
            target = cls if into is None else into
            gap = _missing(images, _members(target, h, mask, reward), mask, h)
            gaps.append(gap._replace(member=None) if h == mdp.horizon - 1 else gap)
    return _check(name, widest(gaps), tolerance, np.array(largest), exact)


def _members(cls: Any, h: int, mask: NDArray[np.bool_], reward: float) -> NDArray[np.float64]:
    """Members (m, S, A) of layer h whose images decide: all of a list; the extreme ones of a box; 0 and a basis.

    The basis is made as large as the rewards, so that neither hides the other.
    """
    if isinstance(cls, FiniteClass):
        return cls.values[:, h]
    if isinstance(cls, ProductClass):
        return cls.layers[h]
    if isinstance(cls, TabularClass):
        return np.broadcast_to(cls.bounds[h][:, np.newaxis, np.newaxis], (2, *mask.shape))
    basis = np.where(mask, np.moveaxis(cls.at(h), -1, 0), 0.0)
    return np.concatenate([np.zeros((1, *mask.shape)), linear.resized(basis, reward)])
