"""The report: closed forms of RiverSwim, what does not apply, what would take too long, and its three forms."""

import json

import numpy as np
import pytest

import theoryrl as trl
from theoryrl.complexity import complexity_report, coverability
from theoryrl.complexity.report import ENTRIES


def test_river():
    mdp = trl.envs.make("riverswim", n_states=6, horizon=20)
    report = complexity_report(mdp)
    assert [m.key for m in report.measures] == [entry.key for entry in ENTRIES]
    assert all(m.status == "exact" and m.definition and m.source and m.cost > 0 for m in report.measures)
    # Nothing beats swimming one way for good, so a state is best reached by the policy that only swims right or stays.
    steps = [10 / 3]
    for _ in range(4):
        steps.append((10 + steps[-1]) / 3)
    assert report["diameter"].value == pytest.approx(sum(steps), rel=1e-12)
    assert report["diameter"].note == "from state 0 to state 5"
    assert report["coverability"].per_layer == pytest.approx(coverability(mdp), rel=0)
    # Layer 1: state 0 surely (left), state 1 with 0.3 (right); layer 2: 0.09 in state 2, 0.3 * (0.7 + 0.6) in state 1.
    assert report["coverability"].per_layer[:3] == pytest.approx([2, 2 * 1.3, 2 * (1 + 0.39 + 0.09)], rel=1e-12)
    weights = np.array([1, 3, 9, 27, 81, 3 / 7 * 81])
    assert f"{weights[-1] / weights.sum():.6g}" in report["bias_span"].note
    # Two steps from the end in state 2 a swim to the right is worth nothing; it costs the chance of 0.0005 later.
    assert report["minimal_gap"].value == pytest.approx(0.0005 * 0.9, rel=1e-9)
    right = 2 * mdp.horizon  # action 0 and 1 at every layer
    assert (
        report["uniform_concentrability"].value >= report["optimal_policy_concentrability"].value > right / mdp.horizon
    )


def test_what_does_not_apply_says_so():
    staged = complexity_report(trl.random_mdp(3, 2, 3, 0, staged=True))
    assert staged["diameter"].status == staged["bias_span"].status == "not-applicable"
    assert staged["diameter"].value is None and staged["diameter"].note == "the model changes over time"
    assert staged["coverability"].status == "exact"
    rewards = trl.random_mdp(3, 2, 3, 0)
    moving = complexity_report(trl.FiniteHorizonMDP(rewards.transition, np.zeros((3, 3, 2)), horizon=3))
    assert moving["diameter"].status == "exact" and moving["bias_span"].status == "not-applicable"
    discounted = complexity_report(rewards.with_discount(0.9))
    assert discounted["coverability"].note == "needs a horizon" and discounted["diameter"].status == "exact"
    with pytest.raises(TypeError):
        complexity_report("riverswim")
    for budget in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="budget"):
            complexity_report(rewards, budget=budget)
    with pytest.raises(KeyError, match="there is no measure 'width'"):
        staged["width"]


def test_what_would_take_too_long_says_so():
    # Computed after all, the diameter of this model would take a day.
    mdp = trl.envs.make("riverswim", n_states=3000, horizon=20).to_sparse()
    report = complexity_report(mdp, budget=1e8)
    for key in ("coverability", "diameter", "uniform_mixing_time", "occupancy_rank"):
        assert report[key].status == "over-budget" and report[key].value is None
        assert "over the budget of 1.0e+08" in report[key].note and report[key].cost > 1e8
    assert report["environmental_norm"].status == "exact"


def test_forms():
    mdp = trl.envs.make("combination_lock")
    report = complexity_report(mdp)
    document = json.loads(report.to_json(), parse_constant=lambda name: pytest.fail(f"bare {name} in JSON"))
    assert document["model"] == mdp.name and document["horizon"] == 5
    rows = {row["key"]: row for row in document["measures"]}
    assert rows["diameter"]["value"] == "inf" and rows["diameter"]["note"] == "not communicating"
    assert rows["coverability"]["value"] == 6 and rows["coverability"]["per_layer"] == [3, 6, 6, 6, 6]
    frame = report.to_frame()
    assert len(frame) == len(ENTRIES) and frame.set_index("key").loc["coverability", "value"] == 6
    assert "coverability=6" in repr(report)
    partial = complexity_report(trl.random_mdp(3, 2, 3, 0, staged=True))
    assert np.isnan(partial.to_frame().set_index("key").loc["diameter", "value"])
    assert "without diameter" in repr(partial)
