from hypothesis import given
from hypothesis import strategies as st

from theoryrl.theory.search import LARGEST, first_true


@given(st.integers(1, 50), st.integers(1, 10**6))
def test_the_first_number_that_is_enough(start, threshold):
    asked = []

    def enough(n):
        asked.append(n)
        return n >= threshold

    assert first_true(enough, start) == max(start, threshold)
    assert len(asked) <= 2 * threshold.bit_length() + 3
    assert min(asked) >= start


def test_what_never_is_enough_has_no_first():
    assert first_true(lambda n: False) is None
    assert first_true(lambda n: n > 10, 1, largest=10) is None
    assert first_true(lambda n: n == LARGEST) == LARGEST


def test_where_it_comes_and_goes_the_number_found_is_enough_and_the_one_before_is_not():
    found = first_true(lambda n: n in (5, 6, 16) or n > 40)
    assert found in (5, 16, 41)
