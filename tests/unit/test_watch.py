"""Who is dead: the rescuer's watch over the workers' beats."""

from hypothesis import given
from hypothesis import strategies as st

from goqueue_scheduler.watch import Watch

LEASE = 15.0


def test_a_worker_that_beats_is_never_dead() -> None:
    watch = Watch(LEASE)
    assert not any(watch.look({1: second // 3}, float(second)) for second in range(200))


def test_a_silent_worker_is_dead_after_one_lease_and_not_before() -> None:
    watch = Watch(LEASE)
    died = next(second for second in range(100) if watch.look({1: 7}, float(second)))
    assert died == LEASE


def test_time_in_which_nobody_could_be_seen_kills_nobody() -> None:
    watch = Watch(LEASE)
    watch.look({1: 7, 2: 9}, 0.0)
    assert watch.look({1: 7, 2: 9}, 1000.0) == set()


def test_an_outage_only_postpones_the_death_of_a_silent_worker() -> None:
    watch = Watch(LEASE)
    for second in range(10):
        watch.look({1: 7}, float(second))
    assert watch.look({1: 7}, 100.0) == set()
    died = next(second for second in range(100, 200) if watch.look({1: 7}, float(second)))
    assert died <= 100 + LEASE


def test_a_worker_that_left_is_forgotten() -> None:
    watch = Watch(LEASE)
    watch.look({1: 7}, 0.0)
    watch.look({}, 1.0)
    assert watch.look({1: 7}, 2.0) == set()


@given(st.lists(st.tuples(st.floats(0.05, 4.9), st.booleans()), min_size=1, max_size=100))
def test_nobody_dies_without_a_whole_lease_of_silence(steps: list[tuple[float, bool]]) -> None:
    watch, now, beat, silent_since = Watch(LEASE), 0.0, 0, 0.0
    watch.look({1: beat}, now)
    for seconds, beats in steps:
        now += seconds
        if beats:
            beat, silent_since = beat + 1, now
        if watch.look({1: beat}, now):
            assert now - silent_since >= LEASE
            return
