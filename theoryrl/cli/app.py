"""`theoryrl`: commands, options and exit codes (0 as expected, 1 something was not, 2 the call is off)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="theoryrl",
    help="The theorems of reinforcement learning, as things that run.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

# By version, typer uses click or carries its own copy: the base of its usage errors is found from the class.
UsageError: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

SIGINT_CODE = 130
INTERRUPTED = "interrupted"
RESUMABLE = "; what was finished is kept, and the same `theoryrl run` goes on from there"

Mdp = Annotated[
    str | None,
    typer.Option(
        "--mdp", metavar="MODEL", help="gymnasium:ID, a name of `theoryrl envs` (with KEY=VALUE arguments), or a file."
    ),
]
Horizon = Annotated[int | None, typer.Option("--horizon", help="Number of steps H of the model.", min=1)]
Seed = Annotated[int, typer.Option("--seed", help="Seed; the same seed gives the same output.", min=0)]
Jobs = Annotated[
    int | None, typer.Option("--jobs", help="Threads; results do not depend on it.  [default: one per core]", min=1)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]


@app.callback(invoke_without_command=True)
def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        sys.stdout.write(context.get_help() + "\n")


@app.command()
def verify(
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY...", help="Theorems, e.g. ucbvi.regret; KEY=VALUE arguments go to the model."),
    ] = None,
    mdp: Mdp = None,
    horizon: Horizon = None,
    family: Annotated[str | None, typer.Option("--family", help="All theorems of a family.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All theorems.")] = False,
    runs: Annotated[
        int | None, typer.Option("--runs", help="Independent runs or instances per theorem.", min=1)
    ] = None,
    seed: Seed = 0,
    jobs: Jobs = None,
    as_json: Json = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for verify.json and one figure per theorem.")
    ] = None,
) -> int:
    """Check theorems on a model, each with its negative controls."""
    from theoryrl.cli import verifying
    from theoryrl.cli.models import resolve, split_assignments

    given, assignments = split_assignments(keys or [])
    chosen = verifying.select(given, family, every)
    if mdp is None and (assignments or horizon is not None):
        raise ValueError("model arguments and --horizon need --mdp MODEL")
    model = None if mdp is None else resolve(mdp, assignments, horizon)
    return verifying.run(chosen, model, runs, seed, jobs, as_json, out)


@app.command()
def theorems(
    family: Annotated[str | None, typer.Option("--family", help="Only this family.")] = None, as_json: Json = False
) -> int:
    """List the registry."""
    from theoryrl.cli import verifying

    return verifying.show_registry(family, as_json)


@app.command()
def show(key: Annotated[str, typer.Argument(metavar="KEY", help="A theorem, e.g. ucbvi.regret.")]) -> int:
    """Show one theorem: statement, assumptions, source, controls, proof."""
    from theoryrl.cli import verifying

    return verifying.show_card(key)


@app.command()
def solve(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="gymnasium:ID, a name of `theoryrl envs`, or a file.")],
    assignments: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="The model's parameters.")
    ] = None,
    horizon: Horizon = None,
    certify: Annotated[
        str | None,
        typer.Option(
            "--certify",
            metavar="[float|exact]",
            help="Enclose the optimal value rigorously; with `exact`, as a rational.",
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Solve a model: its optimal value at the initial distribution."""
    from theoryrl.cli.models import resolve
    from theoryrl.cli.solving import report

    return report(resolve(model, assignments or [], horizon), certify, as_json)


@app.command()
def complexity(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="gymnasium:ID, a name of `theoryrl envs`, or a file.")],
    assignments: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="The model's parameters.")
    ] = None,
    horizon: Horizon = None,
    budget: Annotated[
        float | None,
        typer.Option("--budget", help="Multiplications that one measure may take.  [default: 2e10]"),
    ] = None,
    as_json: Json = False,
) -> int:
    """Measure how hard a model is: coverability, ranks, gaps, variances, diameter, mixing; with their sources."""
    from theoryrl.cli.measuring import report
    from theoryrl.cli.models import resolve

    return report(resolve(model, assignments or [], horizon), budget, as_json)


@app.command()
def run(
    experiment: Annotated[Path, typer.Argument(metavar="EXPERIMENT", help="A Python file that defines EXPERIMENT.")],
    seeds: Annotated[
        int | None, typer.Option("--seeds", help="Seeds per cell.  [default: the experiment's]", min=1)
    ] = None,
    seed: Seed = 0,
    jobs: Jobs = None,
    as_json: Json = False,
    out: Annotated[Path | None, typer.Option("--out", help="Results folder.  [default: results/NAME]")] = None,
) -> int:
    """Run an experiment, or go on with one that was interrupted."""
    from theoryrl.cli.sweeping import report

    return report(experiment, seeds, seed, jobs, as_json, out)


@app.command()
def envs(as_json: Json = False) -> int:
    """List the named models and their parameters."""
    from theoryrl.cli.models import show_envs

    return show_envs(as_json)


def main() -> None:
    """The console script: `invoke`, then leave at once, without waiting for threads that an interrupt left behind."""
    # Streams that the caller closed are None: what nobody wants to read goes nowhere.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    code = invoke(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError as error:
        code = _fault(f"standard output: {error.strerror}")
    finally:
        os._exit(code)


def invoke(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; every foreseeable fault is one line on stderr and code 2."""
    from theoryrl.theory.registry import UnknownTheorem

    interrupted = INTERRUPTED + (RESUMABLE if "run" in arguments[:1] else "")
    try:
        result: Any = app(_certify_default(list(arguments)), prog_name="theoryrl", standalone_mode=False)
        # typer turns ctrl-C into this exit code, by version with or without raising.
        return _fault(interrupted) if result == SIGINT_CODE else int(result or 0)
    except UsageError as error:
        message = getattr(error, "format_message", error.__str__)()
        return _fault(f"{message} (see `theoryrl --help`)")
    except (KeyboardInterrupt, typer.Abort):
        return _fault(interrupted)
    except SystemExit:
        # typer and rich leave like this, with code 1, when the reader of our output went away.
        return _hung_up()
    except UnknownTheorem as error:
        return _fault(str(error.args[0]))
    except BrokenPipeError:
        return _hung_up()
    except OSError as error:
        # Files name themselves (see write_whole); what has no name is the output.
        return _fault(f"{error.filename or 'standard output'}: {error.strerror or error}")
    except (ValueError, ImportError) as error:
        return _fault(str(error))
    except MemoryError as error:
        return _fault(f"not enough memory: {error}")


def _hung_up() -> int:
    """The reader of our output went away: nothing left to say, and nothing to flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 2


def _fault(message: str) -> int:
    sys.stderr.write(f"theoryrl: {' '.join(message.split())}\n")
    return 2


def _certify_default(arguments: list[str]) -> list[str]:
    """`--certify` alone means `--certify float`."""
    for i, argument in enumerate(arguments):
        if argument == "--certify" and (i + 1 == len(arguments) or arguments[i + 1] not in ("float", "exact")):
            return [*arguments[:i], "--certify=float", *arguments[i + 1 :]]
    return arguments
