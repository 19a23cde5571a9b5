from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.classes._nearest import Gap, widest
from theoryrl.classes.backups import Backups
from theoryrl.classes.linear import LinearClass
from theoryrl.classes.values import best
from theoryrl.mdp._checks import require_int
from theoryrl.mdp.randomness import as_generator


def residual(targets: NDArray[np.float64], features: NDArray[np.float64], mask: NDArray[np.bool_], h: int) -> Gap:
    """The target (m, S, A) whose least-squares fit on the allowed pairs is off by most anywhere."""
    phi = features[mask]
    wanted = targets[:, mask].T
    fit = np.linalg.lstsq(phi, wanted, rcond=None)[0]
    off = np.abs(phi @ fit - wanted)
    place = int(off.argmax()) // off.shape[1]
    s, a = np.argwhere(mask)[place]
    return Gap(float(off.max()), h, None, (int(s), int(a)))


def closure(cls: LinearClass, backups: Backups, samples: int, rng: Any) -> tuple[Gap, bool]:
    """Whether T maps a linear class into itself; and whether that was decided exactly.

    If r_h and P_h(t | . ) are linear for every t (at the last layer: if r is), so is T_h of anything. Otherwise images
    of random members are tried: a residual found refutes, none found decides nothing.
    """
    mdp = backups.mdp
    mask, generator = mdp.action_mask, as_generator(rng)
    units = np.vstack([np.zeros(mdp.n_states), np.eye(mdp.n_states)])
    gaps, exact = [], True
    for h in range(mdp.horizon):
        last = h == mdp.horizon - 1
        images = backups.apply(h, units[:1] if last else units)
        images[1:] -= images[0]
        gap = residual(images, cls.at(h), mask, h)
        if not last and gap.distance > 1e-10 * max(1.0, float(np.abs(images).max())):
            weights = generator.standard_normal((require_int(samples, 1, "samples"), cls.dimension))
            members = np.moveaxis(cls.at(h + 1) @ weights.T, -1, 0)
            size = np.abs(np.where(mask, members, 0.0)).max(axis=(1, 2), keepdims=True)
            members = members / np.where(size > 0, size, 1.0) * (mdp.horizon - h - 1)
            values = np.vstack([np.zeros(mdp.n_states), best(members, mask)])
            gap, exact = residual(backups.apply(h, values), cls.at(h), mask, h), False
        gaps.append(gap)
    return widest(gaps), exact
