"""`theoryrl complexity`: one JSON document or a table; faults are one line and code 2."""

import json

import pytest

from theoryrl.cli import invoke


def test_json_against_closed_forms(capsys):
    assert invoke(["complexity", "riverswim", "n_states=6", "--horizon", "20", "--json"]) == 0
    text = capsys.readouterr().out
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"bare {name} in JSON"))
    assert document["model"] == "riverswim(n_states=6, horizon=20)" and document["horizon"] == 20
    rows = {row["key"]: row for row in document["measures"]}
    # m_0 = 10/3 and m_s = (10 + m_{s-1}) / 3 steps to the right; their sum is 5470/243.
    assert rows["diameter"]["value"] == pytest.approx(5470 / 243, rel=1e-12)
    assert rows["coverability"]["per_layer"][:4] == pytest.approx([2, 2.6, 2.96, 3.356], rel=1e-12)
    assert all({"definition", "source", "cost", "status", "note"} <= row.keys() for row in rows.values())
    assert invoke(["complexity", "riverswim", "n_states=6", "horizon=20", "--json"]) == 0
    assert capsys.readouterr().out == text


def test_table_and_infinities(capsys):
    assert invoke(["complexity", "combination_lock", "--budget", "2000"]) == 0
    out = capsys.readouterr().out
    assert "combination_lock(" in out and "not communicating" in out and "over-budget" in out
    assert "Jaksch, Ortner, Auer (2010)" in out
    assert invoke(["complexity", "combination_lock", "--json"]) == 0
    rows = {row["key"]: row for row in json.loads(capsys.readouterr().out)["measures"]}
    assert rows["diameter"]["value"] == "inf"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["riverswm"], "did you mean riverswim"),
        (["riverswim", "n_states=1"], "n_states"),
        (["riverswim", "--budget", "0"], "budget must be positive"),
        ([], "Missing argument"),
    ],
)
def test_faults(capsys, words, message):
    assert invoke(["complexity", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and message in captured.err and len(captured.err.strip().splitlines()) == 1
