"""For tests of one's own: hypothesis strategies for models, policies, rewards and data, and plain-Python twins.

The strategies need hypothesis (`pip install theoryrl[testing]`); `theoryrl.testing.naive` needs nothing.
"""

from theoryrl._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "mdps": "strategies",
        "discounted_mdps": "strategies",
        "policies": "strategies",
        "rewards": "strategies",
        "datasets": "strategies",
        "finite_classes": "class_strategies",
        "product_classes": "class_strategies",
        "weight_classes": "class_strategies",
        "naive": "=naive",
    },
)
