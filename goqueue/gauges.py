"""How a process stands to its stores, looked at every second: its pool of connections, and whether Redis answers."""

import asyncio
import contextlib
import time
from typing import Final

from goqueue import metrics
from goqueue.broker import Broker
from goqueue.errors import BrokerUnavailable
from goqueue.service import promptly
from goqueue.store.connect import Database

INTERVAL: Final = 1.0
"""Seconds between two looks."""

SILENCE: Final = 5.0
"""Seconds without a command to Redis after which it is asked for a sign of life."""


async def watch_stores(database: Database, broker: Broker) -> None:
    """Look until cancelled."""
    while True:
        stats = database.stats()
        metrics.POOL_SIZE.set(stats.get("pool_size", 0))
        metrics.POOL_FREE.set(stats.get("pool_available", 0))
        metrics.POOL_LIMIT.set(stats.get("pool_max", 0))
        metrics.POOL_WAITING.set(stats.get("requests_waiting", 0))
        if time.monotonic() - broker.spoke_at > SILENCE:
            with contextlib.suppress(BrokerUnavailable):
                await promptly(broker.ping())
        metrics.REDIS_UP.set(broker.answered)
        await asyncio.sleep(INTERVAL)
