"""Registry entries of this room."""

from theoryrl.theory import concentration, pigeonhole

THEOREMS = (*concentration.THEOREMS, *pigeonhole.THEOREMS)
