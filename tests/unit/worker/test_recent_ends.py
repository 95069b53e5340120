"""Which ends a worker keeps in case a failover undoes them."""

import pytest

from goqueue.job import AttemptEnd, Outcome
from goqueue_worker import recent
from goqueue_worker.recent import RecentEnds


def end(number: int, result: str | None = None) -> AttemptEnd:
    return AttemptEnd(number, 1, Outcome.COMPLETED, result)


def test_the_newest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "KEPT", 3)
    kept = RecentEnds()
    for number in range(5):
        kept.add([end(number)])
    assert list(kept.all()) == [(2, 1), (3, 1), (4, 1)]


def test_large_results_leave_room_for_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "KEPT_RESULTS", 10)
    kept = RecentEnds()
    for number in range(4):
        kept.add([end(number, "x" * 4)])
    kept.add([end(4)])
    assert list(kept.all()) == [(2, 1), (3, 1), (4, 1)]


def test_a_result_that_is_too_large_by_itself_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "KEPT_RESULTS", 10)
    kept = RecentEnds()
    kept.add([end(1, "x" * 11)])
    kept.add([end(2)])
    assert list(kept.all()) == [(2, 1)]
