"""The how-to's own experiment runs and comes out as it says."""

import math
import re
from pathlib import Path

from theoryrl.lab import load_experiment, sweep

PAGE = Path(__file__).parents[2] / "docs" / "lab.md"


def test_the_experiment_of_the_page_comes_out_as_predicted(tmp_path):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL).group(1)
    (tmp_path / "mean.py").write_text(code, encoding="utf-8")
    experiment = load_experiment(tmp_path / "mean.py")
    result = sweep(experiment, tmp_path / "results")
    assert result.total == 5 * 8
    assert result.summary["as_predicted"] is True
    # The mean absolute deviation of a binomial mean is sqrt(2 p (1 - p) / (pi n)) for large n.
    largest = result.frame.loc[result.frame["n"] == 1000, "value"].mean()
    assert math.isclose(largest, math.sqrt(0.5 / (math.pi * 1000)), rel_tol=0.1)
