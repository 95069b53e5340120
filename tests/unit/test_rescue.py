"""When jobs of a dead worker come back: never all at once, and later the more workers died."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from goqueue.rescue import SPREAD, Orphan, delay, delays


def test_the_only_job_of_a_worker_comes_back_at_once() -> None:
    assert delays([Orphan(1, 7, 0)], Counter()) == {1: 0.0}


def test_many_jobs_of_one_worker_come_back_spread_over_a_second() -> None:
    found = delays([Orphan(id, 7, 0) for id in range(100)], Counter())
    assert len(set(found.values())) == 100
    assert 0 <= min(found.values()) < max(found.values()) <= SPREAD


def test_one_found_after_others_of_its_worker_is_not_taken_for_the_only_one() -> None:
    held: Counter[int] = Counter()
    delays([Orphan(1, 7, 0)], held)
    assert delays([Orphan(2, 7, 0)], held)[2] > 0


@given(st.integers(2, 30), st.floats(0, 0.99), st.booleans())
def test_later_deaths_wait_longer_and_for_five_minutes_at_most(deaths: int, chance: float, alone: bool) -> None:
    assert 1.0 <= delay(deaths, alone=alone, chance=chance) <= 300.0
    assert delay(deaths, alone=alone, chance=chance) <= delay(deaths + 1, alone=alone, chance=chance)
