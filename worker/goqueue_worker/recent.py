"""The newest ends of attempts, kept for the case that a failover undoes them (`goqueue_worker.undone`). Pure."""

from collections import deque
from typing import Final

from goqueue.job import AttemptEnd

KEPT: Final = 20_000
"""Ends that are kept at most: those of one to two seconds where jobs are shortest, more than a standby lags behind."""

KEPT_RESULTS: Final = 8_000_000
"""Characters of results that are kept with them at most."""


class RecentEnds:
    """The newest ends, oldest first."""

    def __init__(self) -> None:
        self._ends: deque[AttemptEnd] = deque()
        self._results = 0

    def add(self, end: AttemptEnd) -> None:
        """Keep one; the oldest make room for it."""
        self._ends.append(end)
        if end.result is not None:
            self._results += len(end.result)
        while len(self._ends) > KEPT or self._results > KEPT_RESULTS:
            oldest = self._ends.popleft()
            if oldest.result is not None:
                self._results -= len(oldest.result)

    def all(self) -> dict[tuple[int, int], AttemptEnd]:
        """They, by job and lease."""
        return {(end.id, end.lease): end for end in self._ends}
