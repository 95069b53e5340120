"""The newest written ends, kept for the case that a failover undoes them (`goqueue_worker.undone`). Pure."""

from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from goqueue.job import AttemptEnd, Outcome

KEPT: Final = 20_000
"""Ends that are kept at most: those of one to two seconds where jobs are shortest, more than a standby lags behind."""

KEPT_RESULTS: Final = 8_000_000
"""Characters of results that are kept with them at most."""


@dataclass(slots=True)
class _Batch:
    """Ends that were written together. Of a completion that says nothing else only job and lease are kept: 20,000
    objects that live on would cost a worker of short jobs a tenth of its rate."""

    ids: "array[int]"
    leases: "array[int]"
    others: list[AttemptEnd]
    results: int

    @property
    def count(self) -> int:
        return len(self.ids) + len(self.others)


class RecentEnds:
    """The newest ends, oldest first."""

    def __init__(self) -> None:
        self._batches: deque[_Batch] = deque()
        self._count = 0
        self._results = 0

    def add(self, ends: Sequence[AttemptEnd]) -> None:
        """Keep ends that were written together; the oldest batches make room for them."""
        others = [end for end in ends if end.outcome is not Outcome.COMPLETED or end.result is not None or end.progress]
        plain = ends
        if others:
            plain = [
                end for end in ends if end.outcome is Outcome.COMPLETED and end.result is None and not end.progress
            ]
        batch = _Batch(
            array("q", [end.id for end in plain]),
            array("q", [end.lease for end in plain]),
            others,
            sum(len(end.result) for end in others if end.result is not None),
        )
        self._batches.append(batch)
        self._count += batch.count
        self._results += batch.results
        while self._batches and (self._count > KEPT or self._results > KEPT_RESULTS):
            oldest = self._batches.popleft()
            self._count -= oldest.count
            self._results -= oldest.results

    def all(self) -> dict[tuple[int, int], AttemptEnd]:
        """They, by job and lease."""
        found: dict[tuple[int, int], AttemptEnd] = {}
        for batch in self._batches:
            for key in zip(batch.ids, batch.leases, strict=True):
                found[key] = AttemptEnd(*key, Outcome.COMPLETED)
            found.update({(end.id, end.lease): end for end in batch.others})
        return found
