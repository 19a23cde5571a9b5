"""Registry entries of this room."""

from theoryrl.theory import concentration, dynamic_programming, pigeonhole

THEOREMS = (*dynamic_programming.THEOREMS, *concentration.THEOREMS, *pigeonhole.THEOREMS)
