"""Bounds with explicit constants for learners that use density ratios; proofs in docs/theory/glow.md and hyglow.md."""

from theoryrl._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "ErrorConstants": "constants",
        "clipped_constant": "constants",
        "self_normalised_constants": "constants",
        "tuned_constants": "constants",
        "glow_levels": "glow",
        "glow_gamma": "glow",
        "glow_iterations": "glow",
        "glow_regret_bound": "glow",
        "lift_log_tests": "counts",
        "list_log_tests": "counts",
        "mixture_log_tests": "counts",
        "pure_ratio_plan": "pure",
        "pure_ratio_regret_bound": "pure",
        "paper_glow_regret_bound": "paper",
        "paper_h2o_risk_bound": "paper",
        "paper_pure_ratio_regret_bound": "paper",
        "h2o_gamma": "hybrid",
        "h2o_risk_bound": "hybrid",
        "hyglow_iterations": "hybrid",
        "hyglow_risk_bound": "hybrid",
    },
)
