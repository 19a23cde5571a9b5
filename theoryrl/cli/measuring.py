"""`theoryrl complexity`: every complexity measure of a model, with its source."""

from __future__ import annotations

import sys

from theoryrl.complexity.report import BUDGET, complexity_report
from theoryrl.mdp.model import DiscountedMDP, FiniteHorizonMDP


def report(model: FiniteHorizonMDP | DiscountedMDP, budget: float | None, as_json: bool) -> int:
    """Measure, print."""
    found = complexity_report(model, budget=BUDGET if budget is None else budget)
    if as_json:
        sys.stdout.write(found.to_json() + "\n")
        return 0
    from rich.table import Table

    from theoryrl.cli.console import wide_console

    console = wide_console()
    title = model.name or repr(model)
    console.print(title, markup=False, highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("measure", no_wrap=True)
    table.add_column("value", no_wrap=True, justify="right")
    table.add_column("note", overflow="fold")
    table.add_column("source", overflow="fold")
    for measure in found.measures:
        value = measure.status if measure.value is None else f"{measure.value:.6g}"
        table.add_row(measure.key, value, measure.note, measure.source)
    console.print(table, markup=False)
    return 0
