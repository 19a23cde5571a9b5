"""Backward induction against peers and against the time it takes to read the transitions."""

from importlib.util import find_spec

import numpy as np

import theoryrl as trl
from benchmarks import peers
from benchmarks.roofline import read_call
from benchmarks.timing import race, skipped

OURS = "theoryrl"


def dense_model(n_states, n_actions, horizon, staged=False):
    """Rows and rewards uniform, normalised; no row has structure."""
    rng = np.random.default_rng(0)
    lead = (horizon,) if staged else ()
    transition = rng.random((*lead, n_states, n_actions, n_states))
    transition /= transition.sum(axis=-1, keepdims=True)
    return trl.FiniteHorizonMDP(transition, rng.random((*lead, n_states, n_actions)), horizon=horizon)


def dense_contenders(mdp):
    """Every library that is installed and takes the model."""
    arguments = mdp.transition, mdp.reward, mdp.horizon
    contenders = {OURS: lambda: trl.backward_induction(mdp).value[0]}
    contenders["numpy matmul"] = peers.numpy_matmul(*arguments)
    if mdp.stationary:
        contenders["quantecon"] = peers.quantecon(*arguments)
        contenders["pymdptoolbox"] = peers.pymdptoolbox(*arguments)
    if find_spec("jax"):
        contenders["JAX lax.scan"] = peers.jax_scan(*arguments)
    return contenders


def dense(case, n_states, n_actions, horizon, staged=False):
    """One dense race. The last of the H layers multiplies by zero, so the table is read H times all the same."""
    mdp = dense_model(n_states, n_actions, horizon, staged)
    contenders = dense_contenders(mdp)
    reference = contenders["numpy matmul"]()
    yield from race(case, contenders, reference=reference)
    times = 1 if staged else horizon
    read = read_call(mdp.transition)
    # The same race with the bare reads of the table, H times when it is stationary.
    yield from race(
        f"{case}: reading the table",
        {"read": lambda: [read() for _ in range(times)], OURS: contenders[OURS]},
        seconds=4,
    )
    if staged:
        reason = "no time-varying model; on states augmented by time it is a hundred times slower"
        yield skipped(case, "quantecon", reason)
        yield skipped(case, "pymdptoolbox", reason)
    yield from missing(case)


def missing(case):
    """Peers of the dense race that are not installed."""
    if not find_spec("jax"):
        yield skipped(case, "JAX lax.scan", "not installed")
    yield skipped(case, "mdpax", "takes functions of single states, not tables")
    yield skipped(case, "mdpsolver", "no finite horizon")


def sparse(case, n_states, n_actions=4, branching=5, horizon=50):
    """A Garnet model in sparse rows."""
    mdp = trl.random_mdp(n_states, n_actions, horizon, 0, branching=branching, sparse=True)
    matrix = mdp.transition.to_scipy()
    contenders = {
        OURS: lambda: trl.backward_induction(mdp).value[0],
        "quantecon": peers.quantecon(matrix, mdp.reward, horizon),
        "scipy.sparse": peers.scipy_csr(matrix, mdp.reward, horizon),
    }
    yield from race(case, contenders, reference=contenders["scipy.sparse"](), seconds=12)
    yield skipped(case, "pymdptoolbox", "its constructor makes every matrix dense")


def many_rewards(case, n_states, n_actions, horizon, n_rewards=32):
    """K rewards in one sweep against K sweeps."""
    mdp = dense_model(n_states, n_actions, horizon)
    rewards = np.random.default_rng(1).random((n_rewards, n_states, n_actions))
    models = [mdp.with_reward(reward) for reward in rewards]
    contenders = {
        f"{OURS}, one batch": lambda: trl.backward_induction_rewards(mdp, rewards).value[:, 0],
        f"{OURS}, one at a time": lambda: np.array([trl.backward_induction(model).value[0] for model in models]),
        "numpy matrix product": peers.numpy_gemm(mdp.transition, rewards, horizon),
    }
    yield from race(case, contenders, reference=contenders["numpy matrix product"](), seconds=12)


def tiny_models(case, n_models=2000, n_states=10, n_actions=3, horizon=10):
    """Many small models, validation included."""
    rng = np.random.default_rng(2)
    transition = rng.dirichlet(np.ones(n_states), (n_models, n_states, n_actions))
    reward = rng.random((n_models, n_states, n_actions))
    each = [peers.quantecon(transition[b], reward[b], horizon) for b in range(n_models)]
    contenders = {
        OURS: lambda: trl.backward_induction_batch(transition, reward, horizon).value[:, 0],
        "numpy einsum": peers.numpy_einsum_batch(transition, reward, horizon),
        "quantecon, one at a time": lambda: np.array([solve() for solve in each]),
    }
    yield from race(case, contenders, reference=contenders["numpy einsum"]())


def measure():
    """All planning races."""
    yield from dense("dense S=100 A=5 H=100", 100, 5, 100)
    yield from dense("dense S=1000 A=10 H=50", 1000, 10, 50)
    yield from dense("time-varying S=50 A=5 H=50", 50, 5, 50, staged=True)
    yield from sparse("Garnet S=10000 A=4 b=5 H=50", 10_000)
    yield from sparse("Garnet S=100000 A=4 b=5 H=50", 100_000)
    yield from many_rewards("32 rewards, S=1000 A=10 H=50", 1000, 10, 50)
    yield from many_rewards("32 rewards, S=100 A=5 H=100", 100, 5, 100)
    yield from tiny_models("2000 models, S=10 A=3 H=10")
