"""Bounds with explicit constants, one file per family of learners, and their inversion."""

from theoryrl._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "golf_regret_bound": "golf",
        "hyq_regret_bound": "hyq",
        "bpi_lower_bound": "lower_bounds",
        "bpi_ucbvi_sample_bound": "identification",
        "rf_express_sample_bound": "identification",
        "rf_ucrl_sample_bound": "identification",
        "domingues_lower_bound": "lower_bounds",
        "jao_lower_bound": "lower_bounds",
        "lsvi_ucb_regret_bound": "lsvi_ucb",
        "min_episodes": "inversion",
        "epsilon_greedy_lock_regret": "q_learning",
        "olive_episode_bound": "olive",
        "oppo_regret_bound": "oppo",
        "rmax_mistake_bound": "rmax",
        "rmax_regret_bound": "rmax",
        "rmax_visits": "rmax",
        "ucb_b_regret_bound": "q_learning",
        "ucb_h_regret_bound": "q_learning",
        "psrl_bayes_regret_bound": "posterior",
        "rlsvi_regret_bound": "posterior",
        "euler_regret_bound": "euler",
        "ucbvi_regret_bound": "ucbvi",
        "ucbvi_regret_closed_form": "ucbvi",
        "ucrl2_regret_bound": "ucrl2",
        "ucbvi_rtdp_regret_bound": "ucbvi",
    },
)
