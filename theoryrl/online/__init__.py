"""Floor 3: the interaction protocol and the standard online learners."""

from theoryrl._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "bounds": "=bounds",
        "run": "run",
        "Run": "run",
        "GOLF": "golf",
        "LSVIUCB": "lsvi_ucb",
        "EpsilonGreedy": "epsilon_greedy",
        "OPPO": "oppo",
        "UCBB": "ucb_b",
        "UCBH": "ucb_h",
        "UCBVI": "ucbvi",
        "PSRL": "psrl",
        "RLSVI": "rlsvi",
        "UCRL2": "ucrl2",
        "Uniform": "uniform",
        "Problem": "verbs",
        "sample": "verbs",
        "plan": "verbs",
        "act": "verbs",
        "observe": "verbs",
        "chance": "verbs",
        "upper_value": "verbs",
        "golf_regret_bound": "bounds.golf",
        "lsvi_ucb_regret_bound": "bounds.lsvi_ucb",
        "epsilon_greedy_lock_regret": "bounds.q_learning",
        "oppo_regret_bound": "bounds.oppo",
        "ucb_b_regret_bound": "bounds.q_learning",
        "ucb_h_regret_bound": "bounds.q_learning",
        "ucbvi_regret_bound": "bounds.ucbvi",
        "ucbvi_regret_closed_form": "bounds.ucbvi",
        "min_episodes": "bounds.inversion",
    },
)
