"""What a process knows of ready sets, and which marks cover a job."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goqueue import window as module
from goqueue.job import MAX_PRIORITY, MIN_PRIORITY, ReadyJob, ready_priority, ready_score, ready_time_ms
from goqueue.window import LeftOut, Level, Mark, Window, marks_of

priorities = st.integers(MIN_PRIORITY, MAX_PRIORITY)
times = st.integers(0, 10**13 - 1)
jobs = st.builds(
    lambda id, queue, priority, at: ReadyJob(id, queue, ready_score(priority, at)),
    st.integers(1, 2**53),
    st.sampled_from(["default", "other"]),
    priorities,
    times,
)


class Clock:
    """A monotonic clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@given(priorities, times)
def test_priority_and_time_come_back_from_a_score(priority: int, at: int) -> None:
    score = ready_score(priority, at)
    assert (ready_priority(score), ready_time_ms(score)) == (priority, at)


@given(st.lists(jobs, min_size=1))
def test_marks_cover_every_job_and_begin_at_one(left_out: list[ReadyJob]) -> None:
    marks = marks_of(left_out)
    for level, mark in marks.items():
        mine = [job for job in left_out if (job.queue, ready_priority(job.score)) == level]
        assert mark == Mark(min(job.id for job in mine), min(ready_time_ms(job.score) for job in mine))
    assert {Level(job.queue, ready_priority(job.score)) for job in left_out} == set(marks)


def test_a_full_set_limits_what_comes_after_its_last_member_for_a_second(clock: Clock) -> None:
    window = Window(100)
    assert window.limit("default") is None
    window.saw("default", 99, (7.0, 3), 0)
    assert window.limit("default") is None
    window.saw("default", 100, (7.0, 3), 0)
    assert window.limit("default") == (7.0, 3)
    assert window.limit("other") is None
    clock.now += module.STALE_SECONDS + 0.01
    assert window.limit("default") is None


def test_what_is_beyond_the_window_keeps_new_jobs_out_until_the_set_has_almost_drained(clock: Clock) -> None:
    window = Window(100)
    window.saw("default", 5, (7.0, 3), 1000)
    assert window.limit("default") == (7.0, 3)
    window.saw("default", 4, (7.0, 3), 1000)
    assert window.limit("default") is None
    window.saw("default", 0, None, 1000)
    assert window.limit("default") is None


def test_a_set_is_looked_at_after_a_tenth_of_the_window_or_a_time(clock: Clock) -> None:
    window = Window(100)
    assert window.must_look("default", 1)
    window.saw("default", 10, (7.0, 3), 0)
    assert not window.must_look("default", 9)
    assert window.must_look("default", 1)
    for depth, patience in ((10, module.CALM_SECONDS), (50, module.LOOK_SECONDS)):
        window.saw("default", depth, (7.0, 3), 0)
        clock.now += patience - 0.01
        assert not window.must_look("default", 0)
        clock.now += 0.02
        assert window.must_look("default", 0)


def test_a_job_with_a_dispatch_time_is_found_by_it_and_any_other_by_its_id() -> None:
    left_out = LeftOut()
    left_out.add([ReadyJob(7, "default", ready_score(1, 5000), listed=True), ReadyJob(9, "default", ready_score(1, 9))])
    left_out.add([ReadyJob(3, "default", ready_score(1, 8000), listed=True)])
    level = Level("default", 1)
    assert left_out.marks == {level: Mark(9, 9)}
    assert left_out.listed == {level: (datetime.fromtimestamp(5, UTC), 0)}
    left_out.restore({level: Mark(2, 11)})
    assert left_out.marks == {level: Mark(2, 9)}
