"""Floor 5: matplotlib figures of everything below. Every function takes and returns Axes and changes no global style."""

from theoryrl._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "plot_plan": "plan",
        "plot_grid": "plan",
        "plot_graph": "graph",
        "plot_regret": "regret",
        "plot_slope": "regret",
        "plot_report": "report",
    },
)
