import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from theoryrl.lab import load_experiment, sweep
from theoryrl.mdp import evaluate, rollout
from theoryrl.offline import importance_sampling, ope_variance

PATH = Path(__file__).resolve().parent.parent.parent / "experiments" / "offline" / "curse_of_horizon.py"


@pytest.fixture(scope="module")
def experiment():
    return load_experiment(PATH)


@pytest.fixture(scope="module")
def code(experiment):
    return experiment.measure.__globals__


def test_predictions_come_from_the_model(code):
    mdp = code["model_of"](4)
    target, behaviour = code["policies"](mdp)
    assert code["predicted"](4)["per-decision"] == pytest.approx(
        np.sqrt(ope_variance(mdp, target, behaviour) / code["TRAJECTORIES"])
    )
    assert np.isnan(code["predicted"](4)["self-normalised"])


def test_squares_are_those_of_the_estimates(experiment, code, tmp_path):
    cells = [{"H": 2, "trajectories": 50}]
    frame = sweep(replace(experiment, grid=cells, summarise=None), tmp_path, seeds=1).frame
    found = frame.set_index("metric")["value"]
    mdp = code["model_of"](2)
    target, behaviour = code["policies"](mdp)
    truth = float(mdp.initial @ evaluate(mdp, target)[0])
    # Another stream of data sets: the same law, so the same error up to chance.
    squares = [
        (importance_sampling(rollout(mdp, behaviour, 50, seed), target, behaviour).value - truth) ** 2
        for seed in range(200)
    ]
    assert found["square.per-decision"] == pytest.approx(np.mean(squares), rel=0.5)
    assert found["refused.per-decision"] == 0


@pytest.mark.slow
def test_short_run_writes_the_summary_and_the_figure(experiment, code, tmp_path):
    sweep(experiment, tmp_path, seeds=2)
    written = json.loads((tmp_path / "summary.json").read_text())
    assert set(written) == {*code["METHODS"], "figure"}
    assert (tmp_path / written["figure"]).read_bytes().startswith(b"\x89PNG")
    assert all(len(written[name]["rmse"]) == len(code["HORIZONS"]) for name in code["METHODS"])
    assert written["trajectory"]["rmse"][4] > 10 * written["marginalised"]["rmse"][4]
