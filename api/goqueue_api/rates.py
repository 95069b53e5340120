"""How fast queues fill and empty: counters that only grow (or start anew), looked at every few seconds."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from goqueue.errors import BrokerUnavailable, StoreUnavailable
from goqueue.service import JobService
from goqueue.store import dispatch
from goqueue.store.dispatch import WorkerRow

INTERVAL: Final = 5.0
"""Seconds between two looks. Workers write their counters every heartbeat, so a rate over less would be noise."""
LOOKS: Final = 4
"""Looks that are kept; a rate is the mean between the first and the last of them."""

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Rate:
    """Jobs a second, None until there were two looks."""

    arrived: float | None = None
    finished: float | None = None


@dataclass(frozen=True)
class _Look:
    at: float
    arrived: Counter[str]
    finished: Counter[str]


class Rates:
    """What was counted since the process began, and the rates of the last few looks."""

    def __init__(self) -> None:
        self._arrived: dict[str, int] | None = None
        self._finished: dict[tuple[int, str], int] = {}
        self._looks: deque[_Look] = deque(maxlen=LOOKS)

    def of(self, queue: str) -> Rate:
        """The rates of a queue as of the last look."""
        if len(self._looks) < 2:
            return Rate()
        first, last = self._looks[0], self._looks[-1]
        seconds = last.at - first.at
        return Rate(
            round((last.arrived[queue] - first.arrived[queue]) / seconds, 2),
            round((last.finished[queue] - first.finished[queue]) / seconds, 2),
        )

    def look(self, arrived: dict[str, int], workers: list[WorkerRow], now: float | None = None) -> None:
        """Take the counters; `now` in monotonic seconds."""
        finished = {
            (worker.id, queue): int(counts.get("finished", 0))
            for worker in workers
            for queue, counts in worker.stats.items()
        }
        came, went = Counter[str](), Counter[str]()
        if self._arrived is not None:
            came.update(_growth(self._arrived, arrived))
            for (_, queue), count in _growth(self._finished, finished).items():
                went[queue] += count
        if self._looks:
            came.update(self._looks[-1].arrived)
            went.update(self._looks[-1].finished)
        self._arrived, self._finished = arrived, finished
        self._looks.append(_Look(time.monotonic() if now is None else now, came, went))

    async def watch(self, service: JobService) -> None:
        """Look every few seconds, until cancelled; while a store is away there is nothing to see."""
        while True:
            try:
                arrived = await service.broker.arrived()
                async with service.database.connection() as connection:
                    workers = await dispatch.workers(connection)
                self.look(arrived, workers)
            except (BrokerUnavailable, StoreUnavailable):
                pass
            await asyncio.sleep(INTERVAL)


def _growth(before: Mapping[K, int], now: Mapping[K, int]) -> dict[K, int]:
    """How much each counter grew; one that is new, or lower than before, began at 0."""
    return {key: count - before.get(key, 0) if count >= before.get(key, 0) else count for key, count in now.items()}
