# What `import theoryrl` offers, for type checkers and editors; a test keeps it equal to __init__.py.

from theoryrl import classes, complexity, density_ratio, envs, lab, mdp, offline, online, testing, theory, viz
from theoryrl.mdp.batch import BatchPlan, backward_induction_batch, backward_induction_rewards
from theoryrl.mdp.certify import Certificate, certify
from theoryrl.mdp.dataset import Dataset
from theoryrl.mdp.discounted import DiscountedPlan, bellman, evaluate_discounted, solve_discounted
from theoryrl.mdp.evaluation import Moments, evaluate, evaluate_q, moments, occupancy, reachability
from theoryrl.mdp.exact import exact_value
from theoryrl.mdp.files import load, save
from theoryrl.mdp.interop.gymnasium_models import from_gymnasium, to_gymnasium
from theoryrl.mdp.interop.mdptoolbox import from_mdptoolbox, to_mdptoolbox
from theoryrl.mdp.interop.prism import from_prism, to_prism
from theoryrl.mdp.interop.quantecon_models import from_quantecon, to_quantecon
from theoryrl.mdp.linear_program import LinearProgramSolution, occupancy_lp
from theoryrl.mdp.model import DiscountedMDP, FiniteHorizonMDP
from theoryrl.mdp.planning import Plan, backward_induction, greedy, optimal_actions, soft_backward_induction
from theoryrl.mdp.policy import AugmentedMDP, MixturePolicy, augment, uniform_policy
from theoryrl.mdp.random import random_mdp
from theoryrl.mdp.simulation import BatchSimulator, GenerativeModel, rollout
from theoryrl.mdp.transitions import SparseTransition
from theoryrl.online.run import Run, run
from theoryrl.theory.registry import theorems
from theoryrl.theory.report import Report
from theoryrl.theory.theorem import Theorem
from theoryrl.theory.verify import verify, verify_many

__all__ = [
    "AugmentedMDP",
    "BatchPlan",
    "BatchSimulator",
    "Certificate",
    "Dataset",
    "DiscountedMDP",
    "DiscountedPlan",
    "FiniteHorizonMDP",
    "GenerativeModel",
    "LinearProgramSolution",
    "MixturePolicy",
    "Moments",
    "Plan",
    "Report",
    "Run",
    "SparseTransition",
    "Theorem",
    "augment",
    "backward_induction",
    "backward_induction_batch",
    "backward_induction_rewards",
    "bellman",
    "certify",
    "classes",
    "complexity",
    "density_ratio",
    "envs",
    "evaluate",
    "evaluate_discounted",
    "evaluate_q",
    "exact_value",
    "from_gymnasium",
    "from_mdptoolbox",
    "from_prism",
    "from_quantecon",
    "greedy",
    "lab",
    "load",
    "mdp",
    "moments",
    "occupancy",
    "occupancy_lp",
    "offline",
    "online",
    "optimal_actions",
    "random_mdp",
    "reachability",
    "rollout",
    "run",
    "save",
    "soft_backward_induction",
    "solve_discounted",
    "testing",
    "theorems",
    "theory",
    "to_gymnasium",
    "to_mdptoolbox",
    "to_prism",
    "to_quantecon",
    "uniform_policy",
    "verify",
    "verify_many",
    "viz",
]
__version__: str
