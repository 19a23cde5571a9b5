"""Exact rational arithmetic on models: every stored float is the rational number it stands for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp.model import DiscountedMDP, FiniteHorizonMDP, require_model
from theoryrl.mdp.policy import policy_layers

Model = FiniteHorizonMDP | DiscountedMDP
# One row as integers: successors, weights (all times one power of two), their sum; None where the action is forbidden.
Row = tuple[list[int], list[int], int] | None


def _flint() -> Any:
    try:
        import flint
    except ImportError:
        raise ModuleNotFoundError("exact arithmetic needs python-flint: pip install python-flint") from None
    return flint


def exact_value(mdp: Model, policy: ArrayLike | None = None, *, bit_budget: int = 100_000) -> str:
    """The optimal value at the initial distribution as an exact fraction "p/q"; of a policy, if one is given.

    Backward induction over the rationals; for a discounted model, policy iteration with exact solutions of
    (I - gamma P) V = r.

    Parameters
    ----------
    mdp : FiniteHorizonMDP or DiscountedMDP
        A row is its weights divided by their exact sum.
    policy : policy, optional
    bit_budget : int
        Denominators grow with every stage; beyond this many bits the computation is refused.

    Returns
    -------
    str
        "p/q" in lowest terms ("p" if q = 1), as `fractions.Fraction` reads it.

    Raises
    ------
    ValueError
        If a common denominator needs more bits than the budget; the layer is named.
    ModuleNotFoundError
        Without python-flint.
    """
    require_model(mdp)
    flint = _flint()
    layers = None if policy is None else policy_layers(policy, mdp)
    rows, rewards = _rows(mdp), _rewards(mdp)
    if isinstance(mdp, DiscountedMDP):
        value = _discounted_value(flint, mdp, rows, rewards, layers, bit_budget)
    else:
        value = _finite_value(flint, mdp, rows, rewards, layers, bit_budget)
    start = np.flatnonzero(mdp.initial)
    weights = [flint.fmpq(*_ratio(mdp.initial[s])) for s in start]
    total = sum((w * value[s] for w, s in zip(weights, start, strict=True)), flint.fmpq(0))
    return str(total / sum(weights, flint.fmpq(0)))


def _finite_value(
    flint: Any, mdp: FiniteHorizonMDP, rows: list[Row], rewards: list, layers: Any, bit_budget: int
) -> list:
    fmpq, fmpz = flint.fmpq, flint.fmpz
    pairs = mdp.n_states * mdp.n_actions
    rewards = [fmpq(*r) for r in rewards]
    value = [fmpq(0)] * mdp.n_states
    for h in range(mdp.horizon - 1, -1, -1):
        common = fmpz(1)
        for v in value:
            common = common.lcm(v.q)
        bits = common.bit_length()
        if bits > bit_budget:
            raise ValueError(
                f"the exact value at layer {h + 1} needs denominators of {bits} bits, more than {bit_budget}"
            )
        scaled = [v.p * (common // v.q) for v in value]
        first, first_reward = h * pairs % len(rows), h * pairs % len(rewards)
        new = []
        for s in range(mdp.n_states):
            q = {}
            for a in _support(layers, h, s, mdp):
                row = rows[first + s * mdp.n_actions + a]
                assert row is not None  # masked pairs are in no support
                mean = sum((w * scaled[t] for t, w in zip(row[0], row[1], strict=True)), fmpz(0))
                q[a] = fmpq(mean, common * row[2]) + rewards[first_reward + s * mdp.n_actions + a]
            new.append(_collapse(flint, q, layers, h, s))
        value = new
    return value


def _discounted_value(
    flint: Any, mdp: DiscountedMDP, rows: list[Row], rewards: list, layers: Any, bit_budget: int
) -> list:
    fmpq, size, n_actions = flint.fmpq, mdp.n_states, mdp.n_actions
    gamma = fmpq(*_ratio(mdp.discount))
    # Cramer: a denominator divides the determinant of the integer matrix, at most the product of its row norms.
    most = size * (int(gamma.q).bit_length() + 1)
    for s in range(size):
        most += max(row[2].bit_length() for row in rows[s * n_actions : (s + 1) * n_actions] if row)
    if most > bit_budget:
        raise ValueError(f"the exact discounted value may need a denominator of {most} bits, more than {bit_budget}")
    rewards = [fmpq(*r) for r in rewards]

    def backup(value: list, s: int, a: int) -> Any:
        successors, weights, total = rows[s * n_actions + a]  # type: ignore[misc]
        mean = sum((w * value[t] for t, w in zip(successors, weights, strict=True)), fmpq(0))
        return rewards[s * n_actions + a] + gamma * mean / total

    if layers is None:
        from theoryrl.mdp.discounted import solve_quietly

        policy = solve_quietly(mdp).policy.tolist()
    while True:
        matrix, right = flint.fmpq_mat(size, size), flint.fmpq_mat(size, 1)
        for s in range(size):
            chosen = [policy[s]] if layers is None else _support(layers, 0, s, mdp)
            sure = layers is None or layers.ndim == 2
            share = {a: fmpq(1) if sure else fmpq(*_ratio(layers[0, s, a])) for a in chosen}
            whole = sum(share.values(), fmpq(0))
            line = [fmpq(0)] * size
            for a, p in share.items():
                successors, weights, total = rows[s * n_actions + a]  # type: ignore[misc]
                for t, w in zip(successors, weights, strict=True):
                    line[t] -= gamma * p / whole * fmpq(w, total)
                right[s, 0] += p / whole * rewards[s * n_actions + a]
            line[s] += 1
            for t in range(size):
                matrix[s, t] = line[t]
        solution = matrix.solve(right)
        value = [solution[s, 0] for s in range(size)]
        if layers is not None:
            return value
        stable = True
        for s in range(size):
            q = {a: backup(value, s, a) for a in range(n_actions) if mdp.action_mask[s, a]}
            best = max(q, key=q.__getitem__)
            if q[best] > value[s]:
                policy[s], stable = best, False
        if stable:
            return value


def _support(layers: Any, h: int, s: int, mdp: Model) -> list[int]:
    """The actions that count at (h, s): all allowed ones, or those that the policy takes."""
    if layers is None:
        return np.flatnonzero(mdp.action_mask[s]).tolist()
    here = layers[h % len(layers), s]
    return [int(here)] if layers.ndim == 2 else np.flatnonzero(here).tolist()


def _collapse(flint: Any, q: dict, layers: Any, h: int, s: int) -> Any:
    """The maximum over actions, or the policy's mean."""
    if layers is None or layers.ndim == 2:
        return max(q.values())
    shares = {a: flint.fmpq(*_ratio(layers[h % len(layers), s, a])) for a in q}
    return sum((shares[a] * x for a, x in q.items()), flint.fmpq(0)) / sum(shares.values(), flint.fmpq(0))


def exact_residuals(
    mdp: Model, value: NDArray[np.float64], actions: NDArray[np.int64], choice: NDArray[np.float64], *, optimal: bool
) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]]:
    """The residuals of every stage as fractions, above (over the actions) and below (for the policy).

    `up[h] = max_s (max_a or pi) T_h v_{h+1}(s) - v_h(s)`, `down[h] = max_s v_h(s) - T_h^pi v_{h+1}(s)`.
    """
    flint = _flint()
    fmpq, fmpz = flint.fmpq, flint.fmpz
    layers = actions if choice.shape[1] == 0 else choice
    table = np.stack([value, value]) if isinstance(mdp, DiscountedMDP) else value
    gamma = fmpq(*_ratio(mdp.discount)) if isinstance(mdp, DiscountedMDP) else fmpq(1)
    rows, rewards = _rows(mdp), [fmpq(*r) for r in _rewards(mdp)]
    bits = _bits(table)
    pairs = mdp.n_states * mdp.n_actions
    up, down = [], []
    for h in range(len(table) - 1):
        later, now = [fmpz(n) for n in _scaled(table[h + 1], bits)], [fmpz(n) for n in _scaled(table[h], bits)]
        above, below = [], []
        for s in range(mdp.n_states):
            q = {}
            for a in _support(None if optimal else layers, h, s, mdp):
                successors, weights, total = rows[h * pairs % len(rows) + s * mdp.n_actions + a]  # type: ignore[misc]
                mean = sum((w * later[t] for t, w in zip(successors, weights, strict=True)), fmpz(0))
                reward = rewards[h * pairs % len(rewards) + s * mdp.n_actions + a]
                q[a] = reward + gamma * fmpq(mean, fmpz(total) << bits)
            claimed = fmpq(now[s], fmpz(1) << bits)
            mine = _collapse(flint, {a: q[a] for a in _support(layers, h, s, mdp)}, layers, h, s)
            above.append((max(q.values()) if optimal else mine) - claimed)
            below.append(claimed - mine)
        up.append(max(above))
        down.append(max(below))
    return tuple(_fraction(x) for x in up), tuple(_fraction(x) for x in down)


def weighted_mean(weights: NDArray[np.float64], values: NDArray[np.float64]) -> Fraction:
    """The mean sum w v / sum w as a fraction."""
    pairs = [(Fraction(w), Fraction(v)) for w, v in zip(weights.tolist(), values.tolist(), strict=True) if w]
    return sum((w * v for w, v in pairs), Fraction(0)) / sum(w for w, _ in pairs)


# -- floats as integers ------------------------------------------------------------------------------------------


def _ratio(x: Any) -> tuple[int, int]:
    return float(x).as_integer_ratio()


def _fraction(x: Any) -> Fraction:
    return Fraction(int(x.p), int(x.q))


def _split(values: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Odd integers n (or 0) and exponents e with values = n * 2^e."""
    mantissa, exponent = np.frexp(values)
    whole = (mantissa * 2.0**53).astype(np.int64)
    lowest = np.where(whole == 0, 1, whole & -whole)
    zeros = np.frexp(lowest.astype(float))[1] - 1
    return whole >> zeros, np.where(whole == 0, 0, exponent.astype(np.int64) - 53 + zeros)


def _bits(values: NDArray[np.float64]) -> int:
    """The least k >= 0 such that values * 2^k are integers."""
    return max(0, int(-_split(values)[1].min()))


def _scaled(values: NDArray[np.float64], bits: int) -> list[int]:
    """The integers values * 2^bits."""
    whole, exponent = _split(values)
    return [n << e for n, e in zip(whole.tolist(), (exponent + bits).tolist(), strict=True)]


def _entries(mdp: Model) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.float64], NDArray[np.float64] | None]]:
    """Every allowed row: its number, successors, positive weights, and outcome rewards if there are any."""
    size = mdp.n_states * mdp.n_actions
    allowed = mdp.action_mask.reshape(-1)
    if mdp.is_sparse:
        for number in range(mdp.transition.n_rows):
            if allowed[number % size]:
                block = slice(mdp.transition.indptr[number], mdp.transition.indptr[number + 1])
                outcome = None if mdp.outcome_reward is None else mdp.outcome_reward[block]
                yield number, mdp.transition.indices[block].astype(np.int64), mdp.transition.data[block], outcome
        return
    table = mdp.transition.reshape(-1, mdp.n_states)
    outcomes = None if mdp.outcome_reward is None else mdp.outcome_reward.reshape(-1, mdp.n_states)
    for number in range(len(table)):
        if allowed[number % size]:
            here = np.flatnonzero(table[number])
            yield number, here, table[number, here], None if outcomes is None else outcomes[number, here]


def _rows(mdp: Model) -> list[Row]:
    """All rows as integers, in the order (layer, state, action)."""
    layers = mdp.transition.n_layers if mdp.is_sparse else len(mdp.transition_layers)
    rows: list[Row] = [None] * (layers * mdp.n_states * mdp.n_actions)
    for number, successors, weights, _ in _entries(mdp):
        whole = _scaled(weights, _bits(weights))
        rows[number] = (successors.tolist(), whole, sum(whole))
    return rows


def _rewards(mdp: Model) -> list[tuple[int, int]]:
    """Exact mean rewards as ratios, in the order (layer, state, action); of outcome rewards, their exact mean."""
    if mdp.outcome_reward is None:
        return [_ratio(r) for r in mdp.reward.reshape(-1)]
    means = [(0, 1)] * mdp.reward.size
    for number, _, weights, outcome in _entries(mdp):
        assert outcome is not None
        means[number] = weighted_mean(weights, outcome).as_integer_ratio()
    return means


# -- the independent check: Python's own numbers only ------------------------------------------------------------


def recheck(certificate: Any) -> None:
    """Raise ValueError unless every bound of a certificate follows from its stage bounds and those from the model."""
    mdp = certificate.mdp
    finite = isinstance(mdp, FiniteHorizonMDP)
    value = certificate.value.tolist() if finite else [certificate.value.tolist()] * 2
    gamma = Fraction(1) if finite else Fraction(mdp.discount)
    policy = policy_layers(certificate.policy, mdp).tolist()
    _recheck_stages(certificate, mdp, value, gamma, policy)
    if finite:
        above: list[Any] = [max(-Fraction(v) for v in value[-1])]
        below: list[Any] = [max(Fraction(v) for v in value[-1])]
        for h in range(mdp.horizon - 1, -1, -1):
            above.insert(0, _plus(_number(certificate.stage_upper[h]), above[0]))
            below.insert(0, _plus(_number(certificate.stage_lower[h]), below[0]))
        lower, upper = certificate.lower.tolist(), certificate.upper.tolist()
        if any(lower[-1]) or any(upper[-1]):
            raise ValueError("the value after the last step is 0, the enclosure says otherwise")
    else:
        stages = (_number(certificate.stage_upper[0]), _number(certificate.stage_lower[0]))
        above, below = ([x if isinstance(x, float) else x / (1 - gamma)] for x in stages)
        lower, upper = [certificate.lower.tolist()], [certificate.upper.tolist()]
    for h in range(mdp.horizon if finite else 1):
        for s, v in enumerate(value[h]):
            if not _number(upper[h][s]) >= _plus(Fraction(v), above[h]):
                raise ValueError(f"upper[{h}, {s}] = {upper[h][s]} does not follow from the stage bounds")
            if not _number(lower[h][s]) <= _plus(Fraction(v), -below[h]):
                raise ValueError(f"lower[{h}, {s}] = {lower[h][s]} does not follow from the stage bounds")
    if certificate.policy_gap is not None:
        gap = max(_plus(a, b) for a, b in zip(above, below, strict=True))
        if not _number(certificate.policy_gap) >= gap:
            raise ValueError(f"policy_gap = {certificate.policy_gap} does not follow from the stage bounds")
    weights = [(Fraction(w), s) for s, w in enumerate(mdp.initial.tolist()) if w]
    total = sum(w for w, _ in weights)
    mean = sum((w * Fraction(value[0][s]) for w, s in weights), Fraction(0)) / total
    exact = certificate.mode == "exact"
    ends = [(certificate.initial_lower, certificate.initial_upper)]
    ends += [(certificate.exact_lower, certificate.exact_upper)] if exact else []
    for low, high in ends:
        if not (_number(low) <= _plus(mean, -below[0]) and _number(high) >= _plus(mean, above[0])):
            raise ValueError(f"the enclosure [{low}, {high}] at the start does not follow from the stage bounds")


def _recheck_stages(certificate: Any, mdp: Model, value: list, gamma: Fraction, policy: list) -> None:
    optimal = certificate.policy_gap is not None
    mask = mdp.action_mask.tolist()
    rows = {}
    for number, successors, weights, outcome in _entries(mdp):
        ratios = [w.as_integer_ratio() for w in weights.tolist()]
        scale = max(d for _, d in ratios)
        whole = [n * (scale // d) for n, d in ratios]
        mean = None
        if outcome is not None:
            earned = sum((n * Fraction(o) for n, o in zip(whole, outcome.tolist(), strict=True)), Fraction(0))
            mean = earned / sum(whole)
        rows[number] = (successors.tolist(), whole, sum(whole), mean)
    layers = (max(rows) // (mdp.n_states * mdp.n_actions)) + 1
    means = mdp.reward_layers.tolist()
    for h in range(len(value) - 1):
        scale = max(v.as_integer_ratio()[1] for v in value[h + 1])
        later = [n * (scale // d) for n, d in (v.as_integer_ratio() for v in value[h + 1])]
        up, down = _number(certificate.stage_upper[h]), _number(certificate.stage_lower[h])
        for s in range(mdp.n_states):
            q = {}
            for a in range(mdp.n_actions):
                if mask[s][a]:
                    successors, whole, total, mean = rows[((h % layers) * mdp.n_states + s) * mdp.n_actions + a]
                    ahead = sum(w * later[t] for w, t in zip(whole, successors, strict=True))
                    reward = Fraction(means[h % len(means)][s][a]) if mean is None else mean
                    q[a] = reward + gamma * Fraction(ahead, total * scale)
            here = policy[h % len(policy)][s]
            share = {here: Fraction(1)} if isinstance(here, int) else {a: Fraction(p) for a, p in enumerate(here) if p}
            mine = sum((p * q[a] for a, p in share.items()), Fraction(0)) / sum(share.values())
            best = max(q.values()) if optimal else mine
            if not best - Fraction(value[h][s]) <= up:
                raise ValueError(f"stage {h}, state {s}: the backup exceeds the claimed value by more than stage_upper")
            if not Fraction(value[h][s]) - mine <= down:
                raise ValueError(f"stage {h}, state {s}: the claimed value exceeds the backup by more than stage_lower")


def _number(x: Any) -> Any:
    """A bound as a fraction; an infinite one stays the float it is."""
    return x if isinstance(x, float) and math.isinf(x) else Fraction(x)


def _plus(a: Any, b: Any) -> Any:
    """Add without turning fractions into floats."""
    infinite = [x for x in (a, b) if isinstance(x, float)]
    return infinite[0] if infinite else a + b
