"""theoryrl: the theorems of reinforcement learning, as things that run."""

from theoryrl._lazy import attach

__version__ = "0.1.0"

_MDP = (
    "FiniteHorizonMDP DiscountedMDP SparseTransition MixturePolicy AugmentedMDP augment uniform_policy random_mdp "
    "Plan BatchPlan Moments backward_induction backward_induction_rewards backward_induction_batch "
    "soft_backward_induction evaluate evaluate_q moments occupancy reachability greedy optimal_actions "
    "DiscountedPlan solve_discounted evaluate_discounted bellman occupancy_lp LinearProgramSolution "
    "certify Certificate exact_value rollout BatchSimulator GenerativeModel Dataset save load "
    "from_gymnasium to_gymnasium from_mdptoolbox to_mdptoolbox from_quantecon to_quantecon from_prism to_prism"
).split()
_THEORY = "Theorem theorems verify verify_many Report".split()
_ONLINE = "run Run".split()
_ROOMS = "mdp theory classes complexity envs online offline density_ratio lab viz testing".split()

__getattr__, __dir__, __all__ = attach(
    __name__,
    dict.fromkeys(_MDP, "mdp")
    | dict.fromkeys(_THEORY, "theory")
    | dict.fromkeys(_ONLINE, "online")
    | {r: f"={r}" for r in _ROOMS},
)
