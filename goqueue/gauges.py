"""How a process stands to its stores, looked at every second: its pool of connections, and whether Redis answers."""

import asyncio
import math
import time
from typing import Final

from goqueue import metrics
from goqueue.broker import Broker
from goqueue.errors import BrokerUnavailable, ForeignBroker
from goqueue.service import PATIENCE
from goqueue.store.connect import Database

INTERVAL: Final = 1.0
"""Seconds between two looks."""

CHECK: Final = 5.0
"""Seconds between two questions to Redis: whether it answers, and whether it is still this installation's."""


async def watch_stores(database: Database, broker: Broker) -> None:
    """Look until cancelled.

    Raises:
        ForeignBroker: the ready queues belong to another installation; the process must end.
    """
    checked_at = -math.inf
    while True:
        stats = database.stats()
        metrics.POOL_SIZE.set(stats.get("pool_size", 0))
        metrics.POOL_FREE.set(stats.get("pool_available", 0))
        metrics.POOL_LIMIT.set(stats.get("pool_max", 0))
        metrics.POOL_WAITING.set(stats.get("requests_waiting", 0))
        if time.monotonic() - checked_at >= CHECK:
            checked_at = time.monotonic()
            await check_owner(broker)
        metrics.REDIS_UP.set(broker.answered)
        await asyncio.sleep(INTERVAL)


async def check_owner(broker: Broker) -> None:
    """Ask Redis whether it is there and this installation's; a Redis that is unavailable is the broker's to log.

    Raises:
        ForeignBroker: it is another's.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            await broker.check_owner()
    except TimeoutError:
        broker.silent(PATIENCE)
    except ForeignBroker:
        raise
    except BrokerUnavailable:
        pass
