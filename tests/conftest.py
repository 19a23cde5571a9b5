"""Settings shared by all tests: hypothesis profiles and figures that need no display."""

import os

from hypothesis import HealthCheck, settings

os.environ["MPLBACKEND"] = "Agg"  # read when matplotlib is first imported, here and in subprocesses

# No deadline: the first example of a property may compile kernels. Derandomised: what is red is red for everyone.
_common = dict(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", max_examples=25, **_common)
settings.register_profile("ci", max_examples=100, **_common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_configure(config):
    """Let quantecon compile what it does on import before there are workers: all at once they would break its cache."""
    if getattr(config.option, "numprocesses", None):
        import quantecon  # noqa: F401
