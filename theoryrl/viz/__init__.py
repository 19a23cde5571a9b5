"""Floor 5: matplotlib figures of everything below. Functions take and return Axes and change no global style."""

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
