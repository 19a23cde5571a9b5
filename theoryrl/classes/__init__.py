"""Floor 2: function classes, how they are built from a model, and checks of what theorems assume about them."""

from theoryrl._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    dict.fromkeys(("FiniteClass", "ProductClass", "TabularClass"), "values")
    | dict.fromkeys(("LinearClass", "linear_features"), "linear")
    | dict.fromkeys(
        ("WeightClass", "density_ratio", "ratio_class", "mixture_ratio_class", "mixture_lift", "clip_weights"),
        "weights",
    )
    | dict.fromkeys(
        ("realizable_class", "complete_class", "bellman_closure", "model_class", "decoder_lift"), "builders"
    )
    | dict.fromkeys(("ClassCheck", "realizability", "completeness", "policy_closure", "ratio_realizability"), "checks")
    | {"bellman_images": "backups"},
)
