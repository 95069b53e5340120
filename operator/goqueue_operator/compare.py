"""Resources against rows, once at the start and then every minute: what nobody saw happen is put right.

    a row without a resource     the resource was deleted while nobody watched: the job is cancelled
    a resource we do not know    the watch missed it: it is taken up (and the watch does not count as fresh)
    a resource that is gone      the watch missed its end: it is forgotten
    an ended resource, other row the job was retried by hand: it is followed again
    a followed row that is gone  accepted anew, where it cannot have ended
    an open row with an old key  it gets the key of this installation

Rows are read before resources are listed. A row is made after its resource, so one whose resource is not in the list
has lost it; the other order would cancel what has just been made.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from goqueue import metrics
from goqueue.errors import StoreContended, StoreRefused, StoreUnavailable
from goqueue.store.connect import Database
from goqueue_operator import rows
from goqueue_operator.claims import Claims
from goqueue_operator.conditions import timestamp
from goqueue_operator.jobs import Jobs
from goqueue_operator.kube import JOBS, Kube, KubeError, KubeUnavailable
from goqueue_operator.rows import Owner, Relation

LATE: Final = 30.0
"""Seconds after which the watch should have shown a new resource."""

log = structlog.get_logger(__name__)


class Comparison:
    """The periodic comparison. `namespace` None: of all namespaces; `seconds` between two of them."""

    def __init__(
        self,
        kube: Kube,
        database: Database,
        jobs: Jobs,
        namespace: str | None,
        seconds: float,
        installation: str,
        claims: Claims,
    ) -> None:
        self._kube = kube
        self._database = database
        self._jobs = jobs
        self._namespace = namespace
        self._seconds = seconds
        self._installation = installation
        self._claims = claims
        self.deaf_since: float | None = None
        """Since when the watch has not shown what it should have (`time.monotonic()`)."""
        self._listed_before = False
        self.orphans = 0
        """Jobs that were cancelled because their resource was gone."""
        self.finished = 0
        """Comparisons that came to their end."""

    async def run(self) -> None:
        """Compare until cancelled; the first time at once."""
        while True:
            try:
                began = time.monotonic()
                await self.compare()
                self.finished += 1
                metrics.OPERATOR_SECONDS.observe(time.monotonic() - began, "compare")
                seconds = self._seconds
            except (StoreUnavailable, KubeUnavailable, KubeError) as error:
                log.warning("not compared", error=str(error))
                seconds = min(self._seconds, 5.0)
            await asyncio.sleep(seconds)

    async def compare(self) -> None:
        """One comparison."""
        if self._namespace is not None and not await self._claims.settle([self._namespace]):
            return
        known = {entry.uid for entry in self._jobs.entries}
        async with self._database.connection() as connection:
            open_rows = await rows.open_ours(connection)
        listed = {
            item["metadata"]["uid"]: item["metadata"]
            async for item in self._kube.each(JOBS, self._namespace, metadata_only=True)
            if not item["metadata"].get("deletionTimestamp")  # a finalizer of others may hold it for long
        }
        served = await self._claims.settle({metadata["namespace"] for metadata in listed.values()})
        await self._cancel_orphans(open_rows, listed)
        listed = {uid: metadata for uid, metadata in listed.items() if metadata["namespace"] in served}
        await self._adopt(open_rows, listed)
        await self._reopen()
        for uid in known - listed.keys():
            self._jobs.gone(uid)
        if self._listed_before:  # at first the watch is still listing as well
            await self._take_up([metadata for uid, metadata in listed.items() if self._jobs.entries.get(uid) is None])
        self._listed_before = True
        await self._find_lost()

    async def _cancel_orphans(self, open_rows: Iterable[tuple[int, str]], listed: dict[str, Any]) -> None:
        orphans: dict[str, str] = {}
        for _, key in open_rows:
            owner = rows.parse_key(key)
            if owner is not None and owner.uid not in listed and self._may_cancel(owner):
                orphans[key] = owner.namespace
        if orphans:
            served = await self._claims.settle(orphans.values())
            orphans = {key: namespace for key, namespace in orphans.items() if namespace in served}
        if orphans:
            self.orphans += len(orphans)
            log.info("jobs without their resource are cancelled", jobs=len(orphans))
            self._jobs.cancel(orphans)

    def _may_cancel(self, owner: Owner) -> bool:
        """Whether the resources of that installation and namespace are ours alone to list: a database may be shared by
        operators of other clusters, whose resources nobody here can see."""
        if self._namespace not in (None, owner.namespace):
            return False
        return owner.installation == self._installation if owner.installation else self._namespace is not None

    async def _adopt(self, open_rows: Iterable[tuple[int, str]], listed: dict[str, Any]) -> None:
        """Give the open rows of our resources that another installation made, or a version that wrote none, our key."""
        wishes = []
        for id, key in open_rows:
            owner = rows.parse_key(key)
            if owner is not None and owner.uid in listed and owner.installation != self._installation:
                wishes.append((id, key, rows.key_of(owner.uid, owner.namespace, self._installation)))
        if wishes:
            log.info("jobs of another installation or an earlier version are adopted", jobs=len(wishes))
            with contextlib.suppress(StoreRefused, StoreContended):  # a key was taken meanwhile: next time
                async with self._database.connection() as connection:
                    await rows.adopt(connection, wishes)

    async def _reopen(self) -> None:
        """An ended job whose row says something else was retried by hand, and may have ended again."""
        ended = [entry for entry in self._jobs.entries if entry.final and entry.row_id is not None]
        async with self._database.connection() as connection:
            found = await rows.ends(connection, list({entry.row_id for entry in ended if entry.row_id is not None}))
        for entry in ended:
            end = found.get(entry.row_id or 0)
            if end is None or not entry.final or entry.relation_to(end.source_key, end.unique_key) is Relation.STRANGE:
                continue
            said = (entry.status.get("state"), entry.status.get("finishedAt"))
            if said != (end.status, timestamp(end.finished_at) if end.finished_at else None):
                self._jobs.reopen(entry)

    async def _take_up(self, unknown: list[dict[str, Any]]) -> None:
        """Resources that the watch has not shown: some may be on their way, old ones are not."""
        now, late = datetime.now(UTC), 0
        for metadata in unknown:
            late += (now - datetime.fromisoformat(metadata["creationTimestamp"])).total_seconds() > LATE
            with contextlib.suppress(KubeError):  # gone meanwhile
                found = await self._kube.get(JOBS, metadata["namespace"], metadata["name"])
                if self._jobs.entries.get(found["metadata"]["uid"]) is None:
                    self._jobs.on_event("ADDED", found)
        if late:
            log.warning("the watch did not show all resources", missed=late)
            self.deaf_since = self.deaf_since or time.monotonic()
        else:
            self.deaf_since = None

    async def _find_lost(self) -> None:
        ids = [id for id, _ in self._jobs.entries.followed()]
        async with self._database.connection() as connection:
            there = await rows.existing(connection, ids)
        await self._jobs.rows_gone(set(ids) - there)
