"""Floor 1: theorems as values, the registry, the statistics of verdicts, `verify`."""

import sys
from types import ModuleType

from theoryrl._lazy import attach

_EXPORTS = {
    "verify": "verify",
    "verify_many": "verify",
    "Report": "report",
    "ControlReport": "report",
    "json_safe": "report",
    "theorems": "registry",
    "get": "registry",
    "UnknownTheorem": "registry",
    "Verdict": "verdict",
    "Theorem": "theorem",
    "Assumption": "theorem",
    "Control": "theorem",
    "Proof": "theorem",
    "Measure": "theorem",
    "ExactObservations": "theorem",
    "ProbabilityObservations": "theorem",
    "RateObservations": "theorem",
    "clopper_pearson": "statistics",
    "log_wealth": "statistics",
    "runs_needed": "statistics",
    "log_log_slope": "statistics",
}


class _Room(ModuleType):
    """Keeps `verify` and `theorems` the functions, though importing the submodules of these names binds modules."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _EXPORTS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Room
__getattr__, __dir__, __all__ = attach(__name__, _EXPORTS)
