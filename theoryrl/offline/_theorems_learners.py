"""Guarantees of the offline learners, each from many independent data sets (docs/theory: fqi, minimax, vi_lcb)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.classes.backups import bellman_images
from theoryrl.classes.builders import complete_class, realizable_class
from theoryrl.classes.values import FiniteClass, ProductClass
from theoryrl.classes.weights import WeightClass, density_ratio
from theoryrl.mdp.dataset import Dataset
from theoryrl.mdp.evaluation import occupancy, reachability
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.planning import backward_induction
from theoryrl.mdp.policy import uniform_policy
from theoryrl.mdp.random import random_mdp
from theoryrl.mdp.rounding import SAFE, gamma
from theoryrl.mdp.simulation import rollout
from theoryrl.offline import bounds
from theoryrl.offline.fitted import fqe, fqi
from theoryrl.offline.likelihood import maximum_likelihood
from theoryrl.offline.minimax import mabo, msbo
from theoryrl.offline.pessimism import vi_lcb
from theoryrl.theory._dp_tools import at_start, random_policy, value_of
from theoryrl.theory.theorem import Assumption, Control, ProbabilityObservations, Progress, Proof, Theorem

DELTA = 0.05
STEPS = 400_000  # rows of one data set at most
VACUOUS = "too few episodes for the bound to be less than the trivial one: nothing could have failed"


class Game(NamedTuple):
    """What is measured on a data set, and the bound on it; `trivial` is what no outcome can exceed."""

    observe: Callable[[Dataset], float]
    bound: float
    trivial: float


def guarantee(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    game: Callable[[FiniteHorizonMDP, NDArray[np.float64], int], Game],
    episodes: int,
    behaviour: Callable[[FiniteHorizonMDP], Any] = uniform_policy,
) -> ProbabilityObservations:
    """A game on independent data sets of `episodes` trajectories of the behaviour policy (fewer if they are long)."""
    policy = behaviour(model)
    episodes = min(episodes, STEPS // model.horizon)
    rules = game(model, occupancy(model, policy), episodes)
    seen = np.empty(runs)
    for run, stream in enumerate(rng.spawn(runs)):
        seen[run] = rules.observe(rollout(model, policy, episodes, stream, jobs=1))
        if progress is not None:
            progress(run + 1, runs, "data sets")
    limit = rules.bound * SAFE + 1e-300
    return ProbabilityObservations(seen, limit, remark=VACUOUS if not rules.bound < rules.trivial else "")


def losing(model: FiniteHorizonMDP, learn: Callable[[Dataset], NDArray[np.int64]]) -> Callable[[Dataset], float]:
    """J* - J of the policy that is learned, less what rounding can have added."""
    best, radius = at_start(model)
    known: dict[bytes, float] = {}

    def observe(data: Dataset) -> float:
        policy = learn(data)
        key = policy.tobytes()
        if key not in known:
            value, off = at_start(model, policy)
            known[key] = max(0.0, best - value - (radius + off) * SAFE)
        return known[key]

    return observe


def widest_ratio(model: FiniteHorizonMDP, mu: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest ratio, over policies and pairs, d_h / mu_h: a bound on C_h of every policy."""
    reach = reachability(model)[..., np.newaxis] * model.action_mask
    return np.asarray(density_ratio(reach, mu).max(axis=(1, 2)))


def width_of(model: FiniteHorizonMDP) -> float:
    """The width high - low of the reward range."""
    return float(model.reward_range[1] - model.reward_range[0])


def _trivial(model: FiniteHorizonMDP) -> float:
    return model.horizon * width_of(model)


# ---- fitted action values


def fqi_game(model: FiniteHorizonMDP, mu: NDArray, n: int, cls: ProductClass | None = None, factor: Any = None) -> Game:
    """Fitted Q iteration in a complete class; a control brings its own class and claims its own concentrability."""
    members = complete_class(model, 2, 0) if cls is None else cls
    ratios = widest_ratio(model, mu) if factor is None else factor
    bound = bounds.fqi_suboptimality_bound(
        n, log_sizes=np.log(members.sizes), concentrability=ratios, delta=DELTA, reward_width=width_of(model)
    )
    return Game(
        losing(model, lambda data: fqi(data, members, action_mask=model.action_mask).policy),
        float(bound),
        _trivial(model),
    )


def fqe_game(model: FiniteHorizonMDP, mu: NDArray, n: int, cls: ProductClass | None = None) -> Game:
    """Fitted Q evaluation of a fixed random policy in a class closed under its operator."""
    target = random_policy(model, np.random.default_rng(0), stochastic=True)
    members = closed_class(model, target, 2) if cls is None else cls
    value, radius = at_start(model, target)
    bound = bounds.fqe_error_bound(
        n,
        log_sizes=np.log(members.sizes),
        concentrability=bounds.second_moment_ratio(model, target, mu),
        delta=DELTA,
        reward_width=width_of(model),
    )
    slack = radius + gamma(4 * model.n_states * model.n_actions) * _trivial(model)

    def observe(data: Dataset) -> float:
        # The class speaks for pairs without data too, where the estimate itself would be refused.
        q = fqe(data, target, members, initial=model.initial).q
        return max(0.0, abs(float(model.initial @ (target[0] * q[0]).sum(axis=-1)) - value) - slack)

    return Game(observe, float(bound), _trivial(model))


def closed_class(model: FiniteHorizonMDP, target: NDArray[np.float64], distractors: int) -> ProductClass:
    """T^pi images of the next layer and uniform distractors, layer by layer."""
    rng = np.random.default_rng(1)
    low, high = model.reward_range
    values, layers = np.zeros((1, model.n_states)), []
    for h in reversed(range(model.horizon)):
        images = bellman_images(model, h, values)
        fresh = (model.horizon - h) * rng.uniform(low, high, (distractors, *images.shape[1:]))
        layers.append(np.concatenate([images, np.where(model.action_mask, fresh, 0.0)]))
        values = (target[h] * layers[-1]).sum(axis=-1)
    return ProductClass(layers[::-1])


def likelihood_game(model: FiniteHorizonMDP, mu: NDArray, n: int, models: Any = None) -> Game:
    """Maximum likelihood among the truth and models with other transitions."""
    listed = [model, *others(model, 4)] if models is None else models
    bound = bounds.maximum_likelihood_bound(
        n,
        n_models=len(listed),
        concentrability=widest_ratio(model, mu),
        delta=DELTA,
        reward_width=width_of(model),
    )
    return Game(losing(model, lambda data: maximum_likelihood(data, listed).plan.policy), float(bound), _trivial(model))


def others(model: FiniteHorizonMDP, count: int) -> list[FiniteHorizonMDP]:
    """Models like `model` whose rows are half uniform, half the rows of another action."""
    dense, found = model.to_dense(), []
    for index in range(count):
        rows = np.roll(dense.transition, index + 1, axis=-2)
        rows = 0.5 * rows + 0.5 / model.n_states
        found.append(
            FiniteHorizonMDP(
                rows,
                dense.reward,
                horizon=model.horizon,
                initial=model.initial,
                action_mask=model.action_mask,
                reward_law=model.reward_law,
                reward_noise=model.reward_noise,
                reward_range=model.reward_range,
            )
        )
    return found


# ---- minimax


def msbo_game(
    model: FiniteHorizonMDP, mu: NDArray, n: int, cls: FiniteClass | None = None, helped: bool = True
) -> Game:
    """MSBO in a realizable list with the images of its members as helpers; not helped, it minimises plain squares."""
    members = realizable_class(model, 4, kind="random") if cls is None else cls
    values = members.state_values(model.action_mask)
    helper = ProductClass([bellman_images(model, h, values[:, h + 1]) for h in range(model.horizon)])
    bound = bounds.msbo_suboptimality_bound(
        n,
        log_size=members.log_size,
        helper_log_sizes=np.log(helper.sizes),
        concentrability=widest_ratio(model, mu),
        delta=DELTA,
        reward_width=width_of(model),
    )

    def learn(data: Dataset) -> NDArray[np.int64]:
        if helped:
            return msbo(data, members, helper, action_mask=model.action_mask).policy
        residual = [
            members.values[:, data.step[i], data.state[i], data.action[i]]
            - data.reward[i]
            - values[:, data.step[i] + 1, data.next_state[i]]
            for i in range(min(len(data), 20_000))
        ]
        return members.greedy(model.action_mask)[int(np.argmin((np.array(residual) ** 2).sum(axis=0)))]

    return Game(losing(model, learn), float(bound), _trivial(model))


def mabo_game(
    model: FiniteHorizonMDP, mu: NDArray, n: int, cls: FiniteClass | None = None, blind: bool = False
) -> Game:
    """MABO in a realizable list with the ratios of all its greedy policies; blind, with weights that are all 0."""
    members = realizable_class(model, 4, kind="random") if cls is None else cls
    policies = [backward_induction(model).policy, *members.greedy(model.action_mask)]
    weights = WeightClass(np.stack([density_ratio(occupancy(model, policy), mu) for policy in policies]))
    bound = bounds.mabo_suboptimality_bound(
        n,
        log_size=members.log_size,
        weights_log_size=weights.log_size,
        largest_weights=weights.values.max(axis=(0, 2, 3)),
        delta=DELTA,
        reward_width=width_of(model),
    )
    used = WeightClass(0 * weights.values) if blind else weights
    return Game(
        losing(model, lambda data: mabo(data, members, used, action_mask=model.action_mask).policy),
        float(bound),
        _trivial(model),
    )


# ---- pessimism


def pessimism_game(model: FiniteHorizonMDP, mu: NDArray, n: int, split: bool = True, scale: float = 1.0) -> Game:
    """How far the lower bounds of VI-LCB lie above the value of its policy, at worst over layers and states."""
    size = model.horizon * float(np.abs(model.reward).max() + width_of(model))
    rounding = model.horizon * gamma(n + model.n_states + 20) * size

    def observe(data: Dataset) -> float:
        found = vi_lcb(
            data,
            reward_range=model.reward_range,
            delta=DELTA,
            split=split,
            scale=scale,
            action_mask=model.action_mask,
        )
        truth = value_of(model, found.policy)
        return max(0.0, float((found.value - truth.mid - truth.radius).max()) - rounding)

    return Game(observe, 0.0, _trivial(model))


def lcb_game(model: FiniteHorizonMDP, mu: NDArray, n: int, scale: float = 1.0) -> Game:
    """What the policy of VI-LCB loses."""

    def learn(data: Dataset) -> NDArray[np.int64]:
        return vi_lcb(
            data, reward_range=model.reward_range, delta=DELTA / 2, scale=scale, action_mask=model.action_mask
        ).policy

    return Game(losing(model, learn), float(bounds.vi_lcb_model_bound(model, mu, n, DELTA)), _trivial(model))


# ---- models


def small_model() -> FiniteHorizonMDP:
    """Two states, two actions, two steps, Bernoulli rewards."""
    base = random_mdp(2, 2, 2, np.random.default_rng(3))
    return FiniteHorizonMDP(
        base.transition, base.reward, horizon=2, reward_law="bernoulli", name="random 2 x 2, two steps"
    )


def two_arms() -> FiniteHorizonMDP:
    """One state, two Bernoulli arms of means 1/4 and 3/4."""
    return FiniteHorizonMDP(
        np.ones((1, 2, 1)), np.array([[0.25, 0.75]]), horizon=1, reward_law="bernoulli", name="two arms"
    )


def swapped_arms() -> FiniteHorizonMDP:
    """The two arms, in the other order."""
    return two_arms().with_reward(np.array([[0.75, 0.25]]), reward_law="bernoulli")


def coin() -> FiniteHorizonMDP:
    """A coin, then a state where the first action pays 1 and the second 0.3, or one where nothing pays."""
    transition = np.zeros((3, 2, 3))
    transition[0, :, 1:] = 0.5
    transition[1, :, 1] = transition[2, :, 2] = 1.0
    reward = np.array([[0.0, 0.0], [1.0, 0.3], [0.0, 0.0]])
    return FiniteHorizonMDP(transition, reward, horizon=2, name="a coin, then a choice")


def smoothed() -> FiniteClass:
    """Action values of `coin` with less variance and a bad choice, and the true ones."""
    bad = np.zeros((2, 3, 2))
    bad[0, 0] = 0.5
    bad[1, 1], bad[1, 2] = (0.74, 0.75), 0.25
    true = np.zeros((2, 3, 2))
    true[0, 0] = 0.5
    true[:, 1] = (1.0, 0.3)
    true[0, 1] += 1.0
    return FiniteClass(np.stack([bad, true]))


def lottery() -> FiniteHorizonMDP:
    """One sure arm of 3/4 and fifty Bernoulli arms of 1/4."""
    reward = np.full((1, 51), 0.25)
    noise = np.full((1, 51), 0.25)
    reward[0, 0], noise[0, 0] = 0.75, 0.0
    return FiniteHorizonMDP(
        np.ones((1, 51, 1)), reward, horizon=1, reward_law="bernoulli", name="a good arm and fifty lottery tickets"
    )


def rarely(model: FiniteHorizonMDP) -> NDArray[np.float64]:
    """The first action nearly always, each other one in 2,500 times."""
    share = np.full(model.n_actions, 1 / 2500)
    share[0] = 1 - share[1:].sum()
    return np.broadcast_to(share, (model.n_states, model.n_actions)).copy()


def first_arm(model: FiniteHorizonMDP) -> NDArray[np.int64]:
    """Always the first action."""
    return np.zeros(model.n_states, np.int64)


ARMS = np.array([[[0.25, 0.0]], [[0.25, 0.75]]])
WRONG = np.array([[[0.75, 0.25]]])

INDEPENDENT = Assumption("independent trajectories", "The data are independent trajectories of one behaviour policy.")
COVERED = Assumption(
    "coverage", "The behaviour policy reaches every pair that some policy reaches; here it is uniform."
)


def _bernoulli_or_sure(model: FiniteHorizonMDP) -> str | None:
    return "outcome rewards fix the transitions of a list" if model.reward_law == "outcome" else None


COMMON: dict[str, Any] = {
    "family": "offline",
    "claim": "probability",
    "expected": "consistent",
    "accepts": "finite-horizon",
    "delta": DELTA,
    "default_runs": 100,
    "default_model": small_model,
}
DATA = (
    r"From $n$ independent trajectories of a behaviour policy with occupancies $\mu_h$, in a finite-horizon MDP with "
    r"rewards in $[l, l + w]$, with probability at least $1 - \delta$, "
)
KAPPA = r"$\kappa_h = ((H - h) w)^2 \log(|F_h| |F_{h+1}| H / \delta) / (1 - e^{-1/2})$"
RANGE = r"values of layer $h$ in $[(H - h) l, (H - h)(l + w)]$"
RATIO = r"$C_h \ge E_{\mu_h}[(d^\pi_h / \mu_h)^2]$ for an optimal policy and every policy that can be returned"

THEOREMS = (
    Theorem(
        key="fqi.suboptimality",
        title="Fitted Q iteration in a complete class",
        statement=DATA + rf"fitted Q iteration in a finite product class $F$ with {RANGE} and "
        r"$T_h F_{h+1} \subseteq F_h$ returns a policy "
        rf"with $J^* - J(\pi) \le 2 \sum_h \sqrt{{C_h \kappa_h / n}}$, {KAPPA}, {RATIO}.",
        source="Munos and Szepesvari (2008); Chen and Jiang (2019); constants derived here",
        protocol=partial(guarantee, game=fqi_game, episodes=20_000),
        bound=bounds.fqi_suboptimality_bound,
        controls=(
            Control(
                "uncovered data",
                "If the data never show the better arm, a class that contains the truth does not help.",
                partial(
                    guarantee,
                    game=partial(fqi_game, cls=ProductClass([ARMS]), factor=np.array([2.0])),
                    episodes=5000,
                    behaviour=first_arm,
                ),
                model=two_arms,
                runs=20,
            ),
            Control(
                "incomplete class",
                "Without the truth in the class the nearest member may be bad.",
                partial(guarantee, game=partial(fqi_game, cls=ProductClass([WRONG])), episodes=5000),
                model=two_arms,
                runs=20,
            ),
        ),
        proof=Proof("written", "docs/theory/fqi.md#fitted-q-iteration"),
        assumptions=(INDEPENDENT, COVERED),
        **COMMON,
    ),
    Theorem(
        key="fqe.error",
        title="Fitted Q evaluation in a closed class",
        statement=DATA + rf"fitted Q evaluation in a finite product class $F$ with {RANGE}, "
        r"$T^\pi_h F_{h+1} \subseteq F_h$ and a known start "
        rf"errs by at most $\sum_h \sqrt{{C_h(\pi) \kappa_h / n}}$, {KAPPA}, "
        r"$C_h(\pi) = E_{\mu_h}[(d^\pi_h / \mu_h)^2]$.",
        source="Le, Voloshin and Yue (2019); constants derived here",
        protocol=partial(guarantee, game=fqe_game, episodes=20_000),
        bound=bounds.fqe_error_bound,
        controls=(
            Control(
                "class that is not closed",
                "A class without the image of its next layer is biased however many data there are.",
                partial(guarantee, game=partial(fqe_game, cls=ProductClass([WRONG + [0.25, 0.25]])), episodes=20_000),
                model=two_arms,
                runs=20,
            ),
        ),
        proof=Proof("written", "docs/theory/fqi.md#fitted-q-evaluation"),
        assumptions=(INDEPENDENT, COVERED),
        **COMMON,
    ),
    Theorem(
        key="mle.suboptimality",
        title="Planning in the most likely model of a finite list",
        statement=DATA
        + r"the optimal plan of the most likely layers of a finite list $\mathcal M$ that contains the truth has "
        r"$J^* - J(\pi) \le 2 \sum_h \sqrt{C_h \kappa_h / n}$, "
        rf"$\kappa_h = 2 ((H - h) w)^2 \log(|\mathcal M| H / \delta)$, {RATIO}.",
        source="Amortila et al. (2024), appendix F; constants derived here",
        protocol=partial(guarantee, game=likelihood_game, episodes=20_000),
        bound=bounds.maximum_likelihood_bound,
        controls=(
            Control(
                "truth not in the list",
                "The most likely of wrong models is still wrong.",
                partial(
                    guarantee,
                    game=partial(likelihood_game, models=[swapped_arms()]),
                    episodes=5000,
                ),
                model=two_arms,
                runs=20,
            ),
        ),
        proof=Proof("written", "docs/theory/fqi.md#maximum-likelihood"),
        assumptions=(
            INDEPENDENT,
            COVERED,
            Assumption("rewards", "Rewards do not depend on the successor.", _bernoulli_or_sure),
        ),
        **COMMON,
    ),
    Theorem(
        key="msbo.suboptimality",
        title="Minimax squared Bellman optimisation",
        statement=DATA + rf"MSBO in a finite class $F \ni Q^*$ with {RANGE} and "
        r"helpers $G_h \ni T_h f_{h+1}$ for every $f \in F$ returns a policy "
        r"with $J^* - J(\pi) \le 2 \sqrt{\sum_h C_h} \sqrt{\kappa / n}$, "
        rf"$\kappa = \sum_h ((H - h) w)^2 [\log(2 |G_h| H / \delta) + \log(2 |F| H / \delta)] / (1 - e^{{-1/2}})$, "
        rf"{RATIO}.",
        source="Antos, Szepesvari and Munos (2008); Xie and Jiang (2020); constants derived here",
        protocol=partial(guarantee, game=msbo_game, episodes=50_000),
        bound=bounds.msbo_suboptimality_bound,
        controls=(
            Control(
                "no helper",
                "Plain squared residuals punish the variance of the truth and prefer what is smooth and wrong.",
                partial(guarantee, game=partial(msbo_game, cls=smoothed(), helped=False), episodes=50_000),
                model=coin,
                runs=10,
            ),
        ),
        proof=Proof("written", "docs/theory/minimax.md#msbo"),
        assumptions=(INDEPENDENT, COVERED),
        **COMMON,
    ),
    Theorem(
        key="mabo.suboptimality",
        title="Minimax average Bellman optimisation",
        statement=DATA + rf"MABO in a finite class $F \ni Q^*$ with {RANGE} and "
        r"weights $W$ that contain $(d^\pi_h / \mu_h)_h$ for an optimal "
        r"policy and the greedy policy of every $f \in F$ returns a policy with $J^* - J(\pi) \le 4 \sqrt 2 \sum_h B_h "
        r"(H - h) w \sqrt{\log(2 |F| |W| / \delta) / n}$, where $B_h$ is the largest weight of layer $h$.",
        source="Xie and Jiang (2020), Theorem 5; constants derived here",
        protocol=partial(guarantee, game=mabo_game, episodes=100_000),
        bound=bounds.mabo_suboptimality_bound,
        controls=(
            Control(
                "weights that see nothing",
                "Without the ratios of the policies at stake every member has the same worst residual.",
                partial(
                    guarantee,
                    game=partial(mabo_game, cls=FiniteClass(np.stack([WRONG, ARMS[1:]])), blind=True),
                    episodes=20_000,
                ),
                model=two_arms,
                runs=20,
            ),
        ),
        proof=Proof("written", "docs/theory/minimax.md#mabo"),
        assumptions=(INDEPENDENT, COVERED),
        **(COMMON | {"default_runs": 90}),
    ),
    Theorem(
        key="vi-lcb.pessimism",
        title="VI-LCB never promises more than its policy keeps",
        statement=DATA
        + r"the values of VI-LCB (split) satisfy $\hat V_h(s) \le V^{\hat\pi}_h(s)$ for its own policy $\hat\pi$, at "
        r"every layer and state at once.",
        source="Rashidinejad et al. (2021); Xie et al. (2021); constants derived here",
        protocol=partial(guarantee, game=pessimism_game, episodes=2000),
        controls=(
            Control(
                "no penalty",
                "The value of the best-looking policy in the empirical model is too high about half of the time.",
                partial(guarantee, game=partial(pessimism_game, scale=0.0), episodes=2000),
                runs=100,
            ),
        ),
        proof=Proof("written", "docs/theory/vi_lcb.md#pessimism"),
        assumptions=(INDEPENDENT,),
        **COMMON,
    ),
    Theorem(
        key="vi-lcb.pessimism-unsplit",
        title="VI-LCB without splitting: pessimism for every value function at once",
        statement=DATA
        + r"the values of VI-LCB that uses all data in every layer satisfy $\hat V_h(s) \le V^{\hat\pi}_h(s)$, at "
        r"every layer and state at once.",
        source="derived here",
        protocol=partial(guarantee, game=partial(pessimism_game, split=False), episodes=2000),
        controls=(
            Control(
                "no penalty",
                "The value of the best-looking policy in the empirical model is too high about half of the time.",
                partial(guarantee, game=partial(pessimism_game, split=False, scale=0.0), episodes=2000),
                runs=100,
            ),
        ),
        proof=Proof("written", "docs/theory/vi_lcb.md#without-splitting"),
        assumptions=(INDEPENDENT,),
        **COMMON,
    ),
    Theorem(
        key="vi-lcb.suboptimality",
        title="VI-LCB needs data of one good policy only",
        statement=DATA
        + r"VI-LCB (split, with $\delta / 2$) returns a policy with $J^* - J(\hat\pi) \le \sum_h (H - h) w \sum_{s, a} "
        r"d^*_h(s, a) \min\{1, \sqrt{8 L / (m \mu_h(s, a))}\}$, where $d^*$ is the occupancy of one optimal policy, "
        r"$m = \lfloor n / H \rfloor$ and $L = \log(4 H S A / \delta)$.",
        source="Rashidinejad et al. (2021); Xie et al. (2021), Theorem 1; constants derived here",
        protocol=partial(guarantee, game=lcb_game, episodes=20_000),
        bound=bounds.vi_lcb_model_bound,
        controls=(
            Control(
                "no penalty",
                "Among many arms that were hardly tried some look perfect by luck.",
                partial(guarantee, game=partial(lcb_game, scale=0.0), episodes=2000, behaviour=rarely),
                model=lottery,
                runs=20,
            ),
        ),
        proof=Proof("written", "docs/theory/vi_lcb.md#suboptimality"),
        assumptions=(INDEPENDENT,),
        **COMMON,
    ),
)
