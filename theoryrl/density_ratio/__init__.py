"""Floor 4, a wing: online and hybrid learning from density ratios (GLOW, H2O, HyGLOW, MABO.CR)."""

from theoryrl._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Units": "problem",
        "units_of": "problem",
        "largest_total": "problem",
    },
)
