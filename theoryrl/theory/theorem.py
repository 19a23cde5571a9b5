"""A theorem as a value: statement, assumptions, what to measure, and the broken variants that must be refuted."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

Claim: TypeAlias = Literal["exact", "probability", "rate"]
Accepts: TypeAlias = Literal["none", "finite-horizon", "discounted", "any"]
Progress: TypeAlias = Callable[[float, float, str], None]

EXPECTED: Mapping[str, tuple[str, str]] = {
    "exact": ("verified", "refuted"),
    "probability": ("consistent", "refuted"),
    "rate": ("consistent", "refuted"),
}
ACCEPTS = ("none", "finite-horizon", "discounted", "any")
LEVELS = ("machine-checked", "written", "cited")
_KEY = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\.[a-z0-9]+(-[a-z0-9]+)*")


def _vector(name: str, values: Any, length: int | None = None) -> np.ndarray:
    """A read-only float64 copy of `values` of shape (length,); a scalar is repeated when the length is known."""
    array = np.array(values, dtype=np.float64)
    if array.ndim == 0 and length is not None:
        array = np.full(length, float(array))
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}, not (n,)")
    if length is not None and array.size != length:
        raise ValueError(f"{name} has {array.size} entries, not {length}")
    if array.size == 0:
        raise ValueError(f"{name} is empty: the protocol measured nothing")
    array.flags.writeable = False
    return array


def _flags(name: str, values: Any, length: int) -> np.ndarray:
    """A copy of `values`, which must be bool of shape (length,)."""
    array = np.array(values)
    if array.dtype != np.bool_ or array.shape != (length,):
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, not bool of shape ({length},)")
    return array


@dataclass(frozen=True, eq=False)
class ExactObservations:
    """Instances of an inequality or identity that is claimed without exception.

    Instance i claims `observed[i] <= bound[i] + allowance[i]`, or with `relation="=="`
    `|observed[i] - bound[i]| <= allowance[i]`.

    Parameters
    ----------
    observed, bound : array_like, shape (n,)
        Both sides; a scalar `bound` is repeated.
    allowance : array_like, shape (n,), or float
        What rounding alone can add to `observed - bound`: a derived bound, finite and non-negative, never a tuned
        tolerance. 0 when both sides are exact.
    labels : tuple of str
        What instance i is, e.g. `"n=10, p=1/3"`; empty, or one per instance.
    relation : {"<=", "=="}
    models : tuple of str
        Names of the models that were run, when the protocol chose its own.
    series : dict from name to array
        Anything a figure needs.
    """

    observed: Any
    bound: Any
    allowance: Any = 0.0
    labels: tuple[str, ...] = ()
    relation: Literal["<=", "=="] = "<="
    models: tuple[str, ...] = ()
    series: Mapping[str, np.ndarray] = field(default_factory=dict)

    claim = "exact"

    def __post_init__(self) -> None:
        observed = _vector("observed", self.observed)
        allowance = _vector("allowance", self.allowance, observed.size)
        bad = np.flatnonzero((allowance < 0.0) | np.isinf(allowance))
        if bad.size:
            raise ValueError(f"allowance[{bad[0]}] is {allowance[bad[0]]}, not finite and non-negative")
        if self.relation not in ("<=", "=="):
            raise ValueError(f"relation is {self.relation!r}, not '<=' or '=='")
        if self.labels and len(self.labels) != observed.size:
            raise ValueError(f"labels has {len(self.labels)} entries, not {observed.size}")
        object.__setattr__(self, "observed", observed)
        object.__setattr__(self, "bound", _vector("bound", self.bound, observed.size))
        object.__setattr__(self, "allowance", allowance)

    @property
    def runs(self) -> int:
        """Number of instances checked."""
        return self.observed.size


@dataclass(frozen=True, eq=False)
class ProbabilityObservations:
    """Independent runs of a claim that may fail with probability at most delta.

    Parameters
    ----------
    observed, bound : array_like, shape (runs,)
        The two sides of the claim `observed <= bound` at the worst moment of each run; a scalar `bound` is repeated.
    failures : array_like of bool, shape (runs,), optional
        Whether the claim failed in the run. Default: `not (observed <= bound)`. A run with a NaN on either side
        counts as failed whatever is given here.
    undecided : array_like of bool, shape (runs,), optional
        Runs that were broken off before the claim could be judged: they do not count against it, and a verdict of
        `consistent` must hold even if all of them had failed. Default: none.
    models, series
        As in `ExactObservations`.
    remark : str
        One line that a reader of the verdict should not miss, e.g. that the bound says nothing on this model.
    """

    observed: Any
    bound: Any
    failures: Any = None
    undecided: Any = None
    models: tuple[str, ...] = ()
    series: Mapping[str, np.ndarray] = field(default_factory=dict)
    remark: str = ""

    claim = "probability"

    def __post_init__(self) -> None:
        observed = _vector("observed", self.observed)
        bound = _vector("bound", self.bound, observed.size)
        if self.failures is None:
            failures = ~(observed <= bound)
        else:
            failures = _flags("failures", self.failures, observed.size)
            failures = failures | np.isnan(observed) | np.isnan(bound)
        undecided = np.zeros(observed.size, bool)
        if self.undecided is not None:
            undecided = _flags("undecided", self.undecided, observed.size) & ~failures
        failures.flags.writeable = undecided.flags.writeable = False
        object.__setattr__(self, "observed", observed)
        object.__setattr__(self, "bound", bound)
        object.__setattr__(self, "failures", failures)
        object.__setattr__(self, "undecided", undecided)

    @property
    def runs(self) -> int:
        """Number of independent runs."""
        return self.observed.size


@dataclass(frozen=True, eq=False)
class MeanObservations:
    """Independent draws of a bounded quantity whose expectation is claimed to stay on one side of a number.

    The claim is `E[observed] <= bound + allowance`, or with `relation=">="` `E[observed] >= bound - allowance`. It is a
    probability claim of a theorem without `delta`: no single run can fail it.

    Parameters
    ----------
    observed : array_like, shape (runs,)
        One value per run; the runs are identically distributed and each lies in [low, high] whatever happens.
    bound : float
    low, high : float
        The range, known before the runs, low < high. A tight one needs fewer runs.
    relation : {"<=", ">="}
    allowance : float
        What rounding alone can add to a value, finite and non-negative.
    models, series, remark
        As in `ProbabilityObservations`.
    """

    observed: Any
    bound: float
    low: float
    high: float
    relation: Literal["<=", ">="] = "<="
    allowance: float = 0.0
    models: tuple[str, ...] = ()
    series: Mapping[str, np.ndarray] = field(default_factory=dict)
    remark: str = ""

    claim = "probability"

    def __post_init__(self) -> None:
        observed = _vector("observed", self.observed)
        if self.relation not in ("<=", ">="):
            raise ValueError(f"relation is {self.relation!r}, not '<=' or '>='")
        if not (-np.inf < self.low < self.high < np.inf):
            raise ValueError(f"the range from low = {self.low} to high = {self.high} is not a bounded interval")
        if not 0.0 <= self.allowance < np.inf:
            raise ValueError(f"allowance is {self.allowance}, not finite and non-negative")
        outside = np.flatnonzero((observed < self.low) | (observed > self.high))
        if outside.size:
            raise ValueError(f"observed[{outside[0]}] is {observed[outside[0]]}, not in [{self.low}, {self.high}]")
        object.__setattr__(self, "observed", observed)

    @property
    def runs(self) -> int:
        """Number of independent runs."""
        return self.observed.size


@dataclass(frozen=True, eq=False)
class RateObservations:
    """A quantity measured along a growing parameter, claimed to grow like `x ** predicted`.

    Parameters
    ----------
    x : array_like, shape (m,)
        Positive, strictly increasing, m >= 2.
    y : array_like, shape (seeds, m)
        Measurements; the slope is that of log(mean over seeds) against log(x).
    predicted : float
        The exponent of the theorem.
    tolerance : float
        How far from `predicted` still counts as agreeing, positive.
    upper : bool
        Whether the theorem only bounds the exponent from above, so that a smaller slope agrees too.
    models, series
        As in `ExactObservations`.
    """

    x: Any
    y: Any
    predicted: float
    tolerance: float
    upper: bool = False
    models: tuple[str, ...] = ()
    series: Mapping[str, np.ndarray] = field(default_factory=dict)

    claim = "rate"

    def __post_init__(self) -> None:
        x = _vector("x", self.x)
        y = np.array(self.y, dtype=np.float64)
        if x.size < 2 or not (x[0] > 0.0 and np.all(np.diff(x) > 0.0) and np.isfinite(x[-1])):
            raise ValueError("x is not a strictly increasing sequence of two or more positive numbers")
        if y.ndim != 2 or y.shape[0] == 0 or y.shape[1] != x.size:
            raise ValueError(f"y has shape {y.shape}, not (seeds, {x.size})")
        if not np.isfinite(self.predicted):
            raise ValueError(f"predicted is {self.predicted}, not a finite exponent")
        if not 0.0 < self.tolerance < np.inf:
            raise ValueError(f"tolerance is {self.tolerance}, not positive and finite")
        y.flags.writeable = False
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)

    @property
    def runs(self) -> int:
        """Number of seeds."""
        return self.y.shape[0]


Observations: TypeAlias = ExactObservations | ProbabilityObservations | MeanObservations | RateObservations


class Measure(Protocol):
    """What a protocol looks like; keywords of its own (a `mutant` for controls) must have defaults."""

    def __call__(
        self,
        model: Any,
        *,
        rng: np.random.SeedSequence,
        runs: int,
        jobs: int | None,
        progress: Progress | None,
    ) -> Observations:
        """Run what has to be run and return what was seen, never a verdict.

        Parameters
        ----------
        model : FiniteHorizonMDP, DiscountedMDP or None
            None: the protocol runs instances of its own and names them in `models`.
        rng : SeedSequence
            All randomness comes from it (`rng.spawn` for one stream per run and role).
        runs : int
            Independent runs, seeds or random instances.
        jobs : int or None
            Threads to use; the result must not depend on it.
        progress : callable or None
            `progress(done, total, text)`.
        """
        ...


@dataclass(frozen=True)
class Assumption:
    """A hypothesis of the theorem.

    Parameters
    ----------
    name, statement : str
        A short name and the hypothesis itself.
    check : callable or None
        `check(model)` returns None when the model satisfies it, else one line that says why not. None: it holds by
        the way the protocol measures (e.g. independent runs), or cannot be decided from the model.
    """

    name: str
    statement: str
    check: Callable[[Any], str | None] | None = None


@dataclass(frozen=True)
class Control:
    """A broken variant: the same protocol with one piece missing, which must come out refuted.

    Parameters
    ----------
    name, statement : str
        What is broken, in a word and in a sentence.
    protocol : Measure
        Usually `functools.partial(protocol, mutant=...)`.
    model : callable or None
        Builds the model on which the variant is known to fail. None: the theorem's own default. The user's model is
        never used, since a broken variant need not fail there.
    runs : int or None
        How many are enough to refute it, whatever the user asks of the theorem. None: the theorem's `default_runs`.
    """

    name: str
    statement: str
    protocol: Measure
    model: Callable[[], Any] | None = None
    runs: int | None = None


@dataclass(frozen=True)
class Proof:
    """Where the proof is.

    Parameters
    ----------
    level : {"machine-checked", "written", "cited"}
    anchor : str
        File and lemma, docs page and anchor (`docs/theory/concentration.md#hoeffding`), or reference.
    """

    level: Literal["machine-checked", "written", "cited"]
    anchor: str

    def __str__(self) -> str:
        return f"{self.level}: {self.anchor}"


@dataclass(frozen=True, kw_only=True)
class Theorem:
    """One result, ready to run.

    Parameters
    ----------
    key : str
        `family.name` or `algorithm.name` in lower case, e.g. `ucbvi.regret`.
    family : str
        The group it is verified with, e.g. `online`.
    title : str
        One line of plain text.
    statement : str
        LaTeX (Markdown with `$...$`), every symbol defined.
    source : str
        Paper and theorem number, or `derived here` with the docs anchor.
    claim : {"exact", "probability", "rate"}
    protocol : Measure
        Returns observations of the claim's kind.
    controls : tuple of Control
        At least one.
    proof : Proof
    expected : str
        `verified` (exact) or `consistent` (probability, rate); `refuted` for a claim that is false as published, whose
        protocol then runs its counterexample whatever model it is given.
    assumptions : tuple of Assumption
    bound : callable or None
        The right-hand side with explicit constants.
    delta : float or None
        Allowed failure probability, in (0, 1). None for exact claims and rates, and for a probability claim that is
        about an expectation: its protocol returns MeanObservations.
    default_runs : int
        Enough for a decision within the time of its family.
    default_model : callable or None
        Builds the model to use when the user names none; None: the protocol chooses.
    accepts : {"none", "finite-horizon", "discounted", "any"}
        Kinds of model the protocol takes. "none": a given model is ignored.
    """

    key: str
    family: str
    title: str
    statement: str
    source: str
    claim: Claim
    protocol: Measure
    controls: tuple[Control, ...]
    proof: Proof
    expected: str
    assumptions: tuple[Assumption, ...] = ()
    bound: Callable[..., Any] | None = None
    delta: float | None = None
    default_runs: int = 1
    default_model: Callable[[], Any] | None = None
    accepts: Accepts = "none"

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key):
            raise ValueError(f"key {self.key!r} is not of the form family.name in lower case")
        for name in ("family", "title", "statement", "source"):
            if not getattr(self, name):
                raise ValueError(f"{self.key}: {name} is empty")
        if self.claim not in EXPECTED:
            raise ValueError(f"{self.key}: claim is {self.claim!r}, not one of {', '.join(EXPECTED)}")
        if self.expected not in EXPECTED[self.claim]:
            raise ValueError(
                f"{self.key}: expected is {self.expected!r}; of a claim of kind {self.claim} it is "
                f"{' or '.join(EXPECTED[self.claim])}"
            )
        if self.delta is not None and self.claim != "probability":
            raise ValueError(f"{self.key}: delta is {self.delta} for a claim of kind {self.claim}")
        if self.delta is not None and not 0.0 < self.delta < 1.0:
            raise ValueError(f"{self.key}: delta is {self.delta}, not in (0, 1)")
        if not self.controls:
            raise ValueError(f"{self.key}: no control; a check that cannot fail proves nothing")
        names = [control.name for control in self.controls]
        if len(set(names)) < len(names):
            raise ValueError(f"{self.key}: two controls share a name among {names}")
        if self.proof.level not in LEVELS or not self.proof.anchor:
            raise ValueError(f"{self.key}: proof is {str(self.proof)!r}, not one of {', '.join(LEVELS)} with an anchor")
        if self.accepts not in ACCEPTS:
            raise ValueError(f"{self.key}: accepts is {self.accepts!r}, not one of {', '.join(ACCEPTS)}")
        if self.default_runs < 1:
            raise ValueError(f"{self.key}: default_runs is {self.default_runs}, not 1 or more")
