"""The same job in other libraries, as a user of theirs would write it; each function returns a call without set-up."""

import contextlib
import io
import warnings

import numpy as np


def numpy_matmul(transition, reward, horizon):
    """One matrix-vector product per layer, max and argmax."""
    staged = transition.ndim == 4
    n_states, n_actions = transition.shape[-3:-1]
    tables = transition.reshape(-1, n_states * n_actions, n_states)
    gains = reward.reshape(-1, n_states, n_actions)

    def call():
        value, policy = np.zeros(n_states), np.empty((horizon, n_states), np.int64)
        for h in reversed(range(horizon)):
            q = gains[h % len(gains)] + (tables[h if staged else 0] @ value).reshape(n_states, n_actions)
            value, policy[h] = q.max(axis=1), q.argmax(axis=1)
        return value

    return call


def numpy_gemm(transition, rewards, horizon):
    """K rewards at once: one matrix product per layer."""
    n_states, n_actions = transition.shape[:2]
    table, gains = transition.reshape(-1, n_states), np.ascontiguousarray(np.moveaxis(rewards, 0, -1))

    def call():
        value = np.zeros((n_states, len(rewards)))
        policy = np.empty((horizon, n_states, len(rewards)), np.int64)
        for h in reversed(range(horizon)):
            q = gains + (table @ value).reshape(n_states, n_actions, -1)
            value, policy[h] = q.max(axis=1), q.argmax(axis=1)
        return value.T

    return call


def numpy_einsum_batch(transition, reward, horizon):
    """Many small models: one einsum over the batch per layer."""

    def call():
        value = np.zeros(reward.shape[:2])
        policy = np.empty((horizon, *reward.shape[:2]), np.int64)
        for h in reversed(range(horizon)):
            q = reward + np.einsum("bsat,bt->bsa", transition, value)
            value, policy[h] = q.max(axis=2), q.argmax(axis=2)
        return value

    return call


def scipy_csr(matrix, reward, horizon):
    """scipy.sparse product per layer, numpy max and argmax."""
    n_states = len(reward)

    def call():
        value, policy = np.zeros(n_states), np.empty((horizon, n_states), np.int64)
        for h in reversed(range(horizon)):
            q = reward + (matrix @ value).reshape(reward.shape)
            value, policy[h] = q.max(axis=1), q.argmax(axis=1)
        return value

    return call


def quantecon_model(transition, reward, discount):
    """A DiscreteDP: dense from an array, sparse (state-action pairs) from a scipy matrix."""
    from quantecon.markov import DiscreteDP

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a discount of 1 warns that infinite horizons are off
        if isinstance(transition, np.ndarray):
            return DiscreteDP(reward, transition, discount)
        from scipy.sparse import csr_matrix

        states, actions = np.divmod(np.arange(reward.size), reward.shape[1])
        return DiscreteDP(reward.reshape(-1), csr_matrix(transition), discount, states, actions)


def quantecon(transition, reward, horizon):
    """quantecon's backward_induction."""
    from quantecon.markov import backward_induction

    model = quantecon_model(transition, reward, 1.0)
    return lambda: backward_induction(model, horizon)[0][0]


def pymdptoolbox(transition, reward, horizon):
    """FiniteHorizon.run of pymdptoolbox, its validation left out."""
    from mdptoolbox.mdp import FiniteHorizon

    matrices = np.ascontiguousarray(np.moveaxis(transition, 1, 0))
    with contextlib.redirect_stdout(io.StringIO()):  # it warns about a discount of 1 on the screen
        model = FiniteHorizon(matrices, reward, 1.0, horizon)

    def call():
        model.run()
        return model.V[:, 0]

    return call


def jax_scan(transition, reward, horizon):
    """lax.scan of a matrix-vector product, compiled, in float64."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    staged = transition.ndim == 4
    n_states, n_actions = transition.shape[-3:-1]
    table = jnp.asarray(
        transition.reshape(-1, n_states * n_actions, n_states) if staged else transition.reshape(-1, n_states)
    )
    gain = jnp.asarray(reward)

    def backup(value, layer):
        rows, here = layer if staged else (table, gain)
        q = here + (rows @ value).reshape(n_states, n_actions)
        return q.max(axis=1), q.argmax(axis=1)

    @jax.jit
    def solve(table, gain):
        layers = (table, gain) if staged else None
        return jax.lax.scan(backup, jnp.zeros(n_states), layers, length=horizon, reverse=True)

    def call():
        value, policy = solve(table, gain)
        policy.block_until_ready()
        return np.asarray(value)

    return call


def mdpsolver(transition, reward, discount, tolerance, algorithm):
    """mdpsolver on one thread, lists loaded beforehand; a sparse matrix is given as rows of entries."""
    import mdpsolver as solver

    model = solver.model()
    if isinstance(transition, np.ndarray):
        model.mdp(discount=discount, rewards=reward.tolist(), tranMatWithZeros=transition.tolist())
    else:
        shape = reward.shape
        rows = [
            transition.indices[a:b].tolist() for a, b in zip(transition.indptr, transition.indptr[1:], strict=False)
        ]
        data = [transition.data[a:b].tolist() for a, b in zip(transition.indptr, transition.indptr[1:], strict=False)]
        columns = [rows[s * shape[1] : (s + 1) * shape[1]] for s in range(shape[0])]
        weights = [data[s * shape[1] : (s + 1) * shape[1]] for s in range(shape[0])]
        model.mdp(discount=discount, rewards=reward.tolist(), tranMatProbs=weights, tranMatColumns=columns)

    # Without these a second call starts from the answer of the first.
    start = {"initPolicy": [0] * len(reward), "initValueVector": [0.0] * len(reward)}

    def call():
        model.solve(algorithm=algorithm, tolerance=tolerance, parallel=False, **start)
        return np.array(model.getValueVector())

    return call
