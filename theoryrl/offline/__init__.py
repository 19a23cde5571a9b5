"""Floor 3: policies valued and learned from data that someone else collected."""

from theoryrl._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Estimate": "estimate",
        "importance_sampling": "importance",
        "doubly_robust": "importance",
        "marginalised_sampling": "marginal",
        "marginalised_weights": "marginal",
        "ope_variance": "variance",
        "efficiency_bound": "variance",
        "fqi": "fitted",
        "FittedQ": "fitted",
        "fqe": "fitted",
        "Evaluation": "fitted",
        "lstdq": "fitted",
        "msbo": "minimax",
        "mabo": "minimax",
        "Minimax": "minimax",
        "mwl": "minimax",
        "maximum_likelihood": "likelihood",
        "Likelihood": "likelihood",
        "vi_lcb": "pessimism",
        "Pessimistic": "pessimism",
        "bounds": "=bounds",
    },
)
