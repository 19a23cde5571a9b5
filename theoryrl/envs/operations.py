"""Operations research: inventory control, machine replacement, admission to a queue."""

from __future__ import annotations

import numpy as np

from theoryrl.envs._family import family, require_real
from theoryrl.mdp._checks import require_distribution, require_int
from theoryrl.mdp.model import FiniteHorizonMDP


@family
def inventory(
    *,
    capacity: int = 3,
    fixed_cost: float = 4.0,
    unit_cost: float = 2.0,
    holding: float = 1.0,
    price: float = 8.0,
    demand: tuple[float, ...] = (0.25, 0.5, 0.25),
    horizon: int = 3,
) -> FiniteHorizonMDP:
    """A warehouse that orders before random demand comes; what cannot be served is lost.

    State s is the stock, action a the order, allowed while s + a <= M. Ordering costs fixed_cost + unit_cost a (nothing
    for a = 0), stock after the order `holding` per unit, and every unit sold earns `price`. The reward is the expected
    profit of the period: r(s, a) = price E[min(D, s + a)] - cost(a) - holding (s + a). Start: an empty warehouse.

    Parameters
    ----------
    capacity : int
        M, at least 1; S = A = M + 1.
    fixed_cost, unit_cost, holding, price : float
        At least 0.
    demand : distribution
        Probability of a demand of 0, 1, 2, ... units.
    horizon : int
        H, at least 1.

    Notes
    -----
    Known constants: by default the optimal values from a stock of 0, 1, 2, 3 are 67/16, 129/16, 194/16 and 227/16.

    References
    ----------
    Puterman (1994), Markov decision processes, Sections 3.2 and 4.6.1.
    """
    capacity = require_int(capacity, 1, "capacity")
    fixed_cost, unit_cost = require_real(fixed_cost, "fixed_cost", 0), require_real(unit_cost, "unit_cost", 0)
    holding, price = require_real(holding, "holding", 0), require_real(price, "price", 0)
    weights = np.asarray(demand, np.float64)
    if weights.ndim != 1 or not weights.size:
        raise ValueError("demand must be a list of probabilities")
    require_distribution(weights, "demand")
    n = capacity + 1
    transition = np.zeros((n, n, n))
    reward = np.zeros((n, n))
    mask = np.zeros((n, n), bool)
    for s in range(n):
        for a in range(n - s):
            mask[s, a] = True
            reward[s, a] = -(fixed_cost + unit_cost * a if a else 0.0) - holding * (s + a)
            for wanted, probability in enumerate(weights):
                sold = min(wanted, s + a)
                transition[s, a, s + a - sold] += probability
                reward[s, a] += probability * price * sold
    return FiniteHorizonMDP(transition, reward, horizon=horizon, action_mask=mask)


@family
def machine_replacement(
    *, n_states: int = 5, wear: float = 0.5, cost: float = 1.0, horizon: int = 20
) -> FiniteHorizonMDP:
    """A machine that wears: run it on, or replace it first.

    State s is the wear, 0 (new) to S - 1. Action 0 runs the machine: it earns 1 - s / (S - 1) and then wears by one
    with probability `wear`, the worst state being absorbing. Action 1 pays `cost` for a new machine and runs that one.

    Parameters
    ----------
    n_states : int
        S, at least 2.
    wear : float
        In [0, 1].
    cost : float
        At least 0.
    horizon : int
        H, at least 1.

    Notes
    -----
    Known constants: with cost 0 the optimal value is H. With wear 1 and cost >= H nothing is ever replaced and it is
    the sum over h < H of max(0, 1 - h / (S - 1)).

    References
    ----------
    Derman (1963), On optimal replacement rules when changes of state are Markovian.
    """
    n_states = require_int(n_states, 2, "n_states")
    wear, cost = require_real(wear, "wear", 0, 1), require_real(cost, "cost", 0)
    states = np.arange(n_states)
    transition = np.zeros((n_states, 2, n_states))
    transition[states, 0, states] += 1 - wear
    transition[states, 0, np.minimum(states + 1, n_states - 1)] += wear
    transition[:, 1] = transition[0, 0]
    income = 1 - states / (n_states - 1)
    reward = np.stack([income, np.full(n_states, 1 - cost)], axis=1)
    return FiniteHorizonMDP(transition, reward, horizon=horizon, action_labels=("run", "replace"))


@family
def queue_admission(
    *,
    capacity: int = 10,
    arrival: float = 0.5,
    service: float = 0.4,
    payment: float = 1.0,
    holding: float = 0.1,
    horizon: int = 20,
) -> FiniteHorizonMDP:
    """A queue with a gate: every admitted job pays once and costs for as long as it stays.

    State n is the number of jobs. In each slot a job arrives with probability `arrival`; action 1 admits it, action 0
    turns it away (the only choice when the queue is full). A job in service is done with probability `service`, at the
    end of the slot. The reward is the expected one, payment arrival a - holding n. Start: an empty queue.

    Parameters
    ----------
    capacity : int
        Largest number of jobs, at least 1.
    arrival, service : float
        In [0, 1].
    payment, holding : float
        At least 0.
    horizon : int
        H, at least 1.

    Notes
    -----
    Known constants: with holding 0 and capacity >= H the optimal value is H arrival payment; with holding >= payment
    only the last slot admits and it is arrival payment.

    References
    ----------
    Naor (1969), The regulation of queue size by levying tolls; in discrete time Puterman (1994), Section 3.7.
    """
    capacity = require_int(capacity, 1, "capacity")
    arrival, service = require_real(arrival, "arrival", 0, 1), require_real(service, "service", 0, 1)
    payment, holding = require_real(payment, "payment", 0), require_real(holding, "holding", 0)
    n_states = capacity + 1
    transition = np.zeros((n_states, 2, n_states))
    reward = np.zeros((n_states, 2))
    mask = np.ones((n_states, 2), bool)
    mask[capacity, 1] = False
    for n in range(n_states):
        done = service if n else 0.0
        for admit in (0, 1) if n < capacity else (0,):
            enters = arrival * admit
            for joined, p_joined in ((1, enters), (0, 1 - enters)):
                for left, p_left in ((1, done), (0, 1 - done)):
                    if p_joined * p_left > 0:
                        transition[n, admit, n + joined - left] += p_joined * p_left
            reward[n, admit] = payment * enters - holding * n
    return FiniteHorizonMDP(transition, reward, horizon=horizon, action_mask=mask, action_labels=("turn away", "admit"))
