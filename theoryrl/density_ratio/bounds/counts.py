"""How many pairs (round, weight) one layer can be tested with: logarithms, as functions of the number of rounds."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp._checks import require_int


def require_rounds(iterations: ArrayLike, name: str = "iterations") -> NDArray[np.float64]:
    """Numbers of rounds as floats, finite and at least 1."""
    rounds = np.asarray(iterations, np.float64)
    if not ((rounds >= 1) & (rounds < np.inf)).all():
        raise ValueError(f"{name} must be finite and at least 1, not {iterations!r}")
    return rounds


def list_log_tests(iterations: ArrayLike, n_weights: int, *, anytime: bool = False) -> NDArray[np.float64]:
    """The logarithm of |W| T, of a list of weights; of |W| pi^2 T^2 / 6 for the level that holds at all times.

    Parameters
    ----------
    iterations : array
        T.
    n_weights : int
        |W|: the largest number of weights of a layer.
    anytime : bool

    Returns
    -------
    ndarray of the shape of `iterations`

    Raises
    ------
    ValueError
        A number below 1.

    Notes
    -----
    docs/theory/glow.md, counts.
    """
    rounds = require_rounds(iterations)
    return math.log(require_int(n_weights, 1, "n_weights")) + (shares(rounds) if anytime else np.log(rounds))


def mixture_log_tests(
    iterations: ArrayLike, n_policies: int, n_models: int = 1, *, anytime: bool = False
) -> NDArray[np.float64]:
    """The logarithm of nM nP C(T + nP - 1, nP): ratios of nP policies against what was played, in nM candidate models.

    At round t a ratio is determined by the model, the policy on top, and how often each policy was played in the t - 1
    rounds before: nM nP C(t + nP - 2, nP - 1) ratios, whose sum over t <= T is the number above. With `anytime` the
    number of ratios of round T alone, times pi^2 T^2 / 6.

    Parameters
    ----------
    iterations : array
        T.
    n_policies, n_models : int
        nP distinct policies and nM models.
    anytime : bool

    Returns
    -------
    ndarray of the shape of `iterations`

    Raises
    ------
    ValueError
        A number below 1.

    Notes
    -----
    docs/theory/glow.md, counts.
    """
    rounds = require_rounds(iterations)
    count = require_int(n_policies, 1, "n_policies")
    ahead = math.log(count) + math.log(require_int(n_models, 1, "n_models"))
    if anytime:
        return ahead + _multisets(rounds - 1, count) + shares(rounds)
    return ahead + _multisets(rounds - 1, count + 1)


def lift_log_tests(iterations: ArrayLike, n_weights: int) -> NDArray[np.float64]:
    """The logarithm of C(|W| + T, |W|): the weights 1 / mean(w_1, ..., w_t) with w_s in W, t = 1, ..., T.

    The order of the w_s does not matter: C(|W| + t - 1, t) of them at round t, one less than the number above in total;
    the paper counts (2 |W|)^T.

    Parameters
    ----------
    iterations : array
        T.
    n_weights : int
        |W| of the class of ratios d^pi / d^pi' of pairs.

    Returns
    -------
    ndarray of the shape of `iterations`

    Raises
    ------
    ValueError
        A number below 1.

    Notes
    -----
    docs/theory/glow.md#glow-pure-ratios.
    """
    return _multisets(require_rounds(iterations), require_int(n_weights, 1, "n_weights") + 1)


def shares(rounds: NDArray[np.float64]) -> NDArray[np.float64]:
    """log(pi^2 t^2 / 6): round t is given the share 6 / (pi^2 t^2) of the probability of failure."""
    return np.asarray(math.log(math.pi**2 / 6) + 2 * np.log(rounds))


def _multisets(size: NDArray[np.float64], kinds: int) -> NDArray[np.float64]:
    """Logarithm of C(size + kinds - 1, kinds - 1), the number of ways to choose `size` of `kinds` with repetition."""
    total = np.zeros(np.shape(size))
    if kinds <= 4096:
        for i in range(1, kinds):
            total = total + np.log1p(size / i)
        return np.asarray(total)
    from scipy.special import gammaln

    return np.asarray(gammaln(size + kinds) - gammaln(kinds) - gammaln(size + 1))
