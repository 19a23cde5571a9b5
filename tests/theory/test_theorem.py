import pytest

from theoryrl.theory import Control, ExactObservations, Proof, Theorem


def protocol(model, *, rng, runs, jobs, progress):
    return ExactObservations([0.0], [1.0])


VALID = dict(
    key="some.theorem",
    family="some",
    title="title",
    statement="statement",
    source="source",
    claim="exact",
    protocol=protocol,
    controls=(Control("broken", "what is broken", protocol),),
    proof=Proof("cited", "somewhere"),
    expected="verified",
)


def test_a_valid_theorem_is_frozen():
    theorem = Theorem(**VALID)
    with pytest.raises(AttributeError):
        theorem.key = "other.key"


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(key="NoDots"), "key 'NoDots'"),
        (dict(key="a.b c"), "key"),
        (dict(family=""), "family is empty"),
        (dict(statement=""), "statement is empty"),
        (dict(claim="maybe"), "claim is 'maybe'"),
        (dict(expected="consistent"), "expected is 'consistent'; of a claim of kind exact it is verified or refuted"),
        (dict(expected="inconclusive"), "expected is 'inconclusive'"),
        (dict(claim="rate"), "expected is 'verified'; of a claim of kind rate it is consistent or refuted"),
        (dict(delta=0.05), "delta is 0.05 for a claim of kind exact"),
        (dict(claim="probability", expected="consistent", delta=1.0), r"delta is 1.0, not in \(0, 1\)"),
        (dict(claim="probability", expected="consistent", delta=float("nan")), "delta is nan"),
        (dict(controls=()), "no control"),
        (dict(controls=VALID["controls"] * 2), "two controls share a name"),
        (dict(proof=Proof("guessed", "x")), "proof is 'guessed: x'"),
        (dict(proof=Proof("written", "")), "proof is"),
        (dict(accepts="bandit"), "accepts is 'bandit'"),
        (dict(default_runs=0), "default_runs is 0"),
    ],
)
def test_an_invalid_theorem_cannot_be_made(change, message):
    with pytest.raises(ValueError, match=message):
        Theorem(**VALID | change)


def test_a_claim_false_as_published_is_expected_to_be_refuted():
    assert Theorem(**VALID | dict(expected="refuted")).expected == "refuted"
