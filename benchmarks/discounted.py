"""Discounted models to 1e-6 against peers; every answer is compared with a far more accurate one."""

from importlib.util import find_spec

import numpy as np

import theoryrl as trl
from benchmarks import peers
from benchmarks.planning import OURS, dense_model
from benchmarks.timing import race, skipped

TOLERANCE = 1e-6


def river_swim(n_states):
    """RiverSwim, the contrast: dense storage of a chain that mixes slowly."""
    transition, reward = np.zeros((n_states, 2, n_states)), np.zeros((n_states, 2))
    for s in range(n_states):
        left, right = max(s - 1, 0), min(s + 1, n_states - 1)
        transition[s, 0, left] = 1
        for target, weight in ((right, 0.35), (s, 0.6), (left, 0.05)):
            transition[s, 1, target] += weight
    reward[0, 0], reward[-1, 1] = 0.005, 1
    return trl.FiniteHorizonMDP(transition, reward, horizon=1)


def discounted(case, mdp, seconds=4.0):
    """quantecon's three methods and two of mdpsolver's."""
    transition = mdp.transition.to_scipy() if mdp.is_sparse else mdp.transition
    model = peers.quantecon_model(transition, mdp.reward, mdp.discount)
    contenders = {OURS: lambda: trl.solve_discounted(mdp, tolerance=TOLERANCE).value}
    slow = {}
    if mdp.discount > 0.95 or mdp.n_states >= 1000:
        slow["value_iteration"] = "several hundred times slower than its other methods"
    if mdp.is_sparse:
        slow["policy_iteration"] = "factorises a sparse matrix, which fills in: minutes"
    for method in ("modified_policy_iteration", "policy_iteration", "value_iteration"):
        if method in slow:
            yield skipped(case, f"quantecon {method}", slow[method])
        else:
            contenders[f"quantecon {method}"] = lambda m=method: model.solve(method=m, epsilon=TOLERANCE).v
    if mdp.n_states > 50_000:
        yield skipped(case, "mdpsolver", "takes lists of lists; loading these takes longer than all solves together")
    elif find_spec("mdpsolver"):
        for algorithm in ("mpi", "vi"):
            arguments = (transition, mdp.reward, mdp.discount, TOLERANCE, algorithm)
            contenders[f"mdpsolver {algorithm}"] = peers.mdpsolver(*arguments)
    else:
        yield skipped(case, "mdpsolver", "not installed")
    yield skipped(case, "pymdptoolbox", "its value iteration stops far from the tolerance it is given")
    reference = trl.solve_discounted(mdp, tolerance=1e-10).value
    yield from race(case, contenders, reference=reference, seconds=seconds)


def measure():
    """All discounted races."""
    small, large = dense_model(100, 5, 1), dense_model(1000, 10, 1)
    for discount in (0.95, 0.99):
        yield from discounted(f"dense S=100 A=5, discount {discount}", small.with_discount(discount))
        yield from discounted(f"dense S=1000 A=10, discount {discount}", large.with_discount(discount))
        yield from discounted(f"RiverSwim S=200, discount {discount}", river_swim(200).with_discount(discount))
    for n_states, discount in ((10_000, 0.95), (10_000, 0.99), (100_000, 0.95)):
        garnet = trl.random_mdp(n_states, 4, 1, 0, branching=5, sparse=True).with_discount(discount)
        yield from discounted(f"Garnet S={n_states} A=4 b=5, discount {discount}", garnet)
