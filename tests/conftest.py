"""Settings shared by all tests: hypothesis profiles and a matplotlib that needs no display."""

import os

import matplotlib
from hypothesis import HealthCheck, settings

matplotlib.use("Agg")

# No deadline: the first example of a property may compile kernels. Derandomised: a red test is red for everyone.
_common = dict(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", max_examples=25, **_common)
settings.register_profile("ci", max_examples=100, **_common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
