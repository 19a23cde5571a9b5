"""Floor 4, a wing: online and hybrid learning from density ratios (GLOW, H2O, HyGLOW, MABO.CR)."""

from theoryrl._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Units": "problem",
        "units_of": "problem",
        "largest_total": "problem",
        "TabularData": "full_weights",
        "tabular_data": "full_weights",
        "FullWeightTest": "full_weights",
        "full_weight_test": "full_weights",
        "MixtureTest": "full_weights",
        "mixture_level": "full_weights",
        "mixture_test": "full_weights",
        "GLOW": "glow",
        "GLOWState": "glow",
        "OccupancyRatios": "weights",
        "RatioTable": "weights",
        "FullWeights": "weights",
        "occupancy_ratios": "weights",
        "ratio_table": "weights",
        "log_tests": "weights",
        "best_slope": "schedules",
        "error_constants": "schedules",
    },
)
