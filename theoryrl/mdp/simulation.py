"""Simulation: whole data sets of episodes, many copies stepped at once, and draws from any state and action."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp import _kernels_sampling as kernels
from theoryrl.mdp._checks import frozen, require_int
from theoryrl.mdp.dataset import Dataset
from theoryrl.mdp.model import FiniteHorizonMDP, require_model
from theoryrl.mdp.policy import MixturePolicy, Model, policy_layers
from theoryrl.mdp.randomness import Rng, as_generator, streams
from theoryrl.mdp.sampling import read_only, row_tables, sampler, transition_rows
from theoryrl.mdp.transitions import SparseTransition

# Steps per block of episodes. A constant, so that blocks and their streams depend on the horizon alone; large enough
# that making a block's two generators (50 us) is lost in running it (2 ms), small enough to share among threads.
BLOCK_STEPS = 2**18


class _PolicyTables(NamedTuple):
    """One or more policies as rows to draw from; the last row draws which of them plays an episode."""

    indptr: NDArray[np.int64]
    successors: NDArray[np.uint32]  # actions, or policies
    threshold: NDArray[np.float64]
    alias: NDArray[np.uint32]
    start: NDArray[np.int64]  # (K,) policy k in state s at layer h is row start[k] + h * stride[k] + s
    stride: NDArray[np.int64]  # (K,) S, or 0 for a stationary policy


def _policy_tables(policy: Any, mdp: FiniteHorizonMDP) -> _PolicyTables:
    mixed = isinstance(policy, MixturePolicy)
    layers = []
    for k, member in enumerate(policy.policies if mixed else [policy]):
        try:
            layers.append(policy_layers(member, mdp))
        except ValueError as error:
            raise ValueError(f"policies[{k}]: {error}" if mixed else str(error)) from None
    actions, chances, widths = [], [], []
    for table in layers:
        rows = table.reshape(-1) if table.ndim == 2 else table.reshape(-1, mdp.n_actions)
        actions.append(rows if table.ndim == 2 else np.tile(np.arange(mdp.n_actions), len(rows)))
        chances.append(np.ones(len(rows)) if table.ndim == 2 else rows.reshape(-1))
        widths.append(np.full(len(rows), 1 if table.ndim == 2 else mdp.n_actions))
    pointer = np.concatenate([[0], *widths]).cumsum()
    entries = read_only(np.concatenate(actions).astype(np.uint32)), read_only(np.concatenate(chances))
    weights = policy.weights if mixed else np.ones(1)
    indptr, successors, threshold, alias, _ = row_tables(
        read_only(pointer), *entries, weights, read_only(np.ones(1, bool))
    )
    lengths = [len(width) for width in widths]
    stride = np.array([mdp.n_states if len(table) > 1 else 0 for table in layers])
    return _PolicyTables(indptr, successors, threshold, alias, np.cumsum([0, *lengths[:-1]]), stride)


def rollout(mdp: FiniteHorizonMDP, policy: Any, episodes: int, rng: Rng = 0, jobs: int | None = None) -> Dataset:
    """Episodes of a policy, as a data set of `episodes * H` rows in order of trajectory and step.

    Episodes are cut into blocks of about 2^18 steps, each with two streams of its own: one for the environment, one for
    the policy. The result is therefore the same to the bit for any number of workers, the first n episodes are the same
    however many follow, and two policies under one seed meet the same environment stream (common random numbers).

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    policy : (S,), (H, S) actions, (S, A), (H, S, A) probabilities, or MixturePolicy
        Of a mixture one policy is drawn per episode: data of several behaviour policies.
    episodes : int
        At least 1.
    rng : int, SeedSequence or Generator
    jobs : int, optional
        Threads; default one per processor.

    Raises
    ------
    ValueError
        If the policy does not fit the model (the entry is named) or a number is below 1.
    """
    if not isinstance(mdp, FiniteHorizonMDP):
        raise ValueError(f"rollout needs a FiniteHorizonMDP, not a {type(mdp).__name__}; with_horizon(H) gives one")
    episodes = require_int(episodes, 1, "episodes")
    jobs = (os.cpu_count() or 1) if jobs is None else require_int(jobs, 1, "jobs")
    table, chooser = sampler(mdp), _policy_tables(policy, mdp)
    rows = episodes * mdp.horizon
    columns = tuple(np.empty(rows, np.float64 if name == "reward" else np.int64) for name in Dataset.COLUMNS)
    size = max(1, BLOCK_STEPS // mdp.horizon)
    starts = range(0, episodes, size)

    def run(first: int, generators: tuple[np.random.Generator, ...]) -> None:
        kernels.run_episodes(table, chooser, mdp.horizon, *generators, first, min(first + size, episodes), columns)

    with ThreadPoolExecutor(min(jobs, len(starts))) as pool:
        list(pool.map(run, starts, streams(rng, len(starts), ("environment", "policy"))))
    return Dataset.of_checked(columns, mdp.n_states, mdp.n_actions, mdp.horizon)


class BatchSimulator:
    """`n` independent copies of a model, stepped together by one compiled call.

    Parameters
    ----------
    mdp : FiniteHorizonMDP or DiscountedMDP
        A discounted model has no end: `done` is never true.
    n : int
        Number of copies.
    rng : int, SeedSequence or Generator
        One stream for all copies, which take from it in turn: as many numbers in each step whatever the actions.

    Attributes
    ----------
    states : (n,) int64
        Where the copies are (a copy of the array).
    step_number : int
        Steps taken since the last reset, the layer h that the next actions belong to.

    Examples
    --------
    >>> simulator = BatchSimulator(mdp, 1000)
    >>> states, done = simulator.reset(), False
    >>> while not done:
    ...     states, rewards, done = simulator.step(policy[states])
    """

    def __init__(self, mdp: Model, n: int, rng: Rng = 0) -> None:
        require_model(mdp)
        self._mdp = mdp
        self._horizon = mdp.horizon if isinstance(mdp, FiniteHorizonMDP) else None
        self._sampler = sampler(mdp)
        self._rng = as_generator(rng)
        self._states = np.empty(require_int(n, 1, "n"), np.int64)
        self.reset()

    @property
    def states(self) -> NDArray[np.int64]:
        """Current states (n,), a copy."""
        return self._states.copy()

    def reset(self) -> NDArray[np.int64]:
        """Draw new initial states and return them, (n,)."""
        self.step_number = 0
        kernels.reset_batch(self._sampler, self._rng, self._states)
        return self._states.copy()

    def step(self, actions: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64], bool]:
        """Take one action per copy.

        Parameters
        ----------
        actions : (n,) integers

        Returns
        -------
        states : (n,) int64
        rewards : (n,) float64
        done : bool
            Whether this was the last step of the horizon (of all copies at once).

        Raises
        ------
        ValueError
            If an action is none or is forbidden in its copy's state (the entry is named), or the episodes are over;
            nothing is drawn then.
        """
        chosen = frozen(actions, np.int64, "actions")
        if chosen.shape != self._states.shape:
            raise ValueError(f"actions has shape {chosen.shape}, not {self._states.shape}")
        if self.step_number == self._horizon:
            raise ValueError(f"the episodes are over after {self._horizon} steps: call reset()")
        wrong = kernels.first_unplayable(self._mdp.action_mask, self._states, chosen)
        if wrong >= 0:
            _require_allowed(self._mdp, int(self._states[wrong]), int(chosen[wrong]), f"actions[{wrong}]")
        rewards = np.empty(chosen.shape)
        kernels.step_batch(self._sampler, self.step_number, chosen, self._rng, self._states, rewards)
        self.step_number += 1
        return self._states.copy(), rewards, self.step_number == self._horizon


class GenerativeModel:
    """Draws from any state and action: the access model of sample-based planning (Kearns and Singh 1999).

    Parameters
    ----------
    mdp : FiniteHorizonMDP or DiscountedMDP
    rng : int, SeedSequence or Generator
        One stream; every call moves on along it.
    """

    def __init__(self, mdp: Model, rng: Rng = 0) -> None:
        require_model(mdp)
        self._mdp = mdp
        self._sampler = sampler(mdp)
        self._rng = as_generator(rng)

    def sample(self, s: int, a: int, n: int, h: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """`n` independent successors and rewards of the pair (s, a), each (n,).

        Parameters
        ----------
        s, a : int
            An allowed pair.
        n : int
            At least 1.
        h : int, optional
            The layer; needed if and only if the model changes over time.
        """
        mdp = self._mdp
        n, s, a = require_int(n, 1, "n"), require_int(s, 0, "s"), require_int(a, 0, "a")
        if s >= mdp.n_states:
            raise ValueError(f"s = {s} is not a state (0 to {mdp.n_states - 1})")
        _require_allowed(mdp, s, a, "a")
        if h is None and not mdp.stationary:
            raise ValueError("the model changes over time: say which layer h to draw from")
        layer = 0 if h is None else require_int(h, 0, "h")
        if isinstance(mdp, FiniteHorizonMDP) and layer >= mdp.horizon:
            raise ValueError(f"h = {layer} is not a layer (0 to {mdp.horizon - 1})")
        successors, rewards = np.empty(n, np.int64), np.empty(n)
        kernels.sample_pair(self._sampler, layer, s, a, self._rng, successors, rewards)
        return successors, rewards

    def counts(self, n: int) -> NDArray[np.int64]:
        """How often each successor comes up in `n` draws from every allowed pair (of every layer, if they differ).

        Returns
        -------
        (S, A, S) or (H, S, A, S) int64; for a sparse model (nnz,), one count per stored entry of `mdp.transition`
            Rows of allowed pairs sum to `n`, those of forbidden pairs are zero.
        """
        n = require_int(n, 1, "n")
        pointer, _, data = transition_rows(self._mdp)
        counts = np.zeros(data.size, np.int64)
        tail = np.empty(int(np.diff(pointer).max()))
        kernels.draw_counts(pointer, data, self._mdp.action_mask.reshape(-1), n, self._rng, tail, counts)
        return counts if self._mdp.is_sparse else counts.reshape(self._mdp.transition.shape)

    def empirical_mdp(self, n: int) -> Model:
        """The model estimated from `n` draws of every allowed pair; start, labels and storage as in the original.

        Its rewards are the means of the `n` sampled ones (under the outcome law: of those of the sampled successors),
        deterministic.
        """
        mdp, counts = self._mdp, self.counts(n)
        transition: Any = counts / n
        if mdp.is_sparse:
            rows: SparseTransition = mdp.transition
            transition = SparseTransition(
                rows.indptr, rows.indices, counts / n, mdp.n_states, mdp.n_actions, rows.n_layers, rows.staged
            )
        settings: dict[str, Any] = {
            "initial": mdp.initial,
            "reward_range": mdp.reward_range,
            "state_labels": mdp.state_labels,
            "action_labels": mdp.action_labels,
            "action_mask": mdp.action_mask,
            "name": f"{mdp.name} estimated from {n} draws per pair".strip(),
        }
        if mdp.reward_law == "outcome":
            settings["outcome_reward"] = mdp.outcome_reward
        else:
            settings["reward"] = self._mean_rewards(n)
        if isinstance(mdp, FiniteHorizonMDP):
            return FiniteHorizonMDP(transition, horizon=mdp.horizon, **settings)
        return type(mdp)(transition, discount=mdp.discount, **settings)

    def _mean_rewards(self, n: int) -> NDArray[np.float64]:
        if self._mdp.reward_law == "bernoulli":
            return self._rng.binomial(n, self._mdp.reward) / n
        reward = self._mdp.reward.reshape(-1).copy()
        if self._mdp.reward_law == "uniform":
            kernels.add_mean_noise(n, self._rng, self._mdp.reward_noise.reshape(-1), reward)
        return reward.reshape(self._mdp.reward.shape)


def _require_allowed(mdp: Model, s: int, a: int, name: str) -> None:
    if not 0 <= a < mdp.n_actions:
        raise ValueError(f"{name} = {a} is not an action (0 to {mdp.n_actions - 1})")
    if not mdp.action_mask[s, a]:
        raise ValueError(f"{name} = {a} is forbidden in state {s}")
