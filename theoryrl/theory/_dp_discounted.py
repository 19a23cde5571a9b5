"""The dp.* entries on discounted models (statements and proofs: docs/theory/dynamic_programming.md)."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp.model import DiscountedMDP
from theoryrl.mdp.rounding import U, backup_radius, rounding_of
from theoryrl.theory._dp_tools import (
    PAGE,
    Instances,
    backup,
    discounted_instances,
    discounted_models,
    is_stationary,
    names,
    value_of,
)
from theoryrl.theory.theorem import Assumption, Control, ExactObservations, Progress, Proof, Theorem

# ---- contraction


def contraction(
    model: Any,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    factor: float = 1.0,
    power: int = 1,
) -> ExactObservations:
    """||TV - TW|| against factor * discount^power ||V - W||, at random V and W and at W = V + c, which attains it."""
    generator = np.random.default_rng(rng)
    models = discounted_models(model, generator, runs)
    instances = Instances(names(models, model))
    for mdp in models:
        rows = rounding_of(mdp)
        scale = float(np.abs(mdp.reward).max()) or 1.0
        for index in range(8):
            v = scale * generator.normal(size=mdp.n_states)
            w = v + scale if index % 4 == 0 else v + scale * generator.normal(size=mdp.n_states) ** (1 + index % 3)
            left = np.abs(backup(mdp, 0, v).max(axis=1) - backup(mdp, 0, w).max(axis=1)).max()
            right = factor * mdp.discount**power * np.abs(v - w).max()
            rounding = backup_radius(mdp, rows, v) + backup_radius(mdp, rows, w)
            size = float(np.abs(v).max() + np.abs(w).max()) + scale
            instances.add(f"{mdp.name}: pair {index}", left, right, rounding + 4 * U * size)
    return instances.observations()


# ---- greedy loss


def greedy_loss_bound(discount: float, error: Any) -> Any:
    """2 discount / (1 - discount) times the error of the value function."""
    return 2.0 * discount / (1.0 - discount) * error


def greedy_loss(
    model: Any,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    factor: float = 1.0,
) -> ExactObservations:
    """The largest V* - V^greedy(V) against `factor` times the bound, at random V and on the model that attains it."""
    generator = np.random.default_rng(rng)
    models = discounted_models(model, generator, runs)
    instances = Instances(names(models, model))
    for mdp in models:
        best = value_of(mdp)
        scale = float(np.abs(best.mid).max()) or 1.0
        for index, size in enumerate((1e-3, 0.03, 0.1, 0.3, 1.0)):
            value = best.mid + size * scale * generator.choice([-1.0, 0.0, 1.0], size=mdp.n_states)
            _lose(instances, f"{mdp.name}: V {index}", mdp, best, value, factor)
    if model is None:
        for discount in (0.5, 0.75, 0.875, 1 - 2.0**-7):
            mdp, value = tight_model(discount, 0.125)
            _lose(instances, f"tight, discount {discount:g}", mdp, value_of(mdp), value, factor)
    return instances.observations()


def _lose(instances: Instances, label: str, mdp: DiscountedMDP, best: Any, value: NDArray, factor: float) -> None:
    policy = np.argmax(backup(mdp, 0, value), axis=1)
    mine = value_of(mdp, policy)
    loss = best.mid - mine.mid
    radius = best.radius + mine.radius + 2 * U * (np.abs(best.mid) + np.abs(mine.mid))
    s = int(np.argmax(loss - radius))
    error = float(np.abs(value - best.mid).max())
    # The computed greedy policy may miss the exact one by the rounding of two backups at every step.
    inexact = 2 * backup_radius(mdp, rounding_of(mdp), value) / (1.0 - mdp.discount)
    uncertain = greedy_loss_bound(mdp.discount, float(best.radius.max()) + U * error)
    bound = factor * greedy_loss_bound(mdp.discount, error)
    instances.add(f"{label}, s={s}", loss[s], bound, radius[s] + inexact + uncertain + 8 * U * bound)


def tight_model(discount: float, error: float) -> tuple[DiscountedMDP, NDArray[np.float64]]:
    """A model and a value function, `error` away from V* = 0, that attain the bound; exact for dyadic numbers.

    State 0 can stay for -2 discount error (action 0) or move to the absorbing state 1 for nothing (action 1); at
    V = (error, -error) both look the same, and the tie goes to staying.
    """
    transition = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    reward = np.array([[-2 * discount * error, 0.0], [0.0, 0.0]])
    return DiscountedMDP(transition, reward, discount=discount), np.array([error, -error])


# ---- span stopping


def span_stop(
    model: Any,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    correction: float = 1.0,
    counterexample: bool = False,
) -> ExactObservations:
    """The error of value iteration under the span rule, with `correction` times the shift to the middle of the bounds.

    With `counterexample` the bound is the epsilon of the stopping rule, on models where the rule fires early.
    """
    generator = np.random.default_rng(rng)
    if counterexample:
        constant = DiscountedMDP(
            np.full((2, 1, 2), 0.5), np.ones((2, 1)), discount=0.99, name="constant reward, discount 0.99"
        )
        mixing = [m for m in discounted_instances(generator, runs) if m.discount == 0.99]
        models: list[DiscountedMDP] = [constant, *mixing]
    else:
        models = discounted_models(model, generator, runs)
        if model is None:
            models.append(absorbing_states(0.9))
    instances = Instances(names(models, model if not counterexample else None))
    for mdp in models:
        best, rows = value_of(mdp), rounding_of(mdp)
        scale = float(np.abs(best.mid).max()) or 1.0
        for epsilon in (0.1 * scale, 1e-3 * scale):
            value, before, low, high = _span_iteration(mdp, epsilon)
            ahead = mdp.discount / (1.0 - mdp.discount)
            shifted = value + correction * ahead * 0.5 * (low + high)
            s = int(np.argmax(np.abs(shifted - best.mid)))
            # The last sweep backed up `before`; what it got wrong enters the iterate once and both increments.
            rounding = backup_radius(mdp, rows, before) * (1 + 2 * ahead) + (8 * U) * (1 + ahead) * (
                scale + abs(low) + abs(high)
            )
            error, allowance = abs(shifted[s] - best.mid[s]), best.radius[s] + rounding
            label = f"{mdp.name}: epsilon {epsilon:.3g}"
            if counterexample:
                instances.add(label, error, epsilon, allowance)
            else:
                # Half the span can be 0, so the rounding goes to the bound.
                instances.add(label, error, ahead * 0.5 * (high - low) + allowance, 0.0)
    return instances.observations()


def absorbing_states(discount: float) -> DiscountedMDP:
    """Two absorbing states with rewards 1 and 0, on which both of MacQueen's bounds are attained."""
    return DiscountedMDP(np.eye(2)[:, np.newaxis], np.array([[1.0], [0.0]]), discount=discount, name="absorbing states")


def _span_iteration(mdp: DiscountedMDP, epsilon: float) -> tuple[NDArray, NDArray, float, float]:
    """Value iteration from 0 until max - min of the change is at most epsilon (1 - discount) / discount.

    Returns the last iterate, the one before it, and the least and the largest change.
    """
    value = np.zeros(mdp.n_states)
    for _ in itertools.count():
        new = backup(mdp, 0, value).max(axis=1)
        low, high = float((new - value).min()), float((new - value).max())
        if mdp.discount * (high - low) <= epsilon * (1.0 - mdp.discount):
            return new, value, low, high
        value = new
    raise AssertionError("unreachable: the span falls like discount^n")


# ---- entries

_COMMON = {"family": "dp", "claim": "exact", "default_runs": 4}
_DISCOUNTED = _COMMON | {
    "expected": "verified",
    "accepts": "any",
    "assumptions": (Assumption("stationary", "Transitions and rewards do not change over time.", is_stationary),),
}
_NOTATION = (
    r"$M = (S, A, P, r, \gamma)$ is a discounted MDP, $\gamma < 1$, "
    r"$(T V)(s) = \max_a [r(s, a) + \gamma \sum_t P(t | s, a) V(t)]$ with fixed point $V^*$, $\|\cdot\|$ the largest "
    r"absolute entry."
)
_RULE = (
    r" Value iteration $v_{n+1} = T v_n$ stops as soon as $b - a \le \epsilon (1 - \gamma) / \gamma$, $a$ and $b$ the "
    r"least and "
    r"the largest entry of $v_{n+1} - v_n$."
)

THEOREMS = (
    Theorem(
        key="dp.contraction",
        title="The Bellman operator is a contraction in the sup norm",
        statement=_NOTATION + r" For all $V, W$: $\|T V - T W\| \le \gamma \|V - W\|$.",
        source="Denardo (1967); Puterman (1994), section 6.2",
        protocol=contraction,
        controls=(
            Control("squared", "Discount squared.", functools.partial(contraction, power=2)),
            Control("0.99", "0.99 of the discount.", functools.partial(contraction, factor=0.99)),
        ),
        proof=Proof("written", f"{PAGE}#contraction"),
        **_DISCOUNTED,  # type: ignore[arg-type]
    ),
    Theorem(
        key="dp.greedy-loss",
        title="What the greedy policy of an approximate value function loses (tight)",
        statement=_NOTATION
        + r" If $f$ is greedy for $V$, $f(s) \in \arg\max_a [r(s, a) + \gamma \sum_t P(t | s, a) V(t)]$, and $V^f$ its "
        r"value, then $V^*(s) - V^f(s) \le \frac{2 \gamma}{1 - \gamma} \|V - V^*\|$ for every $s$; the constant is the "
        r"best.",
        source="Singh and Yee (1994)",
        protocol=greedy_loss,
        controls=(
            Control("factor 1", "The factor 1 in place of 2.", functools.partial(greedy_loss, factor=0.5)),
            Control("0.999", "0.999 of the bound.", functools.partial(greedy_loss, factor=0.999)),
        ),
        bound=greedy_loss_bound,
        proof=Proof("written", f"{PAGE}#greedy-loss"),
        **_DISCOUNTED,  # type: ignore[arg-type]
    ),
    Theorem(
        key="dp.span-stop",
        title="The span rule is right for the iterate moved to the middle of its bounds",
        statement=_NOTATION + _RULE + r" Then $v_{n+1} + \frac{\gamma}{1 - \gamma} \frac{a + b}{2}$ is within "
        r"$\frac{\gamma}{1 - \gamma} \frac{b - a}{2} \le \frac{\epsilon}{2}$ of $V^*$ in every state.",
        source="MacQueen (1966); Puterman (1994), section 6.6",
        protocol=span_stop,
        controls=(
            Control("uncorrected", "The raw iterate.", functools.partial(span_stop, correction=0.0)),
            Control("wrong sign", "The shift with its sign flipped.", functools.partial(span_stop, correction=-1.0)),
        ),
        proof=Proof("written", f"{PAGE}#span-stopping"),
        **_DISCOUNTED,  # type: ignore[arg-type]
    ),
    Theorem(
        key="dp.span-stop-uncorrected",
        title="False: when the span rule fires, the iterate itself is within epsilon of the optimal value",
        statement=_NOTATION + _RULE + r" Claim: then $\|v_{n+1} - V^*\| \le \epsilon$. False; see dp.span-stop.",
        source="toolboxes that stop by the span and return the iterate as the optimal value, e.g. pymdptoolbox 4.0b3",
        protocol=functools.partial(span_stop, correction=0.0, counterexample=True),
        controls=(
            Control(
                "wrong sign",
                "The shift that would repair it, with its sign flipped.",
                functools.partial(span_stop, correction=-1.0, counterexample=True),
            ),
        ),
        proof=Proof("written", f"{PAGE}#span-stopping"),
        expected="refuted",
        accepts="none",
        **_COMMON,  # type: ignore[arg-type]
    ),
)
