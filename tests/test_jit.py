"""Where compiled kernels are kept, and that they work where nothing can be kept."""

import os
import subprocess
import sys

import pytest

CODE = """
import numpy as np, theoryrl as t
from theoryrl.mdp._kernels_dense import row_mean
mdp = t.FiniteHorizonMDP(np.ones((1, 1, 1)), np.ones((1, 1)), horizon=3)
print(type(row_mean._cache).__name__, t.backward_induction(mdp).initial_value)
"""


@pytest.mark.slow
@pytest.mark.parametrize("writable", [True, False])
def test_kernels_work_without_a_place_to_keep_them(tmp_path, writable):
    place = tmp_path / "cache"
    if not writable:
        place.write_text("a file where a folder would have to be made")
    environment = {**os.environ, "THEORYRL_CACHE_DIR": str(place), "NUMBA_DISABLE_JIT": "0"}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    cache, value = done.stdout.split()
    assert value == "3.0"
    # What numba would choose by itself does not know when a kernel in another file has changed.
    assert (cache == "NullCache") is not writable
    assert place.is_dir() is writable


TWO_SIGNATURES = """
import sys
from theoryrl.mdp._kernels_dense import row_mean as k
cache = k._cache._cache_file
cache._load_index = lambda: {}  # as if the other process had not yet written when this one read
for kind in sys.argv[1:]:
    cache.save(kind, kind.encode())
"""


@pytest.mark.slow
def test_two_processes_never_write_the_same_file_of_machine_code(tmp_path):
    environment = {**os.environ, "THEORYRL_CACHE_DIR": str(tmp_path), "NUMBA_DISABLE_JIT": "0"}
    for kind in ("float64", "float32"):
        subprocess.run([sys.executable, "-c", TWO_SIGNATURES, kind], check=True, env=environment, capture_output=True)
    codes = sorted(path.read_bytes() for path in tmp_path.rglob("*row_mean*.nbc"))
    assert len(codes) == 2
    assert codes[0] != codes[1]
