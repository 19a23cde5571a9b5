"""Theorems about Q-learning: UCB-H and UCB-B from above, epsilon-greedy exploration from below."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.rounding import U
from theoryrl.online import _protocols
from theoryrl.online._protocols import BOUNDED, DELTA, INDEPENDENT, episodes_for, small_river, unlucky_bandit
from theoryrl.online.bounds.q_learning import (
    epsilon_greedy_lock_regret,
    ucb_b_regret_bound,
    ucb_h_regret_bound,
)
from theoryrl.online.epsilon_greedy import EpsilonGreedy
from theoryrl.online.run import run
from theoryrl.online.ucb_b import UCBB
from theoryrl.online.ucb_h import UCBH
from theoryrl.online.uniform import Uniform
from theoryrl.theory.theorem import Assumption, Control, ProbabilityObservations, Progress, Proof, Theorem

# An episode of Q-learning costs less than one of a planner, and its bound needs more of them to say something.
TIMES_THE_EPISODES = 3


def optimism_protocol(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    learner: Any,
    episodes: int | None = None,
) -> ProbabilityObservations:
    """How far V falls below V* at worst, over all episodes, layers and states of each run; more than rounding fails."""
    played = episodes or episodes_for(model, runs)
    seen = _protocols.optimism_protocol(
        model, rng=rng, runs=runs, jobs=jobs, progress=progress, learner=learner, episodes=played
    )
    return ProbabilityObservations(seen.observed, seen.bound + table_rounding(model, played), series=seen.series)


def table_rounding(mdp: FiniteHorizonMDP, episodes: int) -> float:
    """How far a table of Q-learning can be from what its formulas give on the same data, in units of reward.

    All terms of Q are positive, so relative errors add up: 12 roundings per update, of which K at most in a pair, and
    (H + 1)(1 + log K) for the difference 1 - alpha_t, in each of H layers; beyond H the cap decides. The rounding of a
    variance is far below the term of UCB-B that covers its estimation. Returning to units of reward adds the last term.
    """
    low, high = mdp.reward_range
    relative = mdp.horizon * (12 * episodes + (mdp.horizon + 1) * (1 + np.log(episodes)))
    return float(U * mdp.horizon * (relative * (high - low) + 8 * max(abs(low), abs(high))) * (1 + 2.0**-30))


def regret_protocol(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    learner: Any,
    bound: Callable[..., NDArray[np.float64]],
    episodes: int | None = None,
) -> ProbabilityObservations:
    """Exact regret of `learner` against a bound on these sizes; a run counts at its worst checkpoint."""

    def on(sized: FiniteHorizonMDP, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        low, high = sized.reward_range
        return bound(
            counts,
            n_states=sized.n_states,
            n_actions=sized.n_actions,
            horizon=sized.horizon,
            delta=DELTA,
            reward_width=high - low,
        )

    played = episodes or TIMES_THE_EPISODES * episodes_for(model, runs)
    return _protocols.regret_protocol(
        model, rng=rng, runs=runs, jobs=jobs, progress=progress, learner=learner, bound=on, episodes=played
    )


def lock(length: int = 6, n_actions: int = 2, *, code: int | None = None) -> FiniteHorizonMDP:
    """A lock whose digits are all `code`, by default the last action; any other leads to a dead end, the end pays 1."""
    digits = np.arange(length)
    right = n_actions - 1 if code is None else code
    transition = np.zeros((length + 1, n_actions, length + 1))
    transition[:, :, length] = 1.0
    transition[digits, right] = np.eye(length + 1)[digits + 1]
    reward = np.zeros((length + 1, n_actions))
    reward[length - 1, right] = 1.0
    return FiniteHorizonMDP(transition, reward, horizon=length, name=f"lock of {length} digits, {n_actions} actions")


def lock_protocol(
    model: Any,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    learner: Any,
    claimed: EpsilonGreedy,
    episodes: int = 20_000,
    length: int = 6,
    n_actions: int = 2,
    code: int | None = None,
) -> ProbabilityObservations:
    """The regret that a lock is claimed to cost `claimed`, against what `learner` paid; worst checkpoint of a run."""
    shut = lock(length, n_actions, code=code)
    result = run(learner, shut, episodes, runs, rng, jobs=jobs, progress=progress)
    least = epsilon_greedy_lock_regret(
        result.checkpoints,
        length=shut.horizon,
        n_actions=shut.n_actions,
        epsilon=claimed.epsilon,
        decay=claimed.decay,
        delta=DELTA,
    )
    # K sums of H products of chances that are off by a few u each, added up in floats; the claim itself has two terms.
    rounding = result.checkpoints * (result.checkpoints + 20 * shut.horizon + 20) * U
    paid = result.regret + rounding
    worst = np.argmin(np.where(np.isnan(paid), -np.inf, paid / least), axis=1)
    return ProbabilityObservations(
        least[worst],
        paid[np.arange(runs), worst],
        models=(shut.name,),
        series={"episodes": result.checkpoints, "regret": result.regret, "bound": least},
    )


_h_optimism = partial(optimism_protocol, learner=UCBH(DELTA))
_h_regret = partial(regret_protocol, learner=UCBH(DELTA), bound=ucb_h_regret_bound)
_b_optimism = partial(optimism_protocol, learner=UCBB(DELTA))
_b_regret = partial(regret_protocol, learner=UCBB(DELTA), bound=ucb_b_regret_bound)
_CONSTANT, _DECAYING = EpsilonGreedy(0.1), EpsilonGreedy(1.0, decay=1.0)
_lock = partial(lock_protocol, learner=_CONSTANT, claimed=_CONSTANT, length=8)
_decaying = partial(lock_protocol, learner=_DECAYING, claimed=_DECAYING, length=10, n_actions=3)

_SETTING = (
    r"Let an MDP with $S$ states, $A$ actions, layers $h = 0, \dots, H-1$ and initial distribution $\mu$ have rewards "
    r"in $[l, u]$; $V^\pi_h(s)$ is the expected reward of $\pi$ from state $s$ at layer $h$ on, $V^*_h$ its maximum "
    r"over $\pi$. In units of $u - l$ after subtracting $l$ from every reward, Q-learning starts from $Q_h = H - h$ "
    r"and after the $t$-th visit of $(s, a)$ at layer $h$, with reward $r$ and successor $s'$, sets $Q_h(s, a) "
    r"\leftarrow (1 - \alpha_t) Q_h(s, a) + \alpha_t (r + V_{h+1}(s') + b_t)$, $\alpha_t = (H+1)/(H+t)$, and $V_h(s) = "
    r"\min\{H - h, \max_a Q_h(s, a)\}$. $V_{k,h}$ are the values before episode $k$, in which the "
    r"greedy policy $\pi_k$ of $Q$ is played. "
)
_UCB_H = _SETTING + (
    r"UCB-H has the bonus $b_t = (H - h)(H + 1)\sqrt{\ell_t / ((4H+2)t)}$, $\ell_t = \log(4SAHt(t+1)/\delta)$, for a "
    r"$\delta \in (0, 1)$. "
)
_UCB_B = _SETTING + (
    r"UCB-B has $b_t = (\beta_t - (1 - \alpha_t)\beta_{t-1}) / \alpha_t$ with $\beta_1$ the first term and, for $t > "
    r"1$, $\beta_t = \min\{(H - h)(H + 1)\sqrt{\ell_t/((4H+2)t)},\ (H+1)\sqrt{\ell_t/((H + 1/2)t)}\,[\sqrt{t/(t-1)}"
    r"(\sqrt{W_t} + \sqrt{D_t/t}) + (H-h)\sqrt{2\ell_t/(t-1)}] + (H-h)(H+1)\ell_t/(3(H+t))\}$, where $\ell_t = "
    r"\log(8SAHt(t+1)/\delta)$, $W_t$ is the empirical variance of the $t$ targets $r + V_{h+1}(s')$ of the pair and "
    r"$D_t = (H-h-1)\sum_{j=h+1}^{H-1}(H-j)\big(SAe_j + 4\tfrac{H+1}{\sqrt{4H+2}}\sqrt{SAe_j t\ell_t}\big)$, "
    r"$e_j = (1 + 1/H)^{j-h-1}$, for a $\delta \in (0, 1)$. "
)
_OPTIMISM = (
    r"With probability at least $1 - \delta$, $V_{k,h}(s) \ge V^*_h(s)$ for all episodes $k$, layers $h$ and states "
    r"$s$ at once."
)
_REGRET = (
    r"With probability at least $1 - \delta$, for all numbers of episodes $K$ at once, $\sum_{{k \le K}} \sum_s \mu(s) "
    r"\big(V^*_0(s) - V^{{\pi_k}}_0(s)\big) \le (u - l)\Big[\sum_h w_h\, SA\, F(K/(SA)) + \sqrt{{\tfrac K2 \big(H^2 + "
    r"\sum_h ((1+1/H)^h (H-h-1))^2\big) \log\tfrac{{2K(K+1)}}{{\delta}}}}\Big]$, where $w_h = (1 + 1/H)^h (H - h)$ and "
    r"$F(N) = \sum_{{n=0}}^{{N-1}} \min\{{1, {0}(H+1)\sqrt{{\ell_n/((4H+2)n)}}\}}$, linear between integers, the term "
    r"$n = 0$ being 1."
)
_PAPER = "Jin, Allen-Zhu, Bubeck, Jordan 2018, "
_DOCS = "docs/theory/q_learning.md"
_LOCK = (
    r"On a lock of $n$ digits ($H = n$ layers, $A$ actions; the right action leads on, any other into a dead end, and "
    r"the last right one pays 1) no digit of which is the action that ties go to, let $Q$ start from 0, the greedy "
    r"action be replaced by a uniform one with probability $\varepsilon_k$ in episode $k$, and $p_k = (\varepsilon_k / "
    r"A)^n$. "
)


def _optimism_theorem(name: str, protocol: Any, learner: type, setting: str, source: str) -> Theorem:
    key = name.lower()
    return Theorem(
        key=f"{key}.optimism",
        family="online",
        title=f"{name} never underestimates the optimal value",
        statement=setting + _OPTIMISM,
        source=f"{_PAPER}{source}; constants derived here, {_DOCS}#{key}-optimism",
        claim="probability",
        protocol=protocol,
        controls=(
            Control(
                "no bonus",
                "Plain Q-learning from optimistic values underestimates V* as soon as it is unlucky.",
                partial(protocol, learner=learner(DELTA, scale=0.0), episodes=200),
                model=small_river,
                runs=20,
            ),
            Control(
                "a tenth of the bonus",
                "Scaling the bonus by 0.1, a habit of experiments, gives the guarantee away.",
                partial(protocol, learner=learner(DELTA, scale=0.1), episodes=2000),
                model=unlucky_bandit,
                runs=100,
            ),
        ),
        proof=Proof("written", f"{_DOCS}#{key}-optimism"),
        expected="consistent",
        assumptions=(BOUNDED, INDEPENDENT),
        delta=DELTA,
        default_runs=100,
        default_model=small_river,
        accepts="finite-horizon",
    )


def _regret_theorem(
    name: str, protocol: Any, learner: type, bound: Any, setting: str, factor: str, source: str
) -> Theorem:
    key = name.lower()
    return Theorem(
        key=f"{key}.regret",
        family="online",
        title=f"The regret of {name}, with every constant",
        statement=setting + _REGRET.format(factor),
        source=f"{_PAPER}{source}; constants derived here, {_DOCS}#{key}-regret",
        claim="probability",
        protocol=protocol,
        bound=bound,
        controls=(
            Control(
                "uniform learner",
                "A learner that does not learn has linear regret and must cross the bound.",
                partial(protocol, learner=Uniform(), episodes=100_000),
                model=unlucky_bandit,
                runs=10,
            ),
            Control(
                "no bonus",
                "Without optimism some runs settle on the wrong arm for ever.",
                partial(protocol, learner=learner(DELTA, scale=0.0), episodes=25_000),
                model=unlucky_bandit,
                runs=100,
            ),
        ),
        proof=Proof("written", f"{_DOCS}#{key}-regret"),
        expected="consistent",
        assumptions=(BOUNDED, INDEPENDENT),
        delta=DELTA,
        default_runs=100,
        default_model=small_river,
        accepts="finite-horizon",
    )


def _lock_theorem(key: str, title: str, statement: str, protocol: Any) -> Theorem:
    return Theorem(
        key=key,
        family="online",
        title=title,
        statement=_LOCK + statement,
        source=f"derived here, {_DOCS}#epsilon-greedy; the lock is that of Kakade 2003",
        claim="probability",
        protocol=protocol,
        bound=epsilon_greedy_lock_regret,
        controls=(
            Control(
                "directed exploration",
                "UCB-H opens the lock: exploration by chance is what the theorem is about.",
                partial(protocol, learner=UCBH(DELTA)),
                runs=10,
            ),
            Control(
                "ties go to the code",
                "Where the digits are the actions that ties go to, the lock opens by itself.",
                partial(protocol, code=0),
                runs=10,
            ),
        ),
        proof=Proof("written", f"{_DOCS}#epsilon-greedy"),
        expected="consistent",
        assumptions=(
            Assumption("start from zero", "Q starts from the least reward: nothing is worth trying before it paid."),
        ),
        delta=DELTA,
        default_runs=100,
    )


THEOREMS = (
    _optimism_theorem("UCB-H", _h_optimism, UCBH, _UCB_H, "Lemma 4.3"),
    _regret_theorem(
        "UCB-H",
        _h_regret,
        UCBH,
        ucb_h_regret_bound,
        _UCB_H,
        r"\big(1 + \tfrac{2H+2}{2H+1}\big)",
        "Theorem 1 (rate)",
    ),
    _optimism_theorem("UCB-B", _b_optimism, UCBB, _UCB_B, "Lemma C.4"),
    _regret_theorem(
        "UCB-B", _b_regret, UCBB, ucb_b_regret_bound, _UCB_B, "2", "Theorem 1 (rate; not the sharper one of Theorem 2)"
    ),
    _lock_theorem(
        "epsilon-greedy.lock",
        "A lock keeps epsilon-greedy exploration out for exponentially many episodes",
        r"With $\varepsilon_k = \varepsilon$ constant and $p = (\varepsilon/A)^n$: with probability at least $1 - "
        r"\delta$, $\sum_{k \le K}(V^* - V^{\pi_k}) \ge (1 - p) K'$ for all $K$, $K' = \min\{K, 1 + \lfloor \delta / p "
        r"\rfloor\}$.",
        _lock,
    ),
    _lock_theorem(
        "epsilon-greedy.decay",
        "With epsilon falling like 1 / k the lock may never open",
        r"With $\varepsilon_k = 1/k$ and $n \ge 2$: with probability at least $1 - A^{-n} n / (n-1)$, $\sum_{k \le K}("
        r"V^* - V^{\pi_k}) \ge K - A^{-n} n / (n - 1)$ for all $K$: linear regret for ever. (For $n = 10$, $A = 3$, as "
        r"run here, that probability is above $0.9999 > 1 - \delta$.)",
        _decaying,
    ),
)
