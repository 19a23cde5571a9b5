"""The command line: exit codes, one JSON document on stdout, one line on stderr, the same seed the same document."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

import theoryrl as trl
from theoryrl.cli import invoke

FIELDS = {
    "key", "family", "claim", "verdict", "expected", "as_expected", "tightness", "runs", "seed", "model", "proof",
    "controls", "seconds",
}  # fmt: skip


def refuse_constants(text):
    """Parse JSON strictly: a bare NaN or Infinity is no JSON."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"bare {name} in JSON"))


def faults(capsys, *arguments):
    """Run a call that is off; return its one line."""
    assert invoke(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("theoryrl: ")
    return lines[0]


def test_verify_json(capsys):
    assert invoke(["verify", "pigeonhole.visits", "concentration.azuma", "--json"]) == 0
    rows = refuse_constants(capsys.readouterr().out)
    assert [row["key"] for row in rows] == ["pigeonhole.visits", "concentration.azuma"]
    for row in rows:
        assert FIELDS <= row.keys()
        assert row["as_expected"] and row["verdict"] == "verified"
        assert row["controls"] and all(control["verdict"] == "refuted" for control in row["controls"])


@pytest.mark.slow
def test_the_same_seed_prints_the_same_document(capsys):
    documents = []
    for seed in ("3", "3", "4"):
        call = [
            "verify",
            "ucbvi.optimism",
            "--mdp",
            "riverswim",
            "n_states=3",
            "horizon=3",
            "--runs",
            "6",
            "--seed",
            seed,
            "--json",
        ]
        # Six runs are too few for a verdict: inconclusive, which is not what was expected.
        assert invoke(call) == 1
        documents.append(capsys.readouterr().out)
    assert documents[0] == documents[1]
    assert documents[0] != documents[2]
    row = refuse_constants(documents[0])[0]
    assert row["verdict"] == "inconclusive" and row["model"] == "riverswim(n_states=3, horizon=3)" and row["runs"] == 6


def test_verify_table_and_figures(capsys, tmp_path):
    out = tmp_path / "results"
    assert invoke(["verify", "pigeonhole.visits", "--out", str(out)]) == 0
    assert "verified" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["pigeonhole.visits.png", "verify.json"]
    assert (out / "pigeonhole.visits.png").read_bytes().startswith(b"\x89PNG")
    assert refuse_constants((out / "verify.json").read_text())[0]["key"] == "pigeonhole.visits"
    # Again into the same folder: replaced.
    assert invoke(["verify", "pigeonhole.visits", "--out", str(out), "--json"]) == 0


def test_a_folder_of_something_else_is_left_alone(capsys, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    assert "thesis.tex" in faults(capsys, "verify", "pigeonhole.visits", "--out", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_not_as_expected_is_exit_code_1(capsys, monkeypatch):
    import dataclasses

    from theoryrl.cli import verifying
    from theoryrl.theory import get

    broken = dataclasses.replace(get("pigeonhole.visits"), expected="refuted")
    monkeypatch.setattr(verifying, "get", lambda key: broken)
    assert invoke(["verify", "pigeonhole.visits", "--json"]) == 1
    assert not refuse_constants(capsys.readouterr().out)[0]["as_expected"]


def test_theorems(capsys):
    assert invoke(["theorems", "--json"]) == 0
    rows = refuse_constants(capsys.readouterr().out)
    assert {"ucbvi.regret", "dp.optimality", "concentration.hoeffding"} <= {row["key"] for row in rows}
    for row in rows:
        assert {"key", "family", "statement", "source", "claim", "expected", "proof", "controls"} <= row.keys()
    assert invoke(["theorems", "--family", "concentration", "--json"]) == 0
    assert {row["family"] for row in refuse_constants(capsys.readouterr().out)} == {"concentration"}
    assert invoke(["theorems"]) == 0
    assert "ucbvi.regret" in capsys.readouterr().out


def test_show(capsys):
    assert invoke(["show", "ucbvi.regret"]) == 0
    text = capsys.readouterr().out
    assert "Azar" in text and "no bonus" in text and "docs/theory/ucbvi.md#regret" in text


@pytest.mark.parametrize("mode", [[], ["--certify"], ["--certify", "exact"]])
def test_solve(capsys, mode):
    assert invoke(["solve", "riverswim", "n_states=4", "--horizon", "9", *mode, "--json"]) == 0
    row = refuse_constants(capsys.readouterr().out)
    mdp = trl.envs.make("riverswim", n_states=4, horizon=9)
    assert row["value"] == float(mdp.initial @ trl.backward_induction(mdp).value[0])
    if mode:
        assert row["lower"] <= row["value"] <= row["upper"] and row["upper"] - row["lower"] < 1e-9
    if mode[-1:] == ["exact"]:
        numerator, _, denominator = row["exact"].partition("/")
        assert abs(int(numerator) / int(denominator or 1) - row["value"]) < 1e-12


def test_solve_a_file(capsys, tmp_path):
    mdp = trl.random_mdp(3, 2, 4, rng=1)
    trl.save(mdp, tmp_path / "model.npz")
    assert invoke(["solve", str(tmp_path / "model.npz"), "--json"]) == 0
    row = refuse_constants(capsys.readouterr().out)
    assert row["horizon"] == 4 and row["value"] == float(mdp.initial @ trl.backward_induction(mdp).value[0])
    trl.save(mdp.with_discount(0.9), tmp_path / "endless.npz")
    assert invoke(["solve", str(tmp_path / "endless.npz"), "--certify", "--json"]) == 0
    row = refuse_constants(capsys.readouterr().out)
    assert row["converged"] and row["lower"] <= row["value"] <= row["upper"]


def test_solve_gymnasium_with_arguments(capsys):
    assert invoke(["solve", "gymnasium:FrozenLake-v1", "is_slippery=false", "--horizon", "6", "--json"]) == 0
    assert refuse_constants(capsys.readouterr().out)["value"] == 1.0


def test_the_horizon_of_a_gymnasium_model_can_be_a_parameter(capsys):
    assert invoke(["solve", "gymnasium:FrozenLake-v1", "is_slippery=false", "horizon=6", "--json"]) == 0
    row = refuse_constants(capsys.readouterr().out)
    assert row["value"] == 1.0 and row["horizon"] == 6


def test_envs(capsys):
    assert invoke(["envs", "--json"]) == 0
    rows = refuse_constants(capsys.readouterr().out)
    assert {"riverswim", "deep_sea", "garnet"} <= {row["name"] for row in rows}
    assert invoke(["envs"]) == 0 and "riverswim" in capsys.readouterr().out


def test_help(capsys):
    assert invoke([]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in ("verify", "theorems", "show", "solve", "run", "envs"))
    assert invoke(["verify", "--help"]) == 0 and "--family" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["verify"], "name a theorem"),
        (["verify", "ucbvi.regre"], "did you mean 'ucbvi.regret'"),
        (["verify", "--family", "alchemy"], "no family 'alchemy'"),
        (["verify", "pigeonhole.visits", "--runs", "0"], "--runs"),
        (["verify", "pigeonhole.visits", "--seed", "-1"], "--seed"),
        (["verify", "pigeonhole.visits", "n_states=3"], "need --mdp"),
        (["verify", "pigeonhole.visits", "--mdp", "riverswin"], "did you mean riverswim"),
        (["solve", "riverswim", "n_stats=3"], "n_states"),
        (["solve", "riverswim", "--horizon", "0"], "--horizon"),
        (["solve", "riverswim", "horizon=3", "--horizon", "4"], "given twice"),
        (["solve", "gymnasium:FrozenLak-v1"], "FrozenLake"),
        (["solve", "gymnasium:CartPole-v1"], "continuous"),
        (["solve", "gymnasium:FrozenLake-v1", "horizon=3", "--horizon", "4"], "given twice"),
        (["solve", "gymnasium:FrozenLake-v1", "is_slippery=true", "is_slippery=false"], "given twice"),
        (["solve", "gymnasium:FrozenLake-v1", "env_or_id=3"], "env_or_id"),
        (["solve", ""], "no model ''"),
        (["solve", "missing.npz"], "missing.npz"),
        (["solve", "riverswim", "--certify=fast"], "float or exact"),
        (["show", "ucbvi.regre"], "ucbvi.regret"),
        (["run", "missing.py"], "missing.py"),
        (["theorem"], "theorem"),
        (["solve", "riverswim", "--sideways"], "sideways"),
    ],
)
def test_bad_calls_are_one_line_and_code_2(capsys, arguments, says):
    assert says in faults(capsys, *arguments)


def test_values_that_overflow_name_the_theorem_and_the_model(capsys, tmp_path):
    mdp = trl.random_mdp(2, 2, 3, rng=0)
    trl.save(mdp.with_reward(mdp.reward * 1.5e308).renamed("huge"), tmp_path / "huge.npz")
    assert "dp.optimality on huge: " in faults(capsys, "verify", "dp.optimality", "--mdp", str(tmp_path / "huge.npz"))


@pytest.mark.parametrize("error", [ZeroDivisionError, OverflowError, FloatingPointError])
def test_arithmetic_that_fails_names_the_theorem_and_the_model(capsys, monkeypatch, error):
    def fails(*arguments, **settings):
        raise error("float division by zero")

    monkeypatch.setattr("theoryrl.cli.verifying.verify", fails)
    says = faults(capsys, "verify", "dp.optimality", "--mdp", "riverswim")
    assert "dp.optimality on " in says and "float division by zero" in says


def test_a_damaged_file_is_one_line(capsys, tmp_path):
    mdp = trl.random_mdp(3, 2, 4, rng=1)
    trl.save(mdp, tmp_path / "model.npz")
    whole = (tmp_path / "model.npz").read_bytes()
    (tmp_path / "model.npz").write_bytes(whole[: len(whole) // 2])
    assert "model.npz" in faults(capsys, "solve", str(tmp_path / "model.npz"))


EXPERIMENT = """
import os, time
from theoryrl.lab import Experiment

def measure(cell, seed):
    while cell["n"] == 3 and os.path.exists(os.environ.get("GATE", "")):
        time.sleep(0.01)
    return {"x": float(cell["n"] + seed.generate_state(1)[0] / 2**32)}

EXPERIMENT = Experiment(name="sleepy", claim="none", grid={"n": [1, 2, 3, 4]}, measure=measure, seeds=8)
"""


def finished_jobs(database):
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT count(*) FROM job").fetchone()[0]


def test_run_is_resumed_with_the_same_table_after_ctrl_c(tmp_path, capsys):
    path = tmp_path / "sleepy.py"
    path.write_text(EXPERIMENT)
    gate = tmp_path / "gate"
    gate.touch()  # the third cell waits as long as it is there
    command = [sys.executable, "-m", "theoryrl.cli", "run", str(path), "--jobs", "1", "--out", str(tmp_path / "cut")]
    environment = {**os.environ, "GATE": str(gate)}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # What runs in the background of a shell script starts with SIGINT ignored, and would pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    database = tmp_path / "cut" / "results.sqlite"
    while process.poll() is None and not (database.exists() and finished_jobs(database) == 16):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2 and out == ""
    assert err.strip().splitlines()[-1].startswith("theoryrl: interrupted")
    assert invoke(["run", str(path), "--out", str(tmp_path / "cut")]) == 0
    assert invoke(["run", str(path), "--out", str(tmp_path / "whole"), "--json"]) == 0
    tables = [(tmp_path / folder / "table.csv").read_bytes() for folder in ("cut", "whole")]
    assert tables[0] == tables[1] and tables[0].count(b"\n") == 1 + 32
    other = tmp_path / "other.py"
    other.write_text(EXPERIMENT.replace("sleepy", "drowsy"))
    capsys.readouterr()
    assert str(tmp_path / "cut") in faults(capsys, "run", str(other), "--out", str(tmp_path / "cut"))


LOUD = """
from theoryrl.lab import Experiment
{above}
def measure(cell, seed):
    {measure}
    return dict(x=1.0)
def summarise(frame, out):
    {summarise}
    return dict()
EXPERIMENT = Experiment(name="loud", claim="none", grid=dict(n=[1]), measure=measure, summarise=summarise)
"""


@pytest.mark.parametrize("place", ["above", "measure", "summarise"])
def test_an_experiment_that_prints_or_leaves_does_not_pass_for_one_that_ran(tmp_path, capsys, place):
    def written(statement):
        lines = {name: statement if name == place else "pass" for name in ("above", "measure", "summarise")}
        path = tmp_path / "loud.py"
        path.write_text(LOUD.format(**lines))
        return str(path)

    assert invoke(["run", written("print('hello')"), "--out", str(tmp_path / "a"), "--json"]) == 0
    captured = capsys.readouterr()
    assert refuse_constants(captured.out)["rows"] == 1 and "hello" in captured.err
    assert invoke(["run", written("raise SystemExit(0)"), "--out", str(tmp_path / "b")]) == 2
    assert "SystemExit" in capsys.readouterr().err


def shell(tail):
    """A command line of ours through a shell: its exit code and what it says on stderr."""
    command = f"set -o pipefail; {sys.executable} -m theoryrl.cli {tail}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full and bash")
def test_output_that_nobody_takes():
    code, err = shell("envs --json >/dev/full")
    assert code == 2 and err.startswith("theoryrl: standard output: ") and len(err.splitlines()) == 1
    code, err = shell("solve riverswim >/dev/full")
    assert code == 2 and err.startswith("theoryrl: standard output: ") and len(err.splitlines()) == 1
    code, err = shell("solve riverswim | true")
    assert code in (0, 2) and err == ""  # 0 if the line was taken before the reader left
    assert shell("theorems >&-") == (0, "")
    assert shell("solve nope 2>&-") == (2, "")


def test_an_interrupt_says_how_to_go_on_only_where_one_can(capsys, monkeypatch, tmp_path):
    from theoryrl.cli import sweeping, verifying

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(verifying, "run", interrupt)
    monkeypatch.setattr(sweeping, "report", interrupt)
    assert faults(capsys, "verify", "pigeonhole.visits") == "theoryrl: interrupted"
    assert "goes on from there" in faults(capsys, "run", str(tmp_path))


def test_numbers_survive_the_document(capsys):
    assert invoke(["solve", "riverswim", "--json"]) == 0
    value = refuse_constants(capsys.readouterr().out)["value"]
    mdp = trl.envs.make("riverswim")
    assert np.float64(value) == mdp.initial @ trl.backward_induction(mdp).value[0]
