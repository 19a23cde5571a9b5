"""Floor 6: the command line."""

from __future__ import annotations

from theoryrl._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, {"main": "app", "invoke": "app"})
