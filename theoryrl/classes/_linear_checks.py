from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.classes._nearest import Gap, widest
from theoryrl.classes.backups import Backups
from theoryrl.classes.linear import LinearClass
from theoryrl.classes.values import best
from theoryrl.mdp._checks import require_int
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.randomness import as_generator


def residual(targets: NDArray[np.float64], features: NDArray[np.float64], mask: NDArray[np.bool_], h: int) -> Gap:
    """The target (m, S, A) whose least-squares fit on the allowed pairs is off by most anywhere."""
    phi = features[mask]
    # Weights are free, so the size of a feature is none of the class's; least squares cuts off small ones.
    size = np.abs(phi).max(axis=0)
    phi = phi / np.where(size > 0, size, 1.0)
    wanted = targets[:, mask].T
    fit = np.linalg.lstsq(phi, wanted, rcond=None)[0]
    off = np.abs(phi @ fit - wanted)
    place = int(off.argmax()) // off.shape[1]
    s, a = np.argwhere(mask)[place]
    return Gap(float(off.max()), h, None, (int(s), int(a)))


def reward_size(mdp: FiniteHorizonMDP) -> float:
    """The largest |r_h(s, a)|, at least 1."""
    return max(1.0, float(np.abs(np.where(mdp.action_mask, mdp.reward_layers, 0.0)).max()))


def resized(members: NDArray[np.float64], largest: float) -> NDArray[np.float64]:
    """Members (m, S, A) scaled so that the largest absolute value of each is `largest`; zero stays zero."""
    size = np.abs(members).max(axis=(1, 2), keepdims=True)
    return np.asarray(members / np.where(size > 0, size, 1.0) * largest)


def closure(cls: LinearClass, backups: Backups, samples: int, rng: Any) -> tuple[Gap, bool]:
    """Whether T maps a linear class into itself; and whether that was decided exactly.

    If r_h and P_h(t | . ) are linear for every t (at the last layer: if r is), so is T_h of anything. Otherwise images
    of random members are tried: a residual found refutes, none found decides nothing.
    """
    mdp = backups.mdp
    mask, generator = mdp.action_mask, as_generator(rng)
    nothing, gaps, exact = np.zeros((1, mdp.n_states)), [], True
    reward = reward_size(mdp)
    for h in range(mdp.horizon):
        images = backups.apply(h, nothing)
        gap = residual(images, cls.at(h), mask, h)
        linear = h == mdp.horizon - 1 or residual(backups.probabilities(h), cls.at(h), mask, h).distance <= 1e-10
        if not (linear and gap.distance <= 1e-10 * max(1.0, float(np.abs(images).max()))) and h < mdp.horizon - 1:
            weights = generator.standard_normal((require_int(samples, 1, "samples"), cls.dimension))
            members = np.moveaxis(cls.at(h + 1) @ weights.T, -1, 0)
            members = resized(np.where(mask, members, 0.0), (mdp.horizon - h - 1) * reward)
            values = np.vstack([nothing, best(members, mask)])
            gap, exact = residual(backups.apply(h, values), cls.at(h), mask, h), False
        gaps.append(gap)
    return widest(gaps), exact
