"""What is no model is refused by name everywhere, and copies of results are as unchangeable as the results."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest

import theoryrl as trl
from theoryrl.online import Uniform

TRANSITION = np.array([[[0.5, 0.5], [1.0, 0.0]], [[0.0, 1.0], [0.25, 0.75]]])
REWARD = np.array([[0.0, 1.0], [0.5, 0.2]])
POLICY = np.array([0, 1])
FINITE = trl.FiniteHorizonMDP(TRANSITION, REWARD, horizon=3)
DISCOUNTED = trl.DiscountedMDP(TRANSITION, REWARD, discount=0.9)
OUTCOME = trl.FiniteHorizonMDP(TRANSITION, outcome_reward=TRANSITION, horizon=3)

ON_FINITE = {
    "backward_induction": (),
    "soft_backward_induction": (1.0,),
    "evaluate": (POLICY,),
    "evaluate_q": (POLICY,),
    "moments": (POLICY,),
    "occupancy": (POLICY,),
    "reachability": (),
    "backward_induction_rewards": (REWARD[np.newaxis],),
    "occupancy_lp": (),
    "augment": (2, lambda m, s, a, t: 0),
}
ON_DISCOUNTED = {"solve_discounted": (), "evaluate_discounted": (POLICY,), "bellman": (np.zeros(2),)}
ON_BOTH = {
    "certify": (),
    "exact_value": (),
    "uniform_policy": (),
    "BatchSimulator": (2,),
    "GenerativeModel": (),
    "to_mdptoolbox": (),
    "to_prism": ("nowhere",),
    "to_quantecon": (),
    "save": ("nowhere",),
}


@pytest.mark.parametrize("name", [*ON_FINITE, *ON_DISCOUNTED, *ON_BOTH])
@pytest.mark.parametrize("thing", [None, "riverswim", TRANSITION, trl.FiniteHorizonMDP])
def test_what_is_no_model_is_a_type_error(name, thing):
    arguments = (ON_FINITE | ON_DISCOUNTED | ON_BOTH)[name]
    with pytest.raises(TypeError, match=type(thing).__name__):
        getattr(trl, name)(thing, *arguments)


@pytest.mark.parametrize("thing", [None, "experiment.py", FINITE])
def test_what_is_no_experiment_or_model_is_not_swept_or_drawn(thing, tmp_path):
    with pytest.raises(TypeError, match=f"not a {type(thing).__name__}"):
        trl.lab.sweep(thing, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    if thing is not FINITE:
        with pytest.raises(TypeError, match=f"not a {type(thing).__name__}"):
            trl.viz.plot_graph(thing)


@pytest.mark.parametrize("name", [*ON_FINITE, *ON_DISCOUNTED])
def test_the_other_criterion_is_a_type_error_that_says_how_to_get_there(name):
    other, way = (DISCOUNTED, "with_horizon") if name in ON_FINITE else (FINITE, "with_discount")
    with pytest.raises(TypeError, match=way):
        getattr(trl, name)(other, *(ON_FINITE | ON_DISCOUNTED)[name])


def fields(value):
    """Every array in the fields of a result, models and tuples inside included."""
    if isinstance(value, np.ndarray):
        yield value
    elif dataclasses.is_dataclass(value):
        for item in vars(value).values():
            yield from fields(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from fields(item)


RESULTS = {
    "finite": lambda: FINITE,
    "discounted": lambda: DISCOUNTED,
    "sparse": FINITE.to_sparse,
    "outcome": lambda: OUTCOME,
    "discounted plan": lambda: trl.solve_discounted(DISCOUNTED),
    "certificate": lambda: trl.certify(FINITE),
    "data": lambda: trl.rollout(FINITE, POLICY, 2),
    "counts": lambda: trl.rollout(FINITE, POLICY, 2).counts(),
    "mixture": lambda: trl.MixturePolicy([POLICY, 1 - POLICY]),
    "augmented": lambda: trl.augment(FINITE, 2, lambda m, s, a, t: a),
    "linear program": lambda: trl.occupancy_lp(FINITE),
}


@pytest.mark.parametrize("name", RESULTS)
def test_copies_are_read_only_too(name):
    result = RESULTS[name]()
    for twin in (result, copy.copy(result), copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        arrays = list(fields(twin))
        assert arrays and not any(array.flags.writeable for array in arrays)
        assert all(np.array_equal(a, b) for a, b in zip(arrays, fields(result), strict=True))
    if type(result).__eq__ is not object.__eq__:
        assert pickle.loads(pickle.dumps(result)) == result


@pytest.mark.parametrize("jobs", [0, -1, 1.5, "2", True])
def test_a_number_of_threads_is_an_integer_from_1_on(jobs):
    with pytest.raises(ValueError, match="jobs"):
        trl.rollout(FINITE, POLICY, 2, jobs=jobs)
    with pytest.raises(ValueError, match="jobs"):
        trl.run(Uniform(), FINITE, 2, jobs=jobs)
    with pytest.raises(ValueError, match="jobs"):
        trl.verify("pigeonhole.visits", runs=1, jobs=jobs)


@pytest.mark.parametrize("runs", [0, -1, 1.5, "2", True])
def test_a_number_of_runs_is_an_integer_from_1_on(runs):
    with pytest.raises(ValueError, match="runs"):
        trl.verify("pigeonhole.visits", runs=runs)


def test_values_of_a_discounted_policy_that_overflow_are_refused():
    loud = trl.DiscountedMDP(TRANSITION, np.full((2, 2), 1e308), discount=0.99)
    with pytest.raises(ValueError, match="not finite"):
        trl.evaluate_discounted(loud, POLICY)


def test_replace_changes_one_field_of_a_model():
    for model in (FINITE, DISCOUNTED, OUTCOME, OUTCOME.to_sparse()):
        moved = dataclasses.replace(model, initial=1)
        assert moved == model.with_initial(1) and moved != model
    with pytest.raises(ValueError, match="not the mean of outcome_reward"):
        dataclasses.replace(OUTCOME, reward=REWARD)
    with pytest.raises(ValueError, match="and not both"):
        trl.FiniteHorizonMDP(TRANSITION, REWARD, outcome_reward=TRANSITION, horizon=3)


@pytest.mark.parametrize("noise", [np.full((2, 2), "0.1"), np.full((2, 2), 0.1, object), np.full((2, 2), 0.1j), "0.1"])
def test_noise_must_hold_numbers(noise):
    with pytest.raises(ValueError, match="reward_noise must hold numbers"):
        trl.FiniteHorizonMDP(TRANSITION, REWARD, horizon=3, reward_law="uniform", reward_noise=noise)


@pytest.mark.parametrize("law", ["", [], 0])
def test_an_empty_reward_law_is_not_the_default_one(law):
    with pytest.raises(ValueError, match="reward_law"):
        trl.FiniteHorizonMDP(TRANSITION, REWARD, horizon=3, reward_law=law)


def test_a_list_that_is_sparse_in_part_names_the_rest():
    from scipy.sparse import csr_array

    rows = csr_array(TRANSITION.reshape(4, 2))
    with pytest.raises(ValueError, match=r"transition\[1\] is a ndarray"):
        trl.FiniteHorizonMDP([rows, TRANSITION.reshape(4, 2)], REWARD, horizon=2)


ENTRIES = {"states": [0, 0, 1], "actions": [0, 0, 0], "successors": [0, 1, 1], "probabilities": [0.5, 0.5, 1.0]}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"states": [0.5, 0, 1]}, r"states\[0\] = 0.5 is not an integer"),
        ({"states": ["0", "0", "1"]}, "states must hold numbers"),
        ({"states": [[0, 0, 1]]}, "states has shape"),
        ({"actions": [0]}, "actions has shape"),
        ({"probabilities": [0.5]}, "probabilities has shape"),
        ({"probabilities": ["0.5", "0.5", "1"]}, "probabilities must hold numbers"),
        ({"layers": [0, 0.5, 0], "n_layers": 2}, r"layers\[1\] = 0.5 is not an integer"),
        ({"layers": [0, 0, 2], "n_layers": 2}, "layers must lie in 0 to 1"),
        ({"successors": [0, 2**63, 1]}, r"successors\[1\] = 9.2.*does not fit into int64"),
        ({"n_states": 2.0}, "n_states must be an integer"),
    ],
)
def test_entries_that_are_no_entries_are_named(changed, says):
    sizes = {"n_states": 2, "n_actions": 1}
    assert np.array_equal(trl.SparseTransition.from_entries(**ENTRIES, **sizes).row_sums(), [1, 1])
    with pytest.raises(ValueError, match=says):
        trl.SparseTransition.from_entries(**(ENTRIES | sizes | changed))


def test_stored_entries_have_one_axis():
    with pytest.raises(ValueError, match="one axis"):
        trl.SparseTransition([0, 2, 3], [[0, 1, 1]], [[0.5, 0.5, 1.0]], 2, 1)


@pytest.mark.parametrize("kind", [str, object, complex])
def test_other_formats_must_hold_numbers_too(kind):
    with pytest.raises(ValueError, match=r"P\[0\] must hold numbers"):
        trl.from_mdptoolbox(TRANSITION.transpose(1, 0, 2).astype(kind), REWARD, horizon=2)
    with pytest.raises(TypeError, match="DiscreteDP"):
        trl.from_quantecon(kind)


def test_what_is_no_data_set_is_not_concatenated():
    with pytest.raises(TypeError, match=r"datasets\[1\] is a int"):
        trl.Dataset.concatenate([trl.rollout(FINITE, POLICY, 1), 1])


def test_mixtures_of_mixtures_are_taken_apart():
    inner = trl.MixturePolicy([POLICY, 1 - POLICY], [0.25, 0.75])
    nested = trl.MixturePolicy([inner, POLICY])
    assert nested == trl.MixturePolicy([POLICY, 1 - POLICY, POLICY], [0.125, 0.375, 0.5])
    assert nested != inner and nested != "mixture"
    assert trl.rollout(FINITE, nested, 3) == trl.rollout(FINITE, nested, 3)


def test_a_mixture_keeps_its_policies_whatever_becomes_of_the_arrays():
    policy = np.array([0, 1])
    mixture = trl.MixturePolicy([policy])
    before = trl.evaluate(FINITE, mixture)
    policy[:] = 1 - policy
    assert np.array_equal(trl.evaluate(FINITE, mixture), before)
    assert not np.array_equal(trl.evaluate(FINITE, policy), before)


@pytest.mark.parametrize("policies", [[None], ["ab"], [[0, [1]]]])
def test_what_is_no_policy_is_refused_by_the_mixture(policies):
    with pytest.raises(ValueError, match=r"policies\[0\]"):
        trl.MixturePolicy(policies)


@pytest.mark.parametrize("memory", [0.5, None, "0", 2, -1])
def test_a_memory_is_an_integer_in_range(memory):
    with pytest.raises(ValueError, match="update"):
        trl.augment(FINITE, 2, lambda m, s, a, t: memory)
    with pytest.raises(ValueError, match="initial_memory"):
        trl.augment(FINITE, 2, lambda m, s, a, t: 0, memory)


@pytest.mark.filterwarnings("error")
def test_a_linear_program_with_denormal_costs_has_no_budget_to_speak_of():
    free = trl.occupancy_lp(FINITE)
    for cost, budget in ((5e-324, 1.0), (5e-324, 1e300)):
        solution = trl.occupancy_lp(FINITE, [(np.full((2, 2), cost), budget)])
        assert abs(solution.value - free.value) <= 1e-9 and solution.upper - solution.lower <= 1e-6


def test_a_plan_has_a_value():
    with pytest.raises(TypeError, match="plan is a int"):
        trl.certify(FINITE, 5)
