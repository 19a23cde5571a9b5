"""Theorems about best-policy identification and reward-free exploration: what is run, and what must be refuted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.online._protocols import BOUNDED, DELTA, INDEPENDENT, value_rounding
from theoryrl.online.bounds.identification import (
    bpi_ucbvi_sample_bound,
    rf_express_sample_bound,
    rf_ucrl_sample_bound,
)
from theoryrl.online.bpi_ucbvi import BPIUCBVI
from theoryrl.online.identification import Identification, hard_rewards, identify, plug_in_losses
from theoryrl.online.rf_express import RFExpress
from theoryrl.online.rf_ucrl import RFUCRL
from theoryrl.theory.theorem import Assumption, Control, ProbabilityObservations, Progress, Proof, Theorem

# What one verification may cost, in backups of a single successor (each learner plans before every episode).
WORK = 3e8
SampleBound = Callable[[FiniteHorizonMDP, float], int]


def _sizes(model: FiniteHorizonMDP) -> dict[str, Any]:
    sizes = {"n_states": model.n_states, "n_actions": model.n_actions, "horizon": model.horizon}
    return sizes | {"delta": DELTA, "stationary": model.stationary}


def _bpi_bound(model: FiniteHorizonMDP, epsilon: float) -> int:
    width = model.reward_range[1] - model.reward_range[0]
    return bpi_ucbvi_sample_bound(epsilon, **_sizes(model), reward_width=width)


def _rf_express_bound(model: FiniteHorizonMDP, epsilon: float) -> int:
    return rf_express_sample_bound(epsilon, **_sizes(model))


def _rf_ucrl_bound(model: FiniteHorizonMDP, epsilon: float) -> int:
    return rf_ucrl_sample_bound(epsilon, **_sizes(model))


def affordable(model: FiniteHorizonMDP, runs: int) -> int:
    """How many episodes of each run a verification can pay for."""
    rows = model.to_sparse().transition
    per_episode = model.horizon * (rows.data.size / rows.n_layers + model.n_states * model.n_actions)
    return max(200, int(WORK / (runs * per_episode)))


def _broken_off(result: Identification) -> str:
    left = int((~result.stopped).sum())
    of = len(result.stopped)
    return f"{left} of {of} runs had not stopped after {result.max_episodes}" if left else ""


def _run(
    model: FiniteHorizonMDP,
    learner: Any,
    epsilon: float,
    bound: SampleBound,
    most: int | None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
) -> Identification:
    settings = learner if hasattr(learner, "init") else learner(model)
    longest = most or min(bound(model, epsilon), affordable(model, runs))
    return identify(settings, model, longest, runs, rng, jobs=jobs, progress=progress)


def pac_protocol(
    model: FiniteHorizonMDP,
    *,
    learner: Any,
    epsilon: float,
    bound: SampleBound = _bpi_bound,
    most: int | None = None,
    **how: Any,
) -> ProbabilityObservations:
    """Exact loss of the policy recommended on stopping, against epsilon; a run that was broken off decides nothing."""
    result = _run(model, learner, epsilon, bound, most, **how)
    return ProbabilityObservations(
        np.where(result.stopped, result.gap, 0.0),
        epsilon + 2 * value_rounding(model),
        undecided=~result.stopped,
        series={"episodes": result.episodes},
        remark=_broken_off(result),
    )


def sample_protocol(
    model: FiniteHorizonMDP,
    *,
    learner: Any,
    epsilon: float,
    bound: SampleBound,
    past_bound: bool = False,
    **how: Any,
) -> ProbabilityObservations:
    """Episodes played before stopping, against the bound; a run broken off before the bound decides nothing.

    With `past_bound` runs go on until the bound is exceeded, whatever that costs.
    """
    limit = bound(model, epsilon)
    result = _run(model, learner, epsilon, bound, limit + 1 if past_bound else None, **how)
    late = (result.episodes > limit) | (~result.stopped & (result.episodes >= limit))
    return ProbabilityObservations(
        result.episodes.astype(float),
        float(limit),
        failures=late,
        undecided=~result.stopped & ~late,
        remark=_broken_off(result),
    )


def plug_in_protocol(
    model: FiniteHorizonMDP,
    *,
    learner: Any,
    epsilon: float,
    bound: SampleBound = _rf_express_bound,
    most: int | None = None,
    **how: Any,
) -> ProbabilityObservations:
    """The most that planning in the empirical model loses, over one-entry and adversarial rewards, against epsilon."""
    played, searched = how["rng"].spawn(2)
    result = _run(model, learner, epsilon, bound, most, **(how | {"rng": played}))
    worst = np.zeros(how["runs"])
    for i, seed in enumerate(searched.spawn(how["runs"])):
        if result.stopped[i]:
            empirical = result.models[i]
            worst[i] = plug_in_losses(model, empirical, hard_rewards(model, empirical, seed)).max()
    unit = FiniteHorizonMDP(
        model.transition,
        np.ones((model.n_states, model.n_actions)),
        horizon=model.horizon,
        initial=model.initial,
        action_mask=model.action_mask,
    )
    # Two values of the truth, and a policy that rounding made the best in the empirical model, twice.
    return ProbabilityObservations(
        worst,
        epsilon + 6 * value_rounding(unit),
        undecided=~result.stopped,
        series={"episodes": result.episodes},
        remark=_broken_off(result),
    )


def two_doors() -> FiniteHorizonMDP:
    """Two states, two layers: action 1 leads to the paying state far more often than action 0."""
    reach = np.array([0.2, 0.9])
    transition = np.stack([np.stack([1 - reach, reach], -1)] * 2)
    reward = np.array([[0.1, 0.1], [0.9, 0.9]])
    return FiniteHorizonMDP(transition, reward, horizon=2, reward_law="bernoulli", name="two doors")


def two_coins() -> FiniteHorizonMDP:
    """From the start, action 0 leads to state 1 with chance 0.75, action 1 to state 2."""
    transition = np.zeros((3, 2, 3))
    transition[0, :, 1:] = [[0.75, 0.25], [0.25, 0.75]]
    transition[1:, :, 0] = 1.0
    return FiniteHorizonMDP(transition, np.zeros((3, 2)), horizon=2, reward_range=(0.0, 1.0), name="two coins")


def two_arms() -> FiniteHorizonMDP:
    """One state, one step, two arms that pay 1 with probability 0.4 and 0.6."""
    return FiniteHorizonMDP(
        np.ones((1, 2, 1)), np.array([[0.4, 0.6]]), horizon=1, reward_law="bernoulli", name="two arms"
    )


_PAC, _EASY, _FREE = 0.3, 0.5, 0.4
_pac = partial(pac_protocol, learner=BPIUCBVI(_PAC, DELTA), epsilon=_PAC)
_pac_time = partial(sample_protocol, learner=BPIUCBVI(_PAC, DELTA), epsilon=_PAC, bound=_bpi_bound)
_express = partial(plug_in_protocol, learner=RFExpress(_FREE, DELTA), epsilon=_FREE)
_express_time = partial(sample_protocol, learner=RFExpress(_FREE, DELTA), epsilon=_FREE, bound=_rf_express_bound)
_ucrl = partial(plug_in_protocol, learner=RFUCRL(_FREE, DELTA), epsilon=_FREE, bound=_rf_ucrl_bound)
_ucrl_time = partial(sample_protocol, learner=RFUCRL(_FREE, DELTA), epsilon=_FREE, bound=_rf_ucrl_bound)


def _content_never(learner: Any, bound: SampleBound, epsilon: float, model: Callable[[], FiniteHorizonMDP]) -> Control:
    """A learner whose widths are so large that it is still playing when the bound is over."""
    late = partial(sample_protocol, learner=learner, epsilon=epsilon, bound=bound, past_bound=True)
    return Control("a hundred times the widths", "Who trusts his data too little stops too late.", late, model, 12)


_SETTING = (
    r"Let an MDP with $S$ states, $A$ actions, layers $h = 0, \dots, H-1$ and initial distribution $\mu$ have "
    r"rewards in $[l, u]$; $V^\pi_0$ is the expected reward of policy $\pi$ from the start on, $V^*_0$ its maximum. "
)
_BPI = _SETTING + (
    r"In units of $u - l$, with $n$ visits of $(s, a)$ (pooled over layers under stationary dynamics), $W = H - h - "
    r"1$, $\ell = \log(10 SAH n(n+1)/\delta)$, $\beta = \ell + \log\binom{n+S-1}{S-1}$, $\rho = \sqrt{\ell/(2n)}$, "
    r"BPI-UCBVI computes $b = \rho + \sqrt{8 \mathrm{Var}_{\hat P}(\bar V) \ell / n} + W(2H\ell + 3\beta)/n + \hat "
    r"P(\bar V - \underline V)/H$, $\bar Q_h = \min\{H - h, \hat r + \hat P \bar V_{h+1} + b\}$, $\underline Q_h = "
    r"\max\{0, \hat r + \hat P \underline V_{h+1} - b\}$, $\bar V, \underline V$ their maxima over actions, plays "
    r"$\pi$ greedy for $\bar Q$, and $G_h(s) = \min\{H - h, 2\rho + 2\sqrt{8 \mathrm{Var}_{\hat P}(\bar V)\ell/n} + "
    r"W(4H\ell + (H+9)\beta)/n + (1 + \frac3H) \hat P G_{h+1}\}$ at $(s, \pi_h(s))$. With the frequencies $\hat\mu$ "
    r"of the $k$ starts so far, $y = \hat\mu G_0$ and $b_k = \log(5/\delta) + \log\binom{k+S-1}{S-1}$ it stops as "
    r"soon as $y + \sqrt{4Hy\,b_k/k} + (\sqrt{16/3} + \frac13) H b_k/k \le \varepsilon/(u-l)$, and recommends $\pi$. "
)
_FREE_SETTING = (
    r"Let an MDP have $S$ states, $A$ actions, layers $h = 0, \dots, H-1$, transitions $P$ and initial distribution "
    r"$\mu$. With $n$ visits of $(s, a)$ (pooled over layers under stationary dynamics, $G = 1$; else $G = H$), "
    r"$\beta = \log(3GSA/\delta) + \log\binom{n+S-1}{S-1}$ and $\hat P$ the frequencies of successors, "
)
_FREE_STOP = (
    r", 0 at the last layer and $H - h - 1$ where $n = 0$; it plays an action that maximises $E_h$. Let $E$ be $y + "
    r"\sqrt{4(H-1)y\,b_k/k} + (\sqrt{16/3} + \frac13)(H-1) b_k/k$ with $y$ the mean of $\max_a E_0$ over the $k$ "
    r"starts so far and $b_k = \log(3/\delta) + \log\binom{k+S-1}{S-1}$. "
)
_EXPRESS = (
    _FREE_SETTING
    + r"RF-Express computes $E_h(s, a) = \min\{H - h - 1, (2H+3)(H-1)\beta/n + (1 + \frac1H)\hat P \max_b "
    r"E_{h+1}\}$" + _FREE_STOP + r"It stops as soon as $2(\sqrt{eE} + E) \le \varepsilon$. "
)
_UCRL = (
    _FREE_SETTING + r"RF-UCRL computes $E_h(s, a) = \min\{H - h - 1, (H-h-1)\sqrt{\beta/(2n)} "
    r"+ \hat P \max_b E_{h+1}\}$" + _FREE_STOP + r"It stops as soon as $2E \le \varepsilon$. "
)  # fmt: skip
_EVERY_REWARD = (
    r"With probability at least $1 - \delta$, on stopping, for every reward function $r_h(s, a) \in [0, 1]$ at once, "
    r"a policy that is optimal for $(\hat P, r)$ has $\mu(V^*_0 - V^\pi_0) \le \varepsilon$ in $(P, r)$."
)
_DATA = Assumption("fresh samples", "Successors are drawn independently given state, action and layer.")
_NO_WIDTH = "Without widths a pair counts as known after one visit."


def _theorem(key: str, title: str, statement: str, source: str, anchor: str, **rest: Any) -> Theorem:
    place = f"docs/theory/identification.md#{anchor}"
    return Theorem(
        key=key,
        family="online",
        title=title,
        statement=statement,
        source=f"{source}; constants derived here, {place}",
        claim="probability",
        proof=Proof("written", place),
        expected="consistent",
        delta=DELTA,
        default_runs=100,
        accepts="finite-horizon",
        **rest,
    )


_FAST = "Menard, Domingues, Jonsson, Kaufmann, Leurent, Valko 2021 (Fast active learning for pure exploration)"
_ADAPTIVE = "Kaufmann, Menard, Domingues, Jonsson, Leurent, Valko 2021 (Adaptive reward-free exploration)"

THEOREMS = (
    _theorem(
        "bpi-ucbvi.pac",
        "What BPI-UCBVI recommends is nearly optimal",
        _BPI + r"With probability at least $1 - \delta$, if it stops, $\mu(V^*_0 - V^\pi_0) \le \varepsilon$.",
        f"{_FAST}, Theorem 2",
        "bpi-correct",
        protocol=_pac,
        controls=(
            Control(
                "no widths",
                _NO_WIDTH,
                partial(pac_protocol, learner=BPIUCBVI(0.1, DELTA, scale=0.0), epsilon=0.1, most=50),
                two_arms,
                60,
            ),
            Control(
                "stops at ten times epsilon",
                "The guarantee is about the epsilon that was asked for.",
                partial(pac_protocol, learner=BPIUCBVI(1.0, DELTA), epsilon=0.1, most=50),
                two_arms,
                20,
            ),
        ),
        assumptions=(BOUNDED, INDEPENDENT),
        default_model=two_doors,
    ),
    _theorem(
        "bpi-ucbvi.sample-complexity",
        "How long BPI-UCBVI plays at most",
        _BPI + r"With probability at least $1 - \delta$ it stops within the number of episodes $K$ that "
        r"`bpi_ucbvi_sample_bound` states in closed form, of order $H^4 S A / \varepsilon^2$ up to logarithms.",
        f"{_FAST}, Theorem 2 (sharper order, constant e^26)",
        "bpi-time",
        protocol=_pac_time,
        bound=bpi_ucbvi_sample_bound,
        controls=(_content_never(BPIUCBVI(_EASY, DELTA, scale=100.0), _bpi_bound, _EASY, two_arms),),
        assumptions=(BOUNDED, INDEPENDENT),
        default_model=two_doors,
    ),
    _theorem(
        "rf.plug-in",
        "One data set, every reward: planning in the model of RF-Express is nearly optimal",
        _EXPRESS + _EVERY_REWARD,
        f"{_FAST}, Theorem 1",
        "rf-express",
        protocol=_express,
        controls=(
            Control(
                "no widths",
                _NO_WIDTH,
                partial(plug_in_protocol, learner=RFExpress(_FREE, DELTA, scale=0.0), epsilon=_FREE, most=50),
                two_coins,
                60,
            ),
        ),
        assumptions=(_DATA,),
        default_model=two_coins,
    ),
    _theorem(
        "rf-express.sample-complexity",
        "How long RF-Express explores at most",
        _EXPRESS + r"With probability at least $1 - \delta$ it stops within the number of episodes that "
        r"`rf_express_sample_bound` states in closed form, of order $H^3 S A (\log\frac1\delta + S)/\varepsilon^2$ "
        r"up to logarithms.",
        f"{_FAST}, Theorem 1",
        "reward-free-time",
        protocol=_express_time,
        bound=rf_express_sample_bound,
        controls=(_content_never(RFExpress(1.0, DELTA, scale=100.0), _rf_express_bound, 1.0, two_coins),),
        assumptions=(_DATA,),
        default_model=two_coins,
    ),
    _theorem(
        "rf-ucrl.plug-in",
        "One data set, every reward: planning in the model of RF-UCRL is nearly optimal",
        _UCRL + _EVERY_REWARD,
        f"{_ADAPTIVE}, Theorem 3",
        "rf-ucrl",
        protocol=_ucrl,
        controls=(
            Control(
                "no widths",
                _NO_WIDTH,
                partial(plug_in_protocol, learner=RFUCRL(_FREE, DELTA, scale=0.0), epsilon=_FREE, most=50),
                two_coins,
                60,
            ),
        ),
        assumptions=(_DATA,),
        default_model=two_coins,
    ),
    _theorem(
        "rf-ucrl.sample-complexity",
        "How long RF-UCRL explores at most",
        _UCRL + r"With probability at least $1 - \delta$ it stops within the number of episodes that "
        r"`rf_ucrl_sample_bound` states in closed form, of order $H^4 S A (\log\frac1\delta + S)/\varepsilon^2$ up "
        r"to logarithms.",
        f"{_ADAPTIVE}, Theorem 4",
        "reward-free-time",
        protocol=_ucrl_time,
        bound=rf_ucrl_sample_bound,
        controls=(_content_never(RFUCRL(1.0, DELTA, scale=100.0), _rf_ucrl_bound, 1.0, two_coins),),
        assumptions=(_DATA,),
        default_model=two_coins,
    ),
)
