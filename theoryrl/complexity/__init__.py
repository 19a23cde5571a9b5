"""Floor 2: what the bounds are made of, exact on a known model."""

from theoryrl._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    dict.fromkeys(
        (
            "EluderDimension",
            "BellmanEluderDimension",
            "distributional_eluder",
            "eluder_dimension",
            "bellman_eluder",
            "eluder_rank_bound",
            "is_eluder_sequence",
        ),
        "eluder",
    ),
)
