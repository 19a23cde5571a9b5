"""Seeds in, generators out."""

import numpy as np
import pytest
from numpy.random import SeedSequence, default_rng

from theoryrl.mdp.randomness import as_generator, as_seed_sequence, streams


def test_a_seed_is_numpys_own():
    expected = default_rng(5).random(4)
    for rng in (5, np.int64(5), SeedSequence(5), default_rng(5)):
        np.testing.assert_array_equal(as_generator(rng).random(4), expected)


def test_a_seed_sequence_gives_the_same_streams_however_often():
    sequence = SeedSequence(3)
    first = [g.random() for run in streams(sequence, 2) for g in run]
    sequence.spawn(5)
    assert [g.random() for run in streams(sequence, 2) for g in run] == first
    assert [g.random() for run in streams(3, 2) for g in run] == first
    child = SeedSequence(3).spawn(2)[1]
    assert as_seed_sequence(child).generate_state(2).tolist() == child.generate_state(2).tolist()


def test_a_generator_passes_through_and_advances():
    generator = default_rng(0)
    assert as_generator(generator) is generator
    one, two = as_seed_sequence(generator), as_seed_sequence(generator)
    assert one.entropy != two.entropy
    assert as_seed_sequence(default_rng(0)).entropy == one.entropy


def test_streams_do_not_depend_on_their_number():
    few, many = streams(7, 2), streams(7, 5)
    for run, again in zip(few, many, strict=False):
        for generator, same in zip(run, again, strict=True):
            assert generator.random() == same.random()
    numbers = [generator.random() for run in streams(7, 5, ("a", "b", "c")) for generator in run]
    assert len(set(numbers)) == 15
    assert streams(7, 0) == []


@pytest.mark.parametrize("rng", [None, -1, 1.5, True, np.True_, "7", np.random.PCG64(0)])
def test_what_cannot_be_repeated_is_refused(rng):
    for function in (as_seed_sequence, as_generator):
        with pytest.raises(ValueError, match="rng must be a non-negative int, a SeedSequence or a Generator, not"):
            function(rng)
