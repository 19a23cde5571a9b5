"""Models from and for other libraries: gymnasium, mdptoolbox, quantecon, PRISM's explicit files."""

from theoryrl._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "from_gymnasium": "gymnasium_models",
        "to_gymnasium": "gymnasium_models",
        "from_mdptoolbox": "mdptoolbox",
        "to_mdptoolbox": "mdptoolbox",
        "from_quantecon": "quantecon_models",
        "to_quantecon": "quantecon_models",
        "from_prism": "prism",
        "to_prism": "prism",
    },
)
