"""Floor 2: how hard a known model is: coverability, concentrability, ranks, gaps, times, variances; one report."""

from theoryrl._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "coverability": "coverability",
        "coverability_lp": "coverability",
        "largest_occupancy": "coverability",
        "optimal_data": "coverability",
        "Concentrability": "concentrability",
        "concentrability": "concentrability",
        "clipped_concentrability": "concentrability",
        "clip_loss": "concentrability",
        "EluderDimension": "eluder",
        "BellmanEluderDimension": "eluder",
        "distributional_eluder": "eluder",
        "eluder_dimension": "eluder",
        "bellman_eluder": "eluder",
        "eluder_rank_bound": "eluder",
        "is_eluder_sequence": "eluder",
        "Gaps": "gaps",
        "suboptimality_gaps": "gaps",
        "diameter": "hitting",
        "hitting_times": "hitting",
        "is_communicating": "hitting",
        "minimal_hitting_times": "hitting",
        "mixing_time": "mixing",
        "stationary_distribution": "mixing",
        "Variances": "variance",
        "variances": "variance",
    },
)
