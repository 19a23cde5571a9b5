"""Many runs of one experiment: a grid of cells, a measure, seeds; a store that survives `kill -9`; progress."""

from theoryrl._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Experiment": "experiment",
        "ResultsError": "store",
        "Store": "store",
        "SweepResult": "sweep",
        "load_experiment": "experiment",
        "progress": "progress",
        "sweep": "sweep",
    },
)
