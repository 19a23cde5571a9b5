"""RF-Express (Menard, Domingues, Jonsson, Kaufmann, Leurent, Valko 2021): explore once, plan for every reward, faster.

    E_h(s, a) = min{H - h - 1, (2 H + 3)(H - 1) beta_n / n + (1 + 1/H) sum_s' P^(s' | s, a) max_b E_{h+1}(s', b)}

is played greedily; by the law of total variance the empirical model is wrong about any policy under any reward in
[0, 1] by at most sqrt(e E) + E, E being its mean at the start. The learner stops when twice that is at most epsilon.

    beta_n = log(3 G S A / delta) + log C(n+S-1, S-1),  G = H, or 1 if layers are pooled

Deviations from the paper, covered by the proof in the documentation (page Identification): (2 H + 3)(H - 1) for 15 H^2
and sqrt(e E) for 3 e sqrt(E); the cap H - h - 1; the initial distribution is arbitrary and unknown; exact counts of
histograms in beta.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.online._reward_free import RewardFreeState, empirical_model, reward_free_state
from theoryrl.online.bpi_ucbvi import check_identification
from theoryrl.online.verbs import Problem


def express_target(epsilon: float) -> float:
    """The x >= 0 with 2 (sqrt(e x) + x) = epsilon."""
    root = epsilon / (math.sqrt(math.e) + math.sqrt(math.e + 2 * epsilon))
    return root * root


@dataclass(frozen=True)
class RFExpress:
    """Settings of RF-Express.

    Parameters
    ----------
    epsilon : float, positive
        What planning may lose, for rewards in [0, 1] (not in the range of the model's own reward, which is not used).
    delta : float in (0, 1)
        It loses more for some reward, or the learner stops later than the bound says, with at most this probability.
    scale : float
        Multiplies every width. Anything but 1 gives up the proof: `provable` is then False.
    """

    epsilon: float = 0.1
    delta: float = 0.05
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_identification(self.epsilon, self.delta, self.scale)

    @property
    def provable(self) -> bool:
        """Whether the constants are those of the theorem."""
        return self.scale == 1.0

    def init(self, problem: Problem) -> RewardFreeState:
        """A fresh state for one run."""
        horizon = problem.horizon
        return reward_free_state(
            problem,
            self.delta,
            factor=np.ones(horizon),
            growth=1.0 + 1.0 / horizon,
            root=False,
            weight=(2.0 * horizon + 3.0) * (horizon - 1.0),
            target=express_target(self.epsilon),
            scale=self.scale,
        )

    def model(self, state: Any) -> NDArray[np.float64]:
        """The empirical transitions, (S, A, S) or (H, S, A, S); uniform where nothing was seen."""
        return empirical_model(state)
