"""The queues as they are now, for whoever asks: the API, the console, the client."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from goqueue.access import Reach
from goqueue.errors import BrokerUnavailable
from goqueue.service import JobService, promptly
from goqueue.store import dispatch, queues


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue: `depth` jobs wait and could run, the longest-waiting one for `oldest_seconds`; `in_flight` run.

    `workers` registered workers fetch from it, those that drain not counted. 0: its jobs wait until one comes.
    """

    name: str
    paused: bool
    depth: int
    oldest_seconds: float | None
    in_flight: int
    workers: int


@dataclass(frozen=True, slots=True)
class Overview:
    """All queues. `degraded`: Redis is unavailable, the depths are PostgreSQL's count. `part`: only of some jobs."""

    queues: list[QueueState]
    degraded: bool = False
    part: bool = False


async def overview(service: JobService, known: Iterable[str], reach: Reach | None = None) -> Overview:
    """The known queues, then others that have open jobs or are paused: a process that has not loaded all job types
    does not know all queues. Only of what is within reach.

    Redis knows no tenants. Where there are any, PostgreSQL counts what the caller may know of.
    """
    names = [name for name in known if reach is None or reach.queues is None or name in reach.queues]
    if reach is not None and await _is_part(service, reach):
        return await _part(service, names, reach)
    names += sorted(
        name for name in await seen(service, names) if reach is None or reach.queues is None or name in reach.queues
    )
    async with service.database.connection() as connection:
        paused = await queues.paused(connection)
        workers = await dispatch.workers(connection)
    waiting, degraded = await _waiting(service, names)
    shown = []
    for name in names:
        depth, oldest = waiting.get(name, (0, None))
        in_flight = sum(int(worker.stats.get(name, {}).get("busy", 0)) for worker in workers)
        shown.append(QueueState(name, name in paused, depth, oldest, in_flight, _serving(workers, name)))
    return Overview(shown, degraded)


async def seen(service: JobService, known: Sequence[str] = ()) -> list[str]:
    """Queues beside the known ones that have open jobs or are paused."""
    async with service.database.connection() as connection:
        return await queues.in_use(connection, known)


async def _is_part(service: JobService, reach: Reach) -> bool:
    """Whether there may be jobs in the queues that are not within reach."""
    if reach.tenant is not None or reach.types is not None:
        return True
    async with service.database.connection() as connection:
        return await queues.tenants_exist(connection)


async def _part(service: JobService, names: Sequence[str], reach: Reach) -> Overview:
    async with service.database.connection() as connection:
        paused = await queues.paused(connection)
        workers = await dispatch.workers(connection)
        counts = {count.queue: count for count in await queues.open_counts_within(connection, reach)}
    shown = []
    for name in (*names, *sorted(counts.keys() - set(names))):
        count = counts.get(name)
        depth, oldest, running = (count.ready, count.oldest_seconds, count.processing) if count else (0, None, 0)
        shown.append(QueueState(name, name in paused, depth, oldest, running, _serving(workers, name)))
    return Overview(shown, part=True)


def _serving(workers: Iterable[dispatch.WorkerRow], queue: str) -> int:
    """How many of these workers fetch from the queue."""
    return sum(queue in worker.queues for worker in workers if not worker.draining)


async def _waiting(service: JobService, names: Sequence[str]) -> tuple[dict[str, tuple[int, float | None]], bool]:
    """Depth and age of each queue: Redis' word, or PostgreSQL's where Redis is unavailable (True)."""
    try:
        depths = await promptly(service.broker.depths(names))
    except BrokerUnavailable:
        async with service.database.connection() as connection:
            counts = await queues.open_counts(connection)
        return {count.queue: (count.ready, count.oldest_seconds) for count in counts}, True
    now = time.time() * 1000
    return {
        name: (found.depth, max(0.0, round((now - found.oldest_ms) / 1000, 3)) if found.depth else None)
        for name, found in depths.items()
    }, False
