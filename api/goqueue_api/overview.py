"""The queues as they are now, for whoever asks: the API's route and the console command."""

import time
from collections.abc import Sequence
from typing import Any

from goqueue.errors import BrokerUnavailable
from goqueue.service import JobService, promptly
from goqueue.store import dispatch
from goqueue.store import queues as store
from goqueue_api.rates import Rate, Rates


async def overview(service: JobService, names: Sequence[str], rates: Rates) -> dict[str, Any]:
    """A `QueuesView` as a dictionary."""
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
