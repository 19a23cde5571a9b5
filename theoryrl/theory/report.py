"""What `verify` hands back: the verdict with everything that led to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from theoryrl.theory.theorem import (
    Claim,
    ExactObservations,
    MeanObservations,
    Observations,
    ProbabilityObservations,
    Proof,
)
from theoryrl.theory.verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd

SECONDS = (60, 300, 1200, 3600)


def json_safe(value: Any) -> Any:
    """`value` in plain Python types that JSON can hold; non-finite numbers become "inf", "-inf" and "nan".

    Raises
    ------
    TypeError
        For anything that has no such form.
    """
    if isinstance(value, Enum):
        return json_safe(value.value)
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, np.generic):
        return json_safe(value.item())
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return json_safe(value.tolist())
    if isinstance(value, (list, tuple)):
        return [json_safe(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no JSON form")


@dataclass(frozen=True, eq=False)
class ControlReport:
    """What came out of one broken variant; anything but `refuted` is a fault of the theorem's own check."""

    name: str
    verdict: Verdict
    model: str
    note: str
    observations: Observations = field(repr=False)


@dataclass(frozen=True, eq=False)
class Report:
    """The verdict on one theorem.

    Attributes
    ----------
    key, family, claim, expected
        Of the theorem.
    verdict : Verdict
    as_expected : bool
        The verdict is the expected one and every control was refuted. A model of the user's that does not meet the
        theorem's assumptions is as expected too (nothing came out wrong: the verdict says `not-applicable`); a default
        model that does not is a fault of the theorem.
    tightness : float
        The largest observed / bound; NaN where it has no meaning.
    runs : int
        Independent runs (probability), seeds (rate) or instances checked (exact).
    seed : int or str
        Seed given; of anything but an int, the SeedSequence it led to.
    model : str
        Name of the model or models that were run, `none` if the claim is not about one.
    proof : Proof
    controls : tuple of ControlReport
        Empty when the verdict is `not-applicable`.
    seconds : float
        Wall time, controls included.
    note : str
        One line: what decided the verdict, and what did not come out as expected.
    observations : ExactObservations, ProbabilityObservations, MeanObservations, RateObservations or None
        None when the verdict is `not-applicable`.
    """

    key: str
    family: str
    claim: Claim
    verdict: Verdict
    expected: Verdict
    as_expected: bool
    tightness: float
    runs: int
    seed: int | str
    model: str
    proof: Proof
    controls: tuple[ControlReport, ...]
    seconds: float
    note: str
    observations: Observations | None = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it, without the observations.

        `seconds` is rounded up to 60, 300, 1200, 3600 or whole hours, an upper bound on the time taken, so that
        two runs with one seed give the same document; the attribute keeps the measured time.
        """
        return json_safe(
            {
                "key": self.key,
                "family": self.family,
                "claim": self.claim,
                "verdict": self.verdict,
                "expected": self.expected,
                "as_expected": self.as_expected,
                "tightness": self.tightness,
                "runs": self.runs,
                "seed": self.seed,
                "model": self.model,
                "proof": str(self.proof),
                "controls": [
                    {"name": control.name, "verdict": control.verdict, "model": control.model}
                    for control in self.controls
                ],
                "seconds": rounded_up(self.seconds),
                "note": self.note,
            }
        )

    def to_frame(self) -> pd.DataFrame:
        """The observations of the theorem and its controls as a tidy pandas table.

        One row per instance (exact), run (probability) or seed and point (rate); column `part` is `theorem` or
        the control's name.
        """
        import pandas as pd

        parts = [("theorem", self.observations)] if self.observations is not None else []
        parts += [(control.name, control.observations) for control in self.controls]
        tables = [
            pd.DataFrame({"key": self.key, "part": part, **_columns(observations)}) for part, observations in parts
        ]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["key", "part"])


def rounded_up(seconds: float) -> int:
    """The least of 60, 300, 1200, 3600 or whole hours that is no less than `seconds`."""
    return next((step for step in SECONDS if seconds <= step), 3600 * math.ceil(seconds / 3600))


def _columns(seen: Observations) -> dict[str, Any]:
    if isinstance(seen, ExactObservations):
        return {
            "instance": np.arange(seen.runs),
            "label": list(seen.labels) or [""] * seen.runs,
            "observed": seen.observed,
            "bound": seen.bound,
            "allowance": seen.allowance,
        }
    if isinstance(seen, MeanObservations):
        return {"run": np.arange(seen.runs), "observed": seen.observed, "bound": seen.bound}
    if isinstance(seen, ProbabilityObservations):
        return {
            "run": np.arange(seen.runs),
            "observed": seen.observed,
            "bound": seen.bound,
            "failed": seen.failures,
        }
    seeds, points = seen.y.shape
    return {"seed": np.repeat(np.arange(seeds), points), "x": np.tile(seen.x, seeds), "y": seen.y.ravel()}
