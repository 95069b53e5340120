"""The score that orders a ready set."""

from hypothesis import given
from hypothesis import strategies as st

from goqueue.job import MAX_PRIORITY, MIN_PRIORITY, ready_score, ready_time_ms

priorities = st.integers(MIN_PRIORITY, MAX_PRIORITY)
times = st.integers(0, 10**13 - 1)


@given(priorities, priorities, times, times)
def test_a_higher_priority_is_fetched_first_whatever_the_times(one: int, other: int, now: int, then: int) -> None:
    if one > other:
        assert ready_score(one, now) < ready_score(other, then)


@given(priorities, times, times)
def test_equal_priorities_are_fetched_by_time(priority: int, one: int, other: int) -> None:
    assert (ready_score(priority, one) < ready_score(priority, other)) == (one < other)


@given(priorities, times)
def test_a_score_gives_its_time_back_exactly(priority: int, at: int) -> None:
    assert ready_time_ms(ready_score(priority, at)) == at
