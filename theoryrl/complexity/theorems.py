"""Registry entries of the complexity measures."""

from __future__ import annotations

from theoryrl.complexity import _theorems_coverability, _theorems_eluder
from theoryrl.theory.theorem import Theorem

THEOREMS: tuple[Theorem, ...] = (*_theorems_coverability.THEOREMS, *_theorems_eluder.THEOREMS)
