"""RF-UCRL (Kaufmann, Menard, Domingues, Jonsson, Leurent, Valko 2021): explore once, plan for every reward.

    E_h(s, a) = min{H - h - 1, (H - h - 1) sqrt(beta_n / (2 n)) + sum_s' P^(s' | s, a) max_b E_{h+1}(s', b)}

bounds how wrong the empirical model is about the value of any policy under any reward in [0, 1]. The learner plays
greedily for E and stops when twice its mean at the start is at most epsilon; then planning in the empirical model loses
at most epsilon, whatever the reward.

    beta_n = log(3 G S A / delta) + log C(n+S-1, S-1),  G = H, or 1 if layers are pooled

Deviations from the paper, covered by the proof in the documentation (page Identification): half the total variation
(Pinsker) in place of the L1 distance; H - h - 1 in place of H (the reward itself is known when one plans); the initial
distribution is arbitrary and unknown; exact counts of histograms in beta.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.online._reward_free import RewardFreeState, empirical_model, reward_free_state
from theoryrl.online.bpi_ucbvi import check_identification
from theoryrl.online.verbs import Problem


@dataclass(frozen=True)
class RFUCRL:
    """Settings of RF-UCRL.

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
        return reward_free_state(
            problem,
            self.delta,
            factor=np.arange(problem.horizon - 1.0, -1.0, -1.0),
            growth=1.0,
            root=True,
            weight=1.0,
            target=self.epsilon / 2,
            scale=self.scale,
        )

    def model(self, state: Any) -> NDArray[np.float64]:
        """The empirical transitions, (S, A, S) or (H, S, A, S); uniform where nothing was seen."""
        return empirical_model(state)
