"""What a handler may log and report: as much as is asked for, and never without bound."""

from collections.abc import Iterator

import pytest

from goqueue.job import ClaimedJob
from goqueue_worker import reports as module
from goqueue_worker.attempt import RunningAttempt
from goqueue_worker.reports import Reports


def attempts(reports: Reports) -> Iterator[RunningAttempt]:
    number = 0
    while True:
        number += 1
        yield RunningAttempt(ClaimedJob(number, 7, 1, "default", "log", "{}", 5, None, 0.0, None), 60.0, reports)


def end(reports: Reports, attempt: RunningAttempt) -> str:
    """The last line that stays of an attempt."""
    if attempt.logged is not None:
        reports.end_log(attempt.logged, attempt.job)
    _, lines = reports.take()
    return lines[-1].message if lines else ""


def test_an_attempt_keeps_its_first_lines_and_says_last_how_many_were_dropped() -> None:
    reports = Reports(attempt_lines=3)
    one, other = (attempt for attempt, _ in zip(attempts(reports), range(2), strict=False))
    for number in range(5):
        one.log(f"line {number}")
    other.log("of another job")
    assert [line.message for line in reports.logs] == ["line 0", "line 1", "line 2", "of another job"]
    assert end(reports, other) == "of another job"
    assert end(reports, one) == "2 log lines dropped"


def test_an_attempt_that_stays_within_the_limits_gets_no_line_of_its_own() -> None:
    reports = Reports(attempt_lines=3)
    attempt = next(attempts(reports))
    for number in range(3):
        attempt.log(f"line {number}")
    assert end(reports, attempt) == "line 2"


def test_the_bytes_of_an_attempt_are_bounded_as_utf_8() -> None:
    reports = Reports(attempt_bytes=10)
    attempt = next(attempts(reports))
    attempt.log("€€€")  # nine
    attempt.log("€")
    attempt.log("x")  # it would fit: but what follows a gap would look as if it followed the line before
    assert [line.message for line in reports.logs] == ["€€€"]
    assert end(reports, attempt) == "2 log lines dropped"


def test_what_waits_to_be_written_is_bounded_over_all_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUFFER_LINES", 4)
    reports = Reports()
    one, other = (attempt for attempt, _ in zip(attempts(reports), range(2), strict=False))
    for _ in range(3):
        one.log("x")
        other.log("x")
    assert len(reports.logs) == 4
    reports.take()
    other.log("after a flush there is room again")
    assert [line.message for line in reports.logs] == ["after a flush there is room again"]
    assert end(reports, one) == "1 log line dropped"


def test_the_bytes_that_wait_to_be_written_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUFFER_BYTES", 10)
    reports = Reports()
    attempt = next(attempts(reports))
    for _ in range(4):
        attempt.log("12345")
    assert len(reports.logs) == 2
    reports.take()
    attempt.log("12345")
    assert len(reports.logs) == 1


def test_of_progress_only_the_last_of_each_job_waits() -> None:
    reports = Reports()
    attempt = next(attempts(reports))
    for number in range(1_000):
        attempt.progress(number / 1_000)
    assert reports.take()[0] == [(attempt.job_id, attempt.job.lease, 0.999)]


def test_lines_that_are_dropped_cost_no_memory() -> None:
    reports = Reports(attempt_lines=1)
    attempt = next(attempts(reports))
    for _ in range(100_000):
        attempt.log("x")
    assert len(reports.logs) == 1
