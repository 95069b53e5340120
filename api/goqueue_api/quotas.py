"""How many jobs of one tenant may wait: so that none fills the queues for all others.

Nothing is counted for a single request. A tenant's waiting jobs are counted when it first sends some, and then every
`LOOK` seconds as long as it does; in between this process adds what it accepts. So a tenant can pass its quota by what
the *other* API processes accept for it within `LOOK` seconds and by requests that are under way while it is counted,
and is refused for at most `LOOK` seconds after jobs have left.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from goqueue import metrics
from goqueue.errors import StoreUnavailable
from goqueue.store import queues
from goqueue.store.connect import Database
from goqueue_api.throttle import TooManyRequests

LOOK: Final = 2.0
"""Seconds between two counts."""


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
        standing = self._standings.get(tenant)
        if standing is None:
            waiting = await self._count(tenant)
            standing = self._standings.setdefault(tenant, _Standing(waiting))
        standing.asked = True
        if standing.waiting + jobs > self._most:
            return False
        standing.waiting += jobs
        return True

    async def watch(self) -> None:
        """Count anew every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(LOOK)
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

    async def _count(self, tenant: str | None) -> int:
        async with self._database.connection() as connection:
            return await queues.waiting_of(connection, tenant, self._most + 1)
