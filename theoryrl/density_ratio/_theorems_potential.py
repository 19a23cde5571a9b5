"""The glow.* entries that hold for every sequence of policies: the potential, and what clipping loses.

Statements and proofs: docs/theory/glow.md. Both are claims about non-negative tables, so that occupancies as computed
are instances without any error; what is allowed for is the rounding of both sides.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.density_ratio._protocols import played, setting_of
from theoryrl.density_ratio.bounds.constants import clipped_constant, self_normalised_constants, tuned_constants
from theoryrl.density_ratio.glow import GLOW
from theoryrl.density_ratio.potential import (
    clip_losses,
    clipped_moments,
    harmonic,
    potential,
    potential_bound,
)
from theoryrl.density_ratio.weights import OccupancyRatios
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.rounding import U, gamma
from theoryrl.theory._dp_tools import Instances, finite_models, names
from theoryrl.theory.theorem import Control, ExactObservations, Progress, Proof, Theorem

PAGE = "docs/theory/glow.md"
ROUNDS = 120
# Clipping levels gamma, and constants A in front of the second moment: 0, below 1/2, 1/2 and above.
SLOPES = (0.001, 0.01, 0.1, 0.25, 0.5, 1.0, 2.0)

FAMILY: dict[str, Any] = {
    "family": "density-ratio",
    "claim": "exact",
    "expected": "verified",
    "accepts": "finite-horizon",
    "default_runs": 2,
}
NOTATION = (
    r"For policies $\pi_1, \dots, \pi_T$ and one layer of a finite-horizon MDP let $d_t(s, a)$ be the probability that "
    r"$\pi_t$ is in $s$ and takes $a$ there, and $D_t = d_1 + \dots + d_t$."
)


def sequences(
    model: FiniteHorizonMDP | None, rng: np.random.SeedSequence, runs: int
) -> tuple[tuple[str, ...], Iterator[tuple[str, NDArray[np.float64], NDArray[np.float64]]]]:
    """Names of models, and (label, tables (T, H, S, A), largest table over the policies (H, S, A))."""
    generator = np.random.default_rng(rng)
    models = finite_models(model, generator, runs)

    def along() -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.float64]]]:
        for mdp in models:
            setting = setting_of(mdp)
            assert isinstance(setting.weights, OccupancyRatios)
            masses, row = setting.weights.masses[0], setting.weights.row
            # A small level throws members out early, so that several policies are played.
            for label, scale in (("GLOW", 1.0), ("GLOW at a fiftieth of its level", 0.02)):
                learner = GLOW(
                    setting.cls,
                    setting.weights,
                    iterations=ROUNDS,
                    coverability=setting.coverability,
                    total_reward=setting.total_reward,
                    scale=scale,
                )
                chosen = played(learner, mdp, 1, np.random.SeedSequence(int(generator.integers(2**32)))).member[0]
                yield f"{mdp.name}: {label}", masses[row[chosen]], masses.max(axis=0)
            several = len(masses)
            for label, order in (
                ("in turns", np.arange(ROUNDS) % several),
                ("in blocks", np.arange(ROUNDS) * several // ROUNDS),
                ("at random", generator.integers(0, several, ROUNDS)),
            ):
                yield f"{mdp.name}: {label}", masses[order], masses.max(axis=0)
        if model is None:
            yield from _made_up(generator)

    return names(models, model), along()


def _made_up(rng: np.random.Generator) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.float64]]]:
    """Point masses in turn, one distribution throughout, a single round, and distributions with random supports."""
    for points, times in ((1, 50), (2, 1), (4, 8), (16, 4)):
        tables = np.tile(np.eye(points), (times, 1))[:, np.newaxis, :, np.newaxis]
        yield f"{points} points, {times} times in turn", tables, tables.max(axis=0)
    for cells in (2, 7):
        law = rng.dirichlet(np.ones(cells), (60, 1, 1)) * (rng.random((60, 1, 1, cells)) < 0.5)
        yield f"random masses on {cells} cells", law, law.max(axis=0)
        same = np.repeat(rng.dirichlet(np.ones(cells), (1, 1, 1)), 60, axis=0)
        yield f"one distribution on {cells} cells", same, same.max(axis=0)


# ---- potential


def potential_protocol(
    model: FiniteHorizonMDP | None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    factor: float = 1.0,
    mutant: str = "",
) -> ExactObservations:
    """The potential of sequences of policies, layer by layer, against the chain of bounds.

    With `factor` that multiple of C H(T / C); mutant `no-log`: C alone; `log-T`: 5 C log T, at T = 1 too.
    """
    models, given = sequences(model, rng, runs)
    instances = Instances(models)
    for label, tables, largest in given:
        if mutant == "log-T":
            tables = tables[:1]
        rounds, layers, n_states, n_actions = tables.shape
        pairs = n_states * n_actions
        added = potential(tables).sum(axis=0)
        peaks = tables.max(axis=0)
        for h in range(layers):
            total, peak, cover = float(tables[:, h].sum()), float(peaks[h].sum()), float(largest[h].sum())
            if not total > 0:
                continue
            sums = tables[:, h].sum(axis=0)
            seen = peaks[h] > 0
            cells = float(potential_bound(sums[seen], peaks[h][seen]).sum())
            chain = [cells, float(potential_bound(total, peak)), float(potential_bound(total, cover))]
            if mutant == "no-log":
                chain = [cover]
            elif mutant == "log-T":
                chain = [5 * cover * float(np.log(total))]
            # Sums of up to T S A non-negative terms; digamma is good to some units of its largest term.
            relative = 2 * gamma(3 * rounds + 4 * pairs + 20)
            series = 32 * U * cover * (3 + float(harmonic(rounds)) + float(np.log(1 + rounds / peaks[h][seen].min())))
            left = float(added[h])
            for kind, right in zip(("cell by cell", "played", "all policies"), chain, strict=False):
                right *= factor
                instances.add(f"{label}, h={h}, {kind}", left, right, relative * (left + abs(right)) + series * pairs)
                left = right if not mutant and factor == 1.0 else left
    return instances.observations()


# ---- clip loss


def clip_protocol(
    model: FiniteHorizonMDP | None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    factor: float = 1.0,
    mutant: str = "",
) -> ExactObservations:
    """What clipping loses, as an expectation and as a sum; against the potential, alone and with the second moment.

    `factor` multiplies kappa(A). Mutants: `eighth` (1 / (8 gamma) for 1 / (4 gamma)), `unpaid` (A for kappa(A)).
    """
    models, given = sequences(model, rng, runs)
    instances = Instances(models)
    tables_and_labels = [(label, tables) for label, tables, _ in given]
    if model is None:
        tables_and_labels += list(_attaining())
    weights = (0.0, 0.25, tuned_constants().moment, 0.5, self_normalised_constants()[0])
    for label, tables in tables_and_labels:
        rounds, _, n_states, n_actions = tables.shape
        added, mass = potential(tables), tables.sum(axis=(2, 3))
        for slope in SLOPES:
            lost, moment = clip_losses(tables, slope), clipped_moments(tables, slope)
            slack = 4 * gamma(2 * rounds + 2 * n_states * n_actions + 20) * mass
            name = f"{label}, gamma={slope:g}"
            direct = _expected_loss(tables, slope)
            _worst(instances, f"{name}, expectation", direct, lost, slack)
            _worst(instances, f"{name}, sum", lost, direct, slack)
            part = 8 if mutant == "eighth" else 4
            _worst(instances, f"{name}, loss", lost, added / (part * slope), slack + slack * added / slope)
            for a in weights:
                kappa = a if mutant == "unpaid" else factor * clipped_constant(a)
                both = a / slope * moment + lost
                room = slack * (1 + (a + kappa) / slope)
                _worst(instances, f"{name}, loss and moment, A={a:.3g}", both, kappa / slope * added, room)
    return instances.observations()


def _expected_loss(tables: NDArray[np.float64], slope: float) -> NDArray[np.float64]:
    """E_d[1 - min(w, gamma t) / w] from the ratios themselves, (T, H); tables need not have mass 1."""
    rounds = np.arange(1, len(tables) + 1)[:, np.newaxis, np.newaxis, np.newaxis]
    mean = np.cumsum(tables, axis=0) / rounds
    ratio = np.divide(tables, mean, out=np.zeros(tables.shape), where=tables > 0)
    kept = np.minimum(1.0, np.divide(slope * rounds, ratio, out=np.ones(tables.shape), where=ratio > 0))
    return np.asarray((tables * (1 - kept)).sum(axis=(2, 3)))


def _worst(instances: Instances, label: str, left: NDArray, right: NDArray, room: NDArray) -> None:
    """The round and layer in which left exceeds right the most."""
    excess = left - right - room
    t, h = np.unravel_index(int(np.argmax(np.where(np.isnan(excess), np.inf, excess))), excess.shape)
    # Both sides are rounding of nothing: true, and says nothing about how tight the claim is.
    if not (abs(right[t, h]) <= room[t, h] and abs(left[t, h]) <= room[t, h]):
        instances.add(f"{label}, t={t + 1}, h={h}", left[t, h], right[t, h], room[t, h])


def _attaining() -> Iterator[tuple[str, NDArray[np.float64]]]:
    """One cell whose share in the second round is 1/2 = 2 gamma, and 3/8 = 2 (1 - A) gamma at A = gamma = 1/4."""
    yield "one cell, equal masses", np.array([1.0, 1.0]).reshape(2, 1, 1, 1)
    yield "one cell, masses 5 and 3", np.array([5.0, 3.0]).reshape(2, 1, 1, 1)


THEOREMS = (
    Theorem(
        key="glow.potential",
        title="How often density ratios can surprise: the potential of what GLOW, or anyone, plays",
        statement=NOTATION
        + r" With $M(z) = \max_t d_t(z)$, $\mathcal H(x) = \sum_{k \ge 1} x / (k (k + x))$ and $C \ge \sum_z M(z)$, "
        r"such as the coverability of the layer, $\sum_{t=1}^T E_{d_t}[d_t / D_t] \le \sum_z M(z) \mathcal H(D_T(z) / "
        r"M(z)) \le C \mathcal H(T / C) \le C H_T$. Disjoint point masses in turn attain the second bound.",
        source=f"derived here, {PAGE}#glow-potential; Lemma E.3 of Amortila et al. (2024) has C (1 + 4 log(1 + T))",
        protocol=potential_protocol,
        controls=(
            Control("0.999", "0.999 of the bound.", functools.partial(potential_protocol, factor=0.999)),
            Control("no log", "C alone on the right.", functools.partial(potential_protocol, mutant="no-log")),
            Control(
                "5 C log T",
                "The bound as printed, which is 0 for a single round.",
                functools.partial(potential_protocol, mutant="log-T"),
            ),
        ),
        bound=potential_bound,
        proof=Proof("written", f"{PAGE}#glow-potential"),
        **FAMILY,
    ),
    Theorem(
        key="glow.clip-loss",
        title="What clipping a ratio at gamma t loses, and that the second moment pays for it",
        statement=NOTATION
        + r" With $w = t d_t / D_t$, $\check w = \min(w, \gamma t)$, $\gamma > 0$, $A \ge 0$ and $\kappa(A) = A$ for "
        r"$A \ge 1/2$, else $1 / (4 (1 - A))$: $E_{d_t}[1 - \check w / w] = \sum_z (d_t(z) - \gamma D_t(z))_+ \le "
        r"\frac{1}{4 \gamma} E_{d_t}[d_t / D_t]$ and $\frac{A}{\gamma t} E_{D_t / t}[\check w^2] + \sum_z (d_t(z) - "
        r"\gamma D_t(z))_+ \le \frac{\kappa(A)}{\gamma} E_{d_t}[d_t / D_t]$; both constants are the least possible.",
        source=f"derived here, {PAGE}#glow-clip-loss; the change of measure in Theorem 3.1 of Amortila et al. (2024)",
        protocol=clip_protocol,
        controls=(
            Control("0.999", "0.999 of kappa(A).", functools.partial(clip_protocol, factor=0.999)),
            Control("eighth", "1 / (8 gamma) for 1 / (4 gamma).", functools.partial(clip_protocol, mutant="eighth")),
            Control(
                "unpaid",
                "A in the place of kappa(A), for A below 1/2 too.",
                functools.partial(clip_protocol, mutant="unpaid"),
            ),
        ),
        bound=clipped_constant,
        proof=Proof("written", f"{PAGE}#glow-clip-loss"),
        **FAMILY,
    ),
)
