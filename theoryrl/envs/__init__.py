"""Floor 2: named problem families, each with its source and what is known about it in closed form."""

from theoryrl._lazy import attach
from theoryrl.envs.registry import FAMILIES

__getattr__, __dir__, __all__ = attach(
    __name__, FAMILIES | dict.fromkeys(("names", "make", "parse", "describe"), "registry")
)
