"""Run a theorem: its assumptions, its protocol, its verdict, and every control that must be refuted."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from theoryrl.mdp._checks import require_int
from theoryrl.mdp.randomness import Rng, as_seed_sequence
from theoryrl.theory.registry import get
from theoryrl.theory.report import ControlReport, Report
from theoryrl.theory.theorem import Control, Measure, Observations, Progress, Theorem
from theoryrl.theory.verdict import Decision, Verdict, decide


def verify(
    key: str | Theorem,
    mdp: Any = None,
    *,
    rng: Rng = 0,
    runs: int | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Check a theorem on a model and say what came out.

    Parameters
    ----------
    key : str or Theorem
        A key of the registry, or a theorem of your own.
    mdp : FiniteHorizonMDP or DiscountedMDP, optional
        Default: the theorem's own instances. Theorems that are not about a model ignore it.
    rng : int, SeedSequence or Generator
        The streams of a theorem depend on the seed and its key alone: what else is verified, and in which order,
        changes nothing.
    runs : int, optional
        Independent runs, seeds or random instances; default: the theorem's own number. Controls keep theirs.
    jobs : int, optional
        Threads; results do not depend on it.
    progress : callable, optional
        `progress(done, total, text)`, done a float between 0 and total.

    Returns
    -------
    Report

    Raises
    ------
    UnknownTheorem
        A KeyError, if there is no theorem of this key.
    TypeError
        If `mdp` is not a model.
    ValueError
        If `runs` or `jobs` is no integer from 1 on, or `rng` no seed.
    """
    theorem = key if isinstance(key, Theorem) else get(key)
    runs = None if runs is None else require_int(runs, 1, "runs")
    jobs = None if jobs is None else require_int(jobs, 1, "jobs")
    root = as_seed_sequence(rng)
    start = time.perf_counter()
    model, failed = _model_for(theorem, mdp)
    common: dict[str, Any] = dict(
        key=theorem.key,
        family=theorem.family,
        claim=theorem.claim,
        expected=Verdict(theorem.expected),
        seed=int(rng) if isinstance(rng, (int, np.integer)) else repr(root),
        proof=theorem.proof,
    )
    if failed is not None:
        return Report(
            **common,
            verdict=Verdict.NOT_APPLICABLE,
            as_expected=mdp is not None,
            tightness=math.nan,
            runs=0,
            model=model_name(model),
            controls=(),
            seconds=time.perf_counter() - start,
            note=failed,
            observations=None,
        )
    parts = 1 + len(theorem.controls)
    inner = _share(progress, 0, parts, theorem.key)
    measured = _measure(theorem, theorem.protocol, model, root, "", runs or theorem.default_runs, jobs, inner)
    controls = []
    for index, control in enumerate(theorem.controls):
        inner = _share(progress, 1 + index, parts, f"{theorem.key}, control {control.name}")
        controls.append(_run_control(theorem, control, root, jobs, inner))
    decision, notes = measured.decision, [measured.decision.note]
    remark = getattr(measured.observations, "remark", "")
    if remark:
        notes.append(remark)
    if mdp is not None and theorem.accepts == "none":
        notes.append("not about a model, the one given was not used")
    alive = [f"{control.name} ({control.verdict})" for control in controls if control.verdict != Verdict.REFUTED]
    if alive:
        notes.append(f"control not refuted: {', '.join(alive)}")
    if progress is not None:
        progress(parts, parts, theorem.key)
    return Report(
        **common,
        verdict=decision.verdict,
        as_expected=decision.verdict == theorem.expected and not alive,
        tightness=decision.tightness,
        runs=measured.observations.runs,
        model=measured.model,
        controls=tuple(controls),
        seconds=time.perf_counter() - start,
        note="; ".join(notes),
        observations=measured.observations,
    )


def verify_many(
    keys: Iterable[str | Theorem],
    mdp: Any = None,
    *,
    rng: Rng = 0,
    runs: int | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> tuple[Report, ...]:
    """Check several theorems in the order given; each report is the one that `verify` gives alone.

    Parameters are those of `verify`; all keys are looked up before anything runs, and `progress` counts theorems.
    """
    chosen = [key if isinstance(key, Theorem) else get(key) for key in keys]
    root = as_seed_sequence(rng)
    seed = rng if isinstance(rng, (int, np.integer)) else root
    reports = []
    for index, theorem in enumerate(chosen):
        inner = _share(progress, index, len(chosen), "")
        reports.append(verify(theorem, mdp, rng=seed, runs=runs, jobs=jobs, progress=inner))
    return tuple(reports)


def model_name(model: Any) -> str:
    """The model's own name, else its short description; `none` without a model."""
    if model is None:
        return "none"
    return getattr(model, "name", "") or repr(model)


class _Measured(NamedTuple):
    observations: Observations
    decision: Decision
    model: str


def _measure(
    theorem: Theorem,
    protocol: Measure,
    model: Any,
    root: np.random.SeedSequence,
    control: str,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
) -> _Measured:
    """One protocol run and the decision on it, each with a stream of its own."""
    rng, bootstrap = _stream(root, f"{theorem.key}/{control}").spawn(2)
    observations = protocol(model, rng=rng, runs=runs, jobs=jobs, progress=progress)
    decision = decide(theorem, observations, bootstrap)
    return _Measured(observations, decision, ", ".join(observations.models) or model_name(model))


def _run_control(
    theorem: Theorem,
    control: Control,
    root: np.random.SeedSequence,
    jobs: int | None,
    progress: Progress | None,
) -> ControlReport:
    """A control on its own model and number of runs, else the theorem's default ones: there it is known to fail."""
    build = control.model or theorem.default_model
    model = build() if build is not None else None
    number = control.runs or theorem.default_runs
    measured = _measure(theorem, control.protocol, model, root, control.name, number, jobs, progress)
    return ControlReport(
        control.name, measured.decision.verdict, measured.model, measured.decision.note, measured.observations
    )


def _model_for(theorem: Theorem, mdp: Any) -> tuple[Any, str | None]:
    """The model to run on (None: the protocol's own instances) and why the theorem does not apply to it, if so."""
    kind = _kind(mdp) if mdp is not None else None
    if theorem.accepts == "none":
        return None, None
    if kind is not None and theorem.accepts not in ("any", kind):
        return mdp, f"assumption fails: the theorem is about a {theorem.accepts} model, this one is {kind}"
    model = mdp
    if model is None and theorem.default_model is not None:
        model = theorem.default_model()
    if model is not None:
        for assumption in theorem.assumptions:
            reason = assumption.check(model) if assumption.check is not None else None
            if reason is not None:
                return model, f"assumption {assumption.name} fails: {reason}"
    return model, None


def _kind(mdp: Any) -> str:
    from theoryrl.mdp.model import DiscountedMDP, FiniteHorizonMDP

    if isinstance(mdp, FiniteHorizonMDP):
        return "finite-horizon"
    if isinstance(mdp, DiscountedMDP):
        return "discounted"
    raise TypeError(f"mdp is a {type(mdp).__name__}, not a FiniteHorizonMDP or a DiscountedMDP")


def _stream(root: np.random.SeedSequence, name: str) -> np.random.SeedSequence:
    """The child of `root` that belongs to `name`: 128 bits of its SHA-256 extend the spawn key."""
    words = np.frombuffer(hashlib.sha256(name.encode()).digest()[:16], dtype="<u4")
    return np.random.SeedSequence(
        root.entropy, spawn_key=(*root.spawn_key, *(int(word) for word in words)), pool_size=root.pool_size
    )


def _share(progress: Progress | None, index: int, total: int, prefix: str) -> Progress | None:
    """The progress of part `index` of `total`, passed on as progress of the whole."""
    if progress is None:
        return None

    def inner(done: float, of: float, text: str) -> None:
        progress(index + (done / of if of else 0.0), total, ": ".join(part for part in (prefix, text) if part))

    return inner
