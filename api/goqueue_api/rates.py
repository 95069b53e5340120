"""How fast queues fill and empty, measured between two looks."""

import time
from dataclasses import dataclass
from typing import Final

from goqueue.store.dispatch import WorkerRow

INTERVAL: Final = 2.0
"""Least seconds between two looks; a rate over less is noise."""


@dataclass(frozen=True)
class Rate:
    """Jobs a second, None until there were two looks."""

    arrived: float | None = None
    finished: float | None = None


class Rates:
    """Turns counters that only grow (or start anew) into rates."""

    def __init__(self) -> None:
        self._at = 0.0
        self._arrived: dict[str, int] = {}
        self._finished: dict[tuple[int, str], int] = {}
        self._rates: dict[str, Rate] = {}

    def of(self, queue: str) -> Rate:
        """The rates of a queue as of the last look."""
        return self._rates.get(queue, Rate())

    def look(self, arrived: dict[str, int], workers: list[WorkerRow], now: float | None = None) -> None:
        """Take the counters; `now` in monotonic seconds."""
        now = time.monotonic() if now is None else now
        if now - self._at < INTERVAL:
            return
        finished = {
            (worker.id, queue): int(counts["finished"]) for worker in workers for queue, counts in worker.stats.items()
        }
        if self._at:
            seconds = now - self._at
            queues = {*arrived, *(queue for _, queue in finished)}
            self._rates = {queue: self._rate(queue, arrived, finished, seconds) for queue in queues}
        self._at, self._arrived, self._finished = now, arrived, finished

    def _rate(self, queue: str, arrived: dict[str, int], finished: dict[tuple[int, str], int], seconds: float) -> Rate:
        came = max(0, arrived.get(queue, 0) - self._arrived.get(queue, 0))
        # A worker that was not there before began at 0; one that left is not counted.
        went = sum(max(0, count - self._finished.get(key, 0)) for key, count in finished.items() if key[1] == queue)
        return Rate(round(came / seconds, 2), round(went / seconds, 2))
