"""How many jobs of one tenant may wait: so that none fills the queues for all others.

Nothing is counted for a single request. A tenant's waiting jobs are counted when it first sends some, and then every
`LOOK` seconds as long as it does; in between this process adds what it accepts. So a tenant can pass its quota by what
the *other* API processes accept for it within `LOOK` seconds and by requests that are under way while it is counted,
and is refused for at most `LOOK` seconds after jobs have left. Where counting takes long these times are longer, so
that each process keeps PostgreSQL busy with it for a twentieth of the time at most.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from goqueue import metrics
from goqueue.errors import StoreUnavailable
from goqueue.store import quota_counts
from goqueue.store.connect import Database
from goqueue_api.throttle import TooManyRequests

LOOK: Final = 2.0
"""Seconds between two counts, at least."""

SPARE: Final = 20.0
"""The time between two counts is at least so many times as long as the counts took."""


@dataclass(slots=True)
class _Standing:
    waiting: int
    asked: bool = True
    """Whether it sent jobs since the last count."""


class Quotas:
    """At most `most` waiting jobs of each tenant."""

    def __init__(self, database: Database, most: int) -> None:
        self._database = database
        self._most = most
        self._standings: dict[str | None, _Standing] = {}
        self._counting: dict[str | None, asyncio.Task[int]] = {}

    async def admit(self, tenant: str | None, jobs: int) -> None:
        """Take up room for so many jobs.

        Raises:
            TooManyRequests: there is not enough.
            StoreUnavailable: the tenant's jobs cannot be counted.
        """
        if not await self.has_room(tenant, jobs):
            raise self.refusal()

    def refusal(self) -> TooManyRequests:
        """The error for a request that is refused, which is counted."""
        metrics.HTTP_REFUSED.inc(1, "quota")
        return TooManyRequests("waiting_jobs", int(LOOK))

    async def has_room(self, tenant: str | None, jobs: int) -> bool:
        """Take up room for so many jobs, if there is enough.

        Raises:
            StoreUnavailable: the tenant's jobs cannot be counted.
        """
        standing = self._standings.get(tenant) or await self._first(tenant)
        standing.asked = True
        if standing.waiting + jobs > self._most:
            return False
        standing.waiting += jobs
        return True

    async def _first(self, tenant: str | None) -> _Standing:
        """Count a tenant's jobs that sends some after a silence; its requests of the moment share one count."""
        counting = self._counting.get(tenant)
        if counting is None:
            counting = self._counting[tenant] = asyncio.create_task(self._count(tenant), name="count of a tenant")
            counting.add_done_callback(lambda _: self._counting.pop(tenant))
        waiting = await asyncio.shield(counting)
        return self._standings.setdefault(tenant, _Standing(waiting))

    async def watch(self) -> None:
        """Count anew every few seconds, until cancelled."""
        spent = 0.0
        while True:
            await asyncio.sleep(max(LOOK, SPARE * spent))
            began = time.monotonic()
            for tenant, standing in list(self._standings.items()):
                if not standing.asked:
                    del self._standings[tenant]
                    continue
                standing.asked = False
                before = standing.waiting
                try:
                    counted = await self._count(tenant)
                except StoreUnavailable:
                    standing.asked = True  # the last count stands
                else:
                    standing.waiting += counted - before  # what was accepted meanwhile is not in the count
            spent = time.monotonic() - began

    async def _count(self, tenant: str | None) -> int:
        async with self._database.connection() as connection:
            return await quota_counts.waiting_of(connection, tenant, self._most + 1)
