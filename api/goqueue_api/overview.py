"""The queues as they are now, for whoever asks: the API's route and the console command."""

import time
from collections.abc import Sequence
from typing import Any

from goqueue.access import Reach
from goqueue.errors import BrokerUnavailable
from goqueue.service import JobService, promptly
from goqueue.store import dispatch
from goqueue.store import queues as store
from goqueue_api.rates import Rate, Rates


async def overview(
    service: JobService, names: Sequence[str], rates: Rates, reach: Reach | None = None
) -> dict[str, Any]:
    """A `QueuesView` as a dictionary; only of what is within reach.

    Redis and the rates know no tenants. Where there are any, PostgreSQL counts what the caller may know of.
    """
    if reach is not None and reach.queues is not None:
        names = [name for name in names if name in reach.queues]
    if reach is not None and await _is_part(service, reach):
        return await _part(service, names, reach)
    async with service.database.connection() as connection:
        paused = await store.paused(connection)
        workers = await dispatch.workers(connection)
    waiting, degraded = await _waiting(service, names)
    in_flight = {name: sum(int(worker.stats.get(name, {}).get("busy", 0)) for worker in workers) for name in names}
    shown: list[dict[str, Any]] = []
    for name in names:
        depth, oldest = waiting.get(name, (0, None))
        rate = Rate() if degraded else rates.of(name)
        shown.append(
            {
                "name": name,
                "paused": name in paused,
                "depth": depth,
                "oldest_seconds": oldest,
                "in_flight": in_flight[name],
                "arrived_per_second": rate.arrived,
                "finished_per_second": rate.finished,
            }
        )
    return {"queues": shown, "degraded": degraded}


async def _is_part(service: JobService, reach: Reach) -> bool:
    """Whether there may be jobs in the queues that are not within reach."""
    if reach.tenant is not None or reach.types is not None:
        return True
    async with service.database.connection() as connection:
        return await store.tenants_exist(connection)


async def _part(service: JobService, names: Sequence[str], reach: Reach) -> dict[str, Any]:
    async with service.database.connection() as connection:
        paused = await store.paused(connection)
        counts = {count.queue: count for count in await store.open_counts_within(connection, reach)}
    shown = []
    for name in names:
        count = counts.get(name)
        shown.append(
            {
                "name": name,
                "paused": name in paused,
                "depth": count.ready if count else 0,
                "oldest_seconds": count.oldest_seconds if count else None,
                "in_flight": count.processing if count else 0,
                "arrived_per_second": None,
                "finished_per_second": None,
            }
        )
    return {"queues": shown, "degraded": False}


async def _waiting(service: JobService, names: Sequence[str]) -> tuple[dict[str, tuple[int, float | None]], bool]:
    """Depth and age of each queue: Redis' word, or PostgreSQL's where Redis is away (True)."""
    try:
        depths = await promptly(service.broker.depths(names))
    except BrokerUnavailable:
        async with service.database.connection() as connection:
            counts = await store.open_counts(connection)
        return {count.queue: (count.ready, count.oldest_seconds) for count in counts}, True
    now = time.time() * 1000
    return {
        name: (found.depth, max(0.0, round((now - found.head_ms) / 1000, 3)) if found.depth else None)
        for name, found in depths.items()
    }, False
