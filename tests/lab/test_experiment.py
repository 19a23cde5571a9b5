import dataclasses
import json

import pytest

from theoryrl.lab import Experiment, load_experiment


def measure(cell, seed):
    return {"x": 1.0}


def make(grid, **changes):
    return Experiment(name="toy", claim="toy.claim", grid=grid, measure=measure, **changes)


def test_mapping_is_the_product_with_the_last_parameter_fastest():
    experiment = make({"b": [1, 2], "a": ["x", None]})
    cells = [json.loads(text) for text in experiment.cells]
    assert cells == [{"b": 1, "a": "x"}, {"b": 1, "a": None}, {"b": 2, "a": "x"}, {"b": 2, "a": None}]
    assert experiment.parameters == ("b", "a")


def test_listed_cells_are_taken_as_they_are():
    experiment = make([{"S": 5}, {"A": 2, "S": 3}])
    assert [json.loads(text) for text in experiment.cells] == [{"S": 5}, {"A": 2, "S": 3}]
    assert experiment.parameters == ("S", "A")


def test_a_cell_is_the_same_text_in_any_order_of_its_parameters():
    assert make([{"a": 1, "b": 2}]).cells == make([{"b": 2, "a": 1}]).cells


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({}, None),
        ([], "no cells"),
        (5, "must be a mapping"),
        ({"S": []}, r"grid\['S'\] has no values"),
        ({"S": 5}, r"grid\['S'\] must be a sequence"),
        ({"S": "abc"}, r"grid\['S'\] must be a sequence"),
        ({"S": [1, float("nan")]}, r"grid\['S'\]\[1\] = nan"),
        ({"S": [1, {2}]}, r"grid\['S'\]\[1\]"),
        ({"S": [1, 2, 1]}, "cell 2 repeats cell 0"),
        ([{"S": float("inf")}], "cell 0 is not made of JSON"),
        ([{3: 1}], "a parameter's name is a string, not 3"),
        ({"seed": [1]}, "'seed' has the name of a column"),
    ],
)
def test_a_bad_grid_is_refused_and_the_entry_named(grid, message):
    if message is None:  # no parameters: one cell, the empty one
        assert make(grid).cells == ("{}",)
        return
    with pytest.raises(ValueError, match=message) as caught:
        make(grid)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [{"name": ""}, {"claim": " "}, {"measure": 3}, {"summarise": 3}, {"seeds": 0}, {"predicted": {"a": {1}}}],
)
def test_bad_fields_are_refused(changes):
    good = dict(name="toy", claim="toy.claim", grid={"S": [1]}, measure=measure)
    Experiment(**good)
    with pytest.raises(ValueError, match=next(iter(changes))):
        Experiment(**good | changes)


def test_digest_changes_with_what_determines_the_results_and_with_nothing_else():
    experiment = make({"S": [1, 2]})
    assert make({"S": [1, 2]}).digest() == experiment.digest()
    assert dataclasses.replace(experiment, predicted={"slope": 0.5}, seeds=9).digest() == experiment.digest()
    for change in ({"name": "other"}, {"grid": {"S": [1, 2.0]}}, {"settings": {"T": 1}}, {"source": "pass"}):
        assert dataclasses.replace(experiment, **change).digest() != experiment.digest()


FILE = """
from dataclasses import dataclass
from theoryrl.lab import Experiment

@dataclass
class Helper:
    x: "int"

def measure(cell, seed):
    return {"x": Helper(cell["S"]).x}

EXPERIMENT = Experiment(name="toy", claim="toy.claim", grid={"S": [1, 2]}, measure=measure)
"""


def test_load_takes_the_experiment_and_the_text_of_its_file(tmp_path):
    path = tmp_path / "toy.py"
    path.write_text(FILE)
    experiment = load_experiment(path)
    assert experiment.source == FILE
    assert experiment.measure({"S": 4}, None) == {"x": 4}
    assert not (tmp_path / "__pycache__").exists()


def test_load_runs_the_text_that_is_there_now(tmp_path):
    # Same size, same second: a cached .pyc would not notice.
    path = tmp_path / "toy.py"
    path.write_text(FILE)
    before = load_experiment(path)
    path.write_text(FILE.replace('"S": [1, 2]', '"S": [1, 7]'))
    after = load_experiment(str(path))
    assert (before.cells[1], after.cells[1]) == ('{"S": 2}', '{"S": 7}')
    assert before.digest() != after.digest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("x = 1", "defines no EXPERIMENT"),
        ("EXPERIMENT = 3", "EXPERIMENT is a int"),
        ("def f(:", "running it raised SyntaxError"),
        ("import no_such_module", "running it raised ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 / 0", "running it raised ZeroDivisionError"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_load_says_in_one_line_what_is_wrong_with_the_file(tmp_path, text, message):
    path = tmp_path / "bad.py"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as caught:
        load_experiment(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_load_of_a_folder(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        load_experiment(tmp_path)
