"""Queues: how deep, how old, how fast; pause and resume."""

import time
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from goqueue.errors import BrokerUnavailable
from goqueue.service import promptly
from goqueue.store import dispatch, queues
from goqueue_api.bodies import json_response
from goqueue_api.context import Context, context, known_queue
from goqueue_api.errors import documented
from goqueue_api.rates import Rate
from goqueue_api.routing import Direct
from goqueue_api.views import QueuesView

router = APIRouter(tags=["queues"], route_class=Direct)


@router.get("/queues", response_model=QueuesView, responses=documented())
async def show(request: Request) -> Response:
    """Every queue as it is now."""
    parts = context(request)
    async with parts.service.database.connection() as connection:
        paused = await queues.paused(connection)
        workers = await dispatch.workers(connection)
    waiting, degraded = await _waiting(parts)
    in_flight = {
        name: sum(int(worker.stats.get(name, {}).get("busy", 0)) for worker in workers) for name in parts.queues
    }
    shown: list[dict[str, Any]] = []
    for name in parts.queues:
        depth, oldest = waiting.get(name, (0, None))
        rate = Rate() if degraded else parts.rates.of(name)
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
    return json_response({"queues": shown, "degraded": degraded})


async def _waiting(parts: Context) -> tuple[dict[str, tuple[int, float | None]], bool]:
    """Depth and age of each queue: Redis' word, or PostgreSQL's where Redis is away (True)."""
    try:
        depths = await promptly(parts.service.broker.depths(parts.queues))
    except BrokerUnavailable:
        async with parts.service.database.connection() as connection:
            counts = await queues.open_counts(connection)
        return {count.queue: (count.ready, count.oldest_seconds) for count in counts}, True
    now = time.time() * 1000
    return {
        name: (found.depth, max(0.0, round((now - found.head_ms) / 1000, 3)) if found.depth else None)
        for name, found in depths.items()
    }, False


@router.post("/queues/{name}/pause", status_code=204, responses=documented(400))
async def pause(request: Request, name: str) -> Response:
    """Let no worker fetch from the queue; running jobs go on, new ones are accepted."""
    parts = context(request)
    await parts.service.pause(known_queue(name, parts.queues))
    return Response(status_code=204)


@router.post("/queues/{name}/resume", status_code=204, responses=documented(400))
async def resume(request: Request, name: str) -> Response:
    """Let workers fetch from the queue again."""
    parts = context(request)
    await parts.service.resume(known_queue(name, parts.queues))
    return Response(status_code=204)
