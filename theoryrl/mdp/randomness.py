"""Seeds in, generators out: one Generator per (run, role), spawned from one SeedSequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence

Rng = int | SeedSequence | Generator


def as_seed_sequence(rng: Any) -> SeedSequence:
    """The SeedSequence behind an int, a SeedSequence or a Generator.

    A SeedSequence is copied, so that the same object gives the same streams however often it is used; a Generator gives
    128 bits of its stream and so advances, as a caller who passes one expects.

    Raises
    ------
    ValueError
        For anything else (None included: a result that cannot be repeated is no result) and for negative seeds.
    """
    if isinstance(rng, SeedSequence):
        return SeedSequence(rng.entropy, spawn_key=rng.spawn_key, pool_size=rng.pool_size)
    if isinstance(rng, Generator):
        return SeedSequence([int(word) for word in rng.integers(0, 2**32, size=4, dtype=np.uint64)])
    if isinstance(rng, (bool, np.bool_)) or not isinstance(rng, (int, np.integer)) or rng < 0:
        raise ValueError(f"rng must be a non-negative int, a SeedSequence or a Generator, not {rng!r}")
    return SeedSequence(int(rng))


def as_generator(rng: Any) -> Generator:
    """One Generator (PCG64): a Generator is passed through, anything else seeds a new one."""
    return rng if isinstance(rng, Generator) else Generator(PCG64(as_seed_sequence(rng)))


def streams(rng: Any, runs: int, roles: Sequence[str] = ("environment", "learner")) -> list[tuple[Generator, ...]]:
    """For each of `runs` runs one independent Generator per role; run i is the same whatever the number of runs."""
    return [
        tuple(Generator(PCG64(child)) for child in run.spawn(len(roles))) for run in as_seed_sequence(rng).spawn(runs)
    ]
