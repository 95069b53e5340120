"""How pools of one queue share it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goqueue_operator.shares import Member, Share, shares

members = st.lists(
    st.builds(Member, st.integers(0, 100), st.integers(0, 100), st.integers(0, 1000), st.integers(0, 500)),
    min_size=1,
    max_size=6,
)


@given(st.integers(0, 100_000), members)
def test_together_the_pools_take_all_that_waits_and_all_that_arrives(waiting: int, pools: list[Member]) -> None:
    parts = shares(waiting, pools)
    assert sum(part.waiting for part in parts) == waiting
    assert all(part.waiting >= 0 for part in parts)
    assert sum(part.arrivals for part in parts) == pytest.approx(1.0)


def test_a_pool_alone_takes_the_whole() -> None:
    assert shares(100, [Member(0, 0, 0, 0)]) == [Share(100, 1.0)]


def test_two_pools_that_sleep_share_what_waits() -> None:
    assert [part.waiting for part in shares(100, [Member(0, 0, 200, 0), Member(0, 0, 200, 0)])] == [50, 50]
    assert [part.waiting for part in shares(100, [Member(0, 0, 300, 0), Member(0, 0, 100, 0)])] == [75, 25]


def test_one_job_wakes_one_pool() -> None:
    assert sorted(part.waiting for part in shares(1, [Member(0, 0, 50, 0), Member(0, 0, 50, 0)])) == [0, 1]


def test_free_slots_take_jobs_before_new_pods_do() -> None:
    parts = shares(30, [Member(20, 0, 100, 50), Member(0, 0, 500, 0)])
    assert [part.waiting for part in parts] == [22, 8]
    assert [part.arrivals for part in parts] == [1.0, 0.0]


def test_pods_under_way_take_jobs_before_new_ones_are_ordered() -> None:
    assert [part.waiting for part in shares(40, [Member(0, 50, 0, 50), Member(0, 0, 500, 0)])] == [40, 0]


def test_a_pool_that_is_as_large_as_it_may_be_leaves_the_rest_to_the_other() -> None:
    assert [part.waiting for part in shares(100, [Member(0, 0, 0, 50), Member(0, 0, 500, 0)])] == [0, 100]
