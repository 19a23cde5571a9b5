"""Every theorem about density ratios; each part of the wing has its own file."""

from theoryrl.theory.theorem import Theorem

THEOREMS: tuple[Theorem, ...] = ()
