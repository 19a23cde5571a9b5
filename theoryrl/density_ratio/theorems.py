"""Every theorem about density ratios; each part of the wing has its own file."""

from theoryrl.density_ratio import (
    _theorems_clipping,
    _theorems_glow,
    _theorems_h2o,
    _theorems_hyglow,
    _theorems_levels,
    _theorems_mabo,
    _theorems_potential,
    _theorems_pure,
    _theorems_structure,
)
from theoryrl.theory.theorem import Theorem

THEOREMS: tuple[Theorem, ...] = (
    *_theorems_clipping.THEOREMS,
    *_theorems_glow.THEOREMS,
    *_theorems_h2o.THEOREMS,
    *_theorems_hyglow.THEOREMS,
    *_theorems_levels.THEOREMS,
    *_theorems_mabo.THEOREMS,
    *_theorems_potential.THEOREMS,
    *_theorems_pure.THEOREMS,
    *_theorems_structure.THEOREMS,
)
