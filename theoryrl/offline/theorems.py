"""Every theorem about learning and estimating from data."""

from theoryrl.offline import _theorems_fitted, _theorems_learners, _theorems_ope

THEOREMS = (*_theorems_fitted.THEOREMS, *_theorems_learners.THEOREMS, *_theorems_ope.THEOREMS)
