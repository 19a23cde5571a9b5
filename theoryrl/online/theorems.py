"""Every theorem about the online learners; each family of learners has its own file."""

from theoryrl.online import (
    _theorems_euler,
    _theorems_golf,
    _theorems_hyq,
    _theorems_identification,
    _theorems_lower_bounds,
    _theorems_lsvi_ucb,
    _theorems_olive,
    _theorems_oppo,
    _theorems_posterior,
    _theorems_q_learning,
    _theorems_rmax,
    _theorems_ucbvi,
    _theorems_ucbvi_forms,
    _theorems_ucrl2,
)

THEOREMS = (
    *_theorems_euler.THEOREMS,
    *_theorems_golf.THEOREMS,
    *_theorems_hyq.THEOREMS,
    *_theorems_identification.THEOREMS,
    *_theorems_lower_bounds.THEOREMS,
    *_theorems_lsvi_ucb.THEOREMS,
    *_theorems_olive.THEOREMS,
    *_theorems_oppo.THEOREMS,
    *_theorems_posterior.THEOREMS,
    *_theorems_q_learning.THEOREMS,
    *_theorems_rmax.THEOREMS,
    *_theorems_ucbvi.THEOREMS,
    *_theorems_ucrl2.THEOREMS,
    *_theorems_ucbvi_forms.THEOREMS,
)
