import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from theoryrl.lab import load_experiment, sweep
from theoryrl.mdp.evaluation import evaluate
from theoryrl.online import run

PATH = Path(__file__).resolve().parent.parent.parent / "experiments" / "online" / "learner_survey.py"


@pytest.fixture(scope="module")
def experiment():
    return load_experiment(PATH)


@pytest.fixture(scope="module")
def code(experiment):
    """The names of the experiment's file."""
    return experiment.measure.__globals__


def synthetic(code, level, seeds=20):
    """A table of final regrets: `level(preset, model, learner)` plus noise that all learners share under one seed."""
    rng = np.random.default_rng(0)
    rows = []
    for preset, scale in code["SCALES"].items():
        for model in code["MODELS"]:
            names = list(code["learners"](code["model_of"](model), scale))
            for seed, shared in enumerate(rng.normal(scale=100.0, size=seeds)):
                for name in names:
                    value = level(preset, model, name) + shared + rng.normal(scale=0.1)
                    fixed = {"preset": preset, "model": model, "seed": seed, "metric": f"regret.{name}"}
                    rows += [fixed | {"step": 1, "value": 0.0}, fixed | {"step": 10, "value": value}]
    return pd.DataFrame(rows)


def test_only_the_constants_of_the_theorems_are_provable(code):
    for model in code["MODELS"]:
        mdp = code["model_of"](model)
        assert all(learner.provable for learner in code["learners"](mdp, 1.0).values())
        assert not any(learner.provable for learner in code["learners"](mdp, 0.1).values())


def test_order_names_learners_of_the_survey(code):
    names = set(code["learners"](code["model_of"]("chain"), 1.0))
    assert all({better, worse} <= names and better != worse for better, worse, _ in code["ORDER"])
    assert len(code["statements"]()) == len(set(code["statements"]()))


@pytest.mark.parametrize(("n", "error"), [(20, 0.05), (20, 0.0005), (7, 0.05)])
def test_median_interval_is_the_narrowest_of_the_sign_test(code, n, error):
    ordered = np.arange(1.0, n + 1)
    low, high = code["median_interval"](ordered[::-1], error)
    rank = int(low)  # the interval runs from the rank-th to the rank-th last order statistic
    assert high == n + 1 - rank
    assert 2 * binom.cdf(rank - 1, n, 0.5) <= error < 2 * binom.cdf(rank, n, 0.5)


def test_median_interval_of_too_few_is_the_line(code):
    assert code["median_interval"](np.zeros(5), 0.01) == (-math.inf, math.inf)


def test_paired_differences_decide_and_ties_stay_open(code):
    rank = {name: i for i, name in enumerate(("UCBVI-BF", "EULER", "UCBVI-CH", "UCB-B", "UCB-H", "uniform"))}

    def level(preset, model, name):
        if model == "lock":
            return -5.0 * rank.get(name, 2.0)  # the other way round
        return 5.0 * rank.get(name, 2.0)  # those not named lose as much as UCBVI-CH

    words = {
        (r["preset"], r["model"], r["better"], r["worse"]): r["word"] for r in code["judged"](synthetic(code, level))
    }
    assert set(words) == set(code["statements"]())
    for (_, model, better, worse), word in words.items():
        if rank.get(better, 2) == rank.get(worse, 2):
            assert word == "open"
        else:
            assert word == ("reversed" if model == "lock" else "holds")


def test_few_seeds_decide_nothing(code):
    records = code["judged"](synthetic(code, lambda *_: 0.0, seeds=3))
    assert {record["word"] for record in records} == {"open"}
    assert all(record["interval"] is None for record in records)


def test_the_unit_is_the_regret_of_the_uniform_learner(code):
    model = code["model_of"]("deep sea")
    uniform = code["learners"](model, 1.0)["uniform"]
    assert run(uniform, model, 50).regret[0, -1] == pytest.approx(50 * code["uniform_loss"](model), rel=1e-12)
    assert evaluate(model, np.full((21, 2), 0.5))[0, 0] >= -1


@pytest.mark.slow
def test_the_whole_grid_short_writes_the_summary_and_the_figure(experiment, code, tmp_path, monkeypatch):
    monkeypatch.setitem(code, "EPISODES", 30)
    sweep(replace(experiment, source="short"), tmp_path, seeds=1)
    written = json.loads((tmp_path / "summary.json").read_text())
    assert (tmp_path / written["figure"]).read_bytes().startswith(b"\x89PNG")
    for preset, models in written["ranking"].items():
        for model, rows in models.items():
            assert set(rows) == set(code["learners"](code["model_of"](model), code["SCALES"][preset]))
            means = [row["mean"] for row in rows.values()]
            assert means == sorted(means)
            if preset == "theory":
                assert rows["uniform"]["mean"] == pytest.approx(1.0, rel=1e-9)
