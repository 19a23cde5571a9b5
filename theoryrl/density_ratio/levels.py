r"""Levels for a test without alpha: three forms of the threshold on the mean weighted residual, one of them not valid.

For a fixed weight w with values in [0, gamma], n tuples with empirical mean E_D, P = E_D[w^2] and a number L > 0:

literal   E_D[residual w] <= b sqrt(L P / (2 n))
grid      E_D[residual w] <= ((sqrt 2 + 1 / sqrt 2) / 2) b sqrt(L' max(P, gamma^2 / n) / (2 n)),   L' = L + log G,
          G = 1 + ceil(log2(n) / 2)
mixture   E_D[residual w] <= b sqrt((P + gamma^2 / n) (L + (1/2) log(1 + n P / gamma^2)) / (2 n))

Under adaptive data Q* breaks the last two with probability at most e^-L each. The literal form has no such level, since
P depends on the noise: docs/theory/density_ratio_tabular.md#literal-level, where its failure is computed exactly.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp._checks import frozen, require_finite

FORMS = ("mixture", "grid", "literal")


def scale_free_threshold(
    second_moment: ArrayLike,
    size: int,
    log_level: float,
    *,
    ceiling: float,
    noise_width: float = 1.0,
    form: str = "mixture",
) -> NDArray[np.float64]:
    """The largest mean weighted residual that passes, in one of the forms above.

    Parameters
    ----------
    second_moment : array
        P = E_D[w^2], from 0 to gamma^2.
    size : int
        n >= 1, the tuples of the layer.
    log_level : float
        L > 0, the logarithm of one over the chance of a test to fail.
    ceiling : float
        gamma > 0, what no weight exceeds; the literal form does not read it.
    noise_width : float
        b > 0.
    form : {"mixture", "grid", "literal"}

    Returns
    -------
    ndarray of the shape of `second_moment`

    Raises
    ------
    ValueError
        A parameter out of range, or another form.

    Notes
    -----
    docs/theory/density_ratio_tabular.md#scale-free-levels. `GLOW(schedule="scale_free")` uses the mixture.
    """
    moment = frozen(second_moment, np.float64, "second_moment")
    require_finite(moment, "second_moment")
    for name, value in {"log_level": log_level, "ceiling": ceiling, "noise_width": noise_width, "size": size}.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, not {value!r}")
    if not (moment >= 0).all():
        raise ValueError(f"second_moment must be at least 0, not {moment.min()}")
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
    floor = ceiling**2 / size
    if form == "literal":
        square = moment * log_level
    elif form == "grid":
        points = 1 + math.ceil(0.5 * math.log2(size))
        square = 1.125 * np.maximum(moment, floor) * (log_level + math.log(points))  # ((sqrt 2 + 1 / sqrt 2) / 2)^2
    else:
        square = (moment + floor) * (log_level + 0.5 * np.log1p(moment / floor))
    return np.asarray(noise_width * np.sqrt(square / (2 * size)))
