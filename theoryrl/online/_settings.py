"""The two numbers that most learners are set by, and what they may be."""

from __future__ import annotations

import math


def require_level(delta: float) -> None:
    """Refuse a failure probability outside (0, 1)."""
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie in (0, 1), not {delta!r}")


def require_scale(scale: float) -> None:
    """Refuse a factor of a bonus that is negative, infinite or NaN."""
    if not (scale >= 0 and math.isfinite(scale)):
        raise ValueError(f"scale must be finite and not negative, not {scale!r}")
