"""Whether a worker still hears Redis."""

import asyncio
import time
from typing import Final

from goqueue.broker import Broker
from goqueue.broker.connect import BLOCK_SECONDS
from goqueue.errors import BrokerUnavailable

DEAF_AFTER: Final = 20.0
"""Seconds without a fetch that came back after which the worker asks whether it is deaf."""


class Hearing:
    """A worker is deaf where fetches do not come back although Redis answers others: only a restart helps."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.fetched_at = time.monotonic()
        """When a fetch last came back, or none was to be made (`time.monotonic()`)."""
        self.deaf = False

    def heard(self) -> None:
        """A fetch came back, or there was no room for one."""
        self.fetched_at = time.monotonic()

    async def watch(self) -> None:
        """Ask Redis for a sign of life where fetches stay away."""
        while True:
            await asyncio.sleep(DEAF_AFTER / 4)
            if time.monotonic() - self.fetched_at < DEAF_AFTER:
                self.deaf = False
                continue
            try:
                async with asyncio.timeout(5 * BLOCK_SECONDS):
                    await self._broker.ping()
                self.deaf = True
            except (BrokerUnavailable, TimeoutError):
                self.deaf = False  # nobody hears Redis; a restart would change nothing
