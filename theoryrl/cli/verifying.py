"""`theoryrl verify`, `theorems`, `show`: run the registry and print what came out."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from theoryrl.cli.console import wide_console
from theoryrl.mdp.writing import write_whole
from theoryrl.theory.registry import get
from theoryrl.theory.registry import theorems as registry
from theoryrl.theory.report import Report, json_safe
from theoryrl.theory.theorem import Theorem
from theoryrl.theory.verify import model_name, verify


def select(keys: Sequence[str], family: str | None, every: bool) -> list[Theorem]:
    """The theorems that are asked for, each once, in the order of the registry for whole sets.

    Raises
    ------
    ValueError
        If nothing is asked for.
    UnknownTheorem
        If a key or the family does not exist.
    """
    chosen: dict[str, Theorem] = {key: get(key) for key in keys}
    if every:
        chosen |= {theorem.key: theorem for theorem in registry()}
    if family is not None:
        chosen |= {theorem.key: theorem for theorem in registry(family)}
    if not chosen:
        raise ValueError("name a theorem (see `theoryrl theorems`), a --family, or --all")
    return list(chosen.values())


def run(
    chosen: Sequence[Theorem],
    model: Any,
    runs: int | None,
    seed: int,
    jobs: int | None,
    as_json: bool,
    out: Path | None,
) -> int:
    """Verify, print, write; 0 if everything came out as expected, else 1."""
    from theoryrl.lab.progress import progress

    if out is not None:
        _prepare(out)
    reports = []
    with progress(None, "verify") as tick:
        for place, theorem in enumerate(chosen):

            def shown(done: float, total: float, text: str, place: int = place) -> None:
                # Thousandths of a theorem, so that the estimate of the time left has something to go by.
                tick.callback(int(1000 * (place + (done / total if total else 0.0))), 1000 * len(chosen), text)

            try:
                report = verify(theorem, model, rng=seed, runs=runs, jobs=jobs, progress=shown)
            except (ValueError, ArithmeticError) as error:
                # Numbers that no protocol can handle (values that overflow, say): say where, nothing is half told.
                where = "its own models" if model is None else model_name(model)
                raise ValueError(f"{theorem.key} on {where}: {error}") from error
            reports.append(report)
            if out is not None:
                _draw(report, theorem, out)
    document = json.dumps([report.to_dict() for report in reports], indent=2, allow_nan=False) + "\n"
    if out is not None:
        write_whole(out / "verify.json", lambda file: file.write(document.encode()))
    if as_json:
        sys.stdout.write(document)
    else:
        _table(reports, out)
    return 0 if all(report.as_expected for report in reports) else 1


def _prepare(out: Path) -> None:
    """Make the folder; refuse one that holds something else, so that nobody's files are mixed with ours."""
    out.mkdir(parents=True, exist_ok=True)
    foreign = [item.name for item in out.iterdir() if item.name != "verify.json" and item.suffix != ".png"]
    if foreign:
        raise ValueError(
            f"{out} holds {sorted(foreign)[0]}, which `theoryrl verify` did not write; choose another --out"
        )


def _draw(report: Report, theorem: Theorem, out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from theoryrl.viz import plot_report

    ax = plot_report(report)
    # Whole or not at all: a reader never meets half a picture.
    write_whole(
        out / f"{theorem.key}.png", lambda file: ax.figure.savefig(file, format="png", dpi=150, bbox_inches="tight")
    )
    pyplot.close(ax.figure)


def _table(reports: Sequence[Report], out: Path | None) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("theorem", "verdict", "tightness", "runs", "controls", "model", "proof", "seconds"):
        right = column in ("tightness", "runs", "seconds")
        table.add_column(column, overflow="fold", no_wrap=column != "model", justify="right" if right else "left")
    for report in reports:
        refuted = sum(control.verdict == "refuted" for control in report.controls)
        table.add_row(
            report.key,
            Text(str(report.verdict), style="green" if report.as_expected else "bold red"),
            f"{report.tightness:.3g}",
            str(report.runs),
            f"{refuted}/{len(report.controls)} refuted",
            report.model if len(report.model) < 60 else report.model[:57] + "...",
            report.proof.level,
            f"{report.seconds:.1f}",
        )
    console = wide_console()
    console.print(table)
    for report in reports:
        console.print(f"  {report.key}: {report.note}", style="dim", highlight=False, markup=False, soft_wrap=True)
    wrong = [report.key for report in reports if not report.as_expected]
    console.print(f"not as expected: {', '.join(wrong)}" if wrong else "everything came out as expected", markup=False)
    if out is not None:
        console.print(f"figures and verify.json are in {out}", markup=False, highlight=False)


def show_registry(family: str | None, as_json: bool) -> int:
    """Print the registry, whole or one family of it."""
    chosen = registry(family)
    if as_json:
        rows = [
            {
                "key": theorem.key,
                "family": theorem.family,
                "title": theorem.title,
                "statement": theorem.statement,
                "source": theorem.source,
                "claim": theorem.claim,
                "expected": theorem.expected,
                "proof": str(theorem.proof),
                "controls": [{"name": control.name, "statement": control.statement} for control in theorem.controls],
            }
            for theorem in chosen
        ]
        sys.stdout.write(json.dumps(json_safe(rows), indent=2, allow_nan=False) + "\n")
        return 0
    from rich.table import Table

    table = Table("theorem", "what it says", "claim", "expected", "proof", box=None, pad_edge=False)
    for theorem in chosen:
        table.add_row(theorem.key, theorem.title, theorem.claim, theorem.expected, theorem.proof.level)
    wide_console().print(table)
    return 0


def show_card(key: str) -> int:
    """Print one theorem whole."""
    theorem = get(key)
    lines = [f"{theorem.key}: {theorem.title}", "", theorem.statement, ""]
    lines += [f"source       {theorem.source}", f"claim        {theorem.claim}, expected {theorem.expected}"]
    if theorem.delta is not None:
        lines.append(f"delta        {theorem.delta:g}")
    lines.append(f"proof        {theorem.proof}")
    lines += [f"assumption   {a.name}: {a.statement}" for a in theorem.assumptions]
    lines += [f"control      {c.name}: {c.statement}" for c in theorem.controls]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
