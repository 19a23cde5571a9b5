"""Every theorem about the online learners; each family of learners has its own file."""

from theoryrl.online import _theorems_lsvi_ucb, _theorems_ucbvi

THEOREMS = (*_theorems_lsvi_ucb.THEOREMS, *_theorems_ucbvi.THEOREMS)
