"""`theoryrl solve`: the optimal value of a model, and a rigorous enclosure of it."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Literal, cast

from theoryrl.mdp.certify import certify
from theoryrl.mdp.discounted import solve_discounted
from theoryrl.mdp.model import DiscountedMDP, FiniteHorizonMDP
from theoryrl.mdp.planning import backward_induction
from theoryrl.theory.report import json_safe

MODES = (None, "float", "exact")


def report(model: FiniteHorizonMDP | DiscountedMDP, mode: str | None, as_json: bool) -> int:
    """Solve, certify if asked, print."""
    if mode not in MODES:
        raise ValueError(f"--certify takes float or exact, not {mode!r}")
    start = time.perf_counter()
    plan: Any = solve_discounted(model) if isinstance(model, DiscountedMDP) else backward_induction(model)
    value = float(model.initial @ (plan.value if isinstance(model, DiscountedMDP) else plan.value[0]))
    row: dict[str, Any] = {
        "model": model.name,
        "n_states": model.n_states,
        "n_actions": model.n_actions,
        "value": value,
    }
    if isinstance(model, DiscountedMDP):
        row |= {"discount": model.discount, "method": plan.method, "converged": plan.converged}
    else:
        row |= {"horizon": model.horizon}
    if mode is not None:
        certificate = certify(model, plan, mode=cast(Literal["float", "exact"], mode))
        row |= {"lower": certificate.initial_lower, "upper": certificate.initial_upper}
        if mode == "exact":
            row["exact"] = certificate.exact
    if as_json:
        sys.stdout.write(json.dumps(json_safe(row), indent=2, allow_nan=False) + "\n")
        return 0
    for key, entry in row.items():
        sys.stdout.write(f"{key:<10} {entry!r}\n" if isinstance(entry, float) else f"{key:<10} {entry}\n")
    sys.stdout.write(f"{'seconds':<10} {time.perf_counter() - start:.3f}\n")
    return 0
