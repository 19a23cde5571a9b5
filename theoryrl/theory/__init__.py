"""Floor 1: theorems as values, the registry, the statistics of verdicts, `verify`."""

from theoryrl._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
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
        "MeanObservations": "theorem",
        "RateObservations": "theorem",
        "clopper_pearson": "statistics",
        "log_wealth": "statistics",
        "log_wealth_of_mean": "statistics",
        "runs_needed": "statistics",
        "log_log_slope": "statistics",
    },
)
