"""The queues as they are now, with their rates: for the API's route and the console command."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from goqueue import overview as engine
from goqueue.access import Reach
from goqueue.service import JobService
from goqueue_api.rates import Rate, Rates


async def overview(
    service: JobService, known: Iterable[str], rates: Rates, reach: Reach | None = None
) -> dict[str, Any]:
    """A `QueuesView` as a dictionary; only of what is within reach. Rates know no tenants."""
    found = await engine.overview(service, known, reach)
    shown: list[dict[str, Any]] = []
    for queue in found.queues:
        rate = Rate() if found.degraded or found.part else rates.of(queue.name)
        shown.append(
            {
                **dataclasses.asdict(queue),
                "arrived_per_second": rate.arrived,
                "finished_per_second": rate.finished,
            }
        )
    return {"queues": shown, "degraded": found.degraded}
