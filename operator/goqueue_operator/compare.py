"""Resources against rows: at the start, when the watch begins anew and every minute. What nobody saw is put right.

    at the start                 all resources are read, page by page, for the watch shows only what happens later
    a row without a resource     the resource was deleted while nobody watched: the job is cancelled
    a resource we do not know    the watch missed it: it is taken up (and the watch does not count as fresh)
    another generation           the watch missed a change: the resource is read again
    a resource that is gone      the watch missed its end: it is forgotten
    an ended resource, other row the job was retried by hand: it is followed again
    a followed row that is gone  accepted anew, where it cannot have ended
    an open row with an old key  it gets the key of this installation

Rows are read before resources are listed. A row is made after its resource, so one whose resource is not in the list
has lost it; the other order would cancel what has just been made.
"""

import asyncio
import contextlib
import heapq
import time
from collections.abc import Container, Iterable
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from goqueue import metrics
from goqueue.errors import StoreContended, StoreRefused, StoreUnavailable
from goqueue.store.connect import Database
from goqueue.tasks import wait_at_most
from goqueue_operator import rows
from goqueue_operator.claims import Claims
from goqueue_operator.conditions import timestamp
from goqueue_operator.entries import Entry
from goqueue_operator.jobs import Jobs
from goqueue_operator.kube import JOBS, Kube, KubeError, KubeUnavailable
from goqueue_operator.rows import Owner, Relation

LATE: Final = 30.0
"""Seconds after which the watch should have shown a new resource."""

Missed = tuple[str, str, str, datetime]
"""Namespace, name, uid and creation of a resource to read."""

NEWEST: Final = 100
"""Resources that a new leader reads before all others."""

log = structlog.get_logger(__name__)


def _found(metadata: dict[str, Any]) -> Missed:
    made = datetime.fromisoformat(metadata["creationTimestamp"])
    return metadata["namespace"], metadata["name"], metadata["uid"], made


def _made(missed: Missed) -> datetime:
    return missed[3]


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
        self._heard = claims.gate(JOBS, jobs.on_event)
        self.deaf_since: float | None = None
        """Since when the watch has not shown what it should have (`time.monotonic()`)."""
        self._relisted = asyncio.Event()
        self._refusal_shown = False
        self._all_read = False
        """Whether all resources were read since the lead began."""
        self.orphans = 0
        """Jobs that were cancelled because their resource was gone."""
        self.finished = 0
        """Comparisons that came to their end."""

    def relist(self) -> None:
        """The watch begins anew: it shows nothing of what happened before."""
        self._relisted.set()

    async def run(self) -> None:
        """Compare until cancelled; the first time as soon as the watch has begun."""
        while True:
            await wait_at_most(self._relisted, self._seconds)
            try:
                began = time.monotonic()
                await self.compare()
                self.finished += 1
                metrics.OPERATOR_SECONDS.observe(time.monotonic() - began, "compare")
            except (StoreUnavailable, KubeUnavailable, KubeError) as error:
                log.warning("not compared", error=str(error))
                await asyncio.sleep(min(self._seconds, 5.0))
                self._relisted.set()

    async def compare(self) -> None:
        """One comparison."""
        anew = self._relisted.is_set()
        self._relisted.clear()
        if self._namespace is not None and not await self._claims.settle([self._namespace]):
            await self._show_refused(self._namespace)
            return
        known = {entry.uid for entry in self._jobs.entries}
        async with self._database.connection() as connection:
            open_rows = await rows.open_ours(connection)
        if not self._all_read:  # at the same time, where the resources would ask for one after the other
            owners = [owner for _, key in open_rows if (owner := rows.parse_key(key)) and self._may_cancel(owner)]
            await self._claims.settle(owner.namespace for owner in owners)
        self._jobs.deleted = set()
        try:
            listed, missed = await (self._list(anew) if self._all_read else self._read_all())
            await self._cancel_orphans(open_rows, listed)
            await self._adopt(open_rows, listed)
            await self._reopen()
            for uid in known - listed:
                self._jobs.gone(uid)
            await self._take_up(missed, anew)
        finally:
            self._jobs.deleted = None
        self._all_read = True
        await self._find_lost()
        self._jobs.trim()

    async def _show_refused(self, namespace: str) -> None:
        """Have it said beside one job that the namespace is left alone; the watch shows changes only."""
        if self._refusal_shown or not self._claims.refuses(namespace):
            return
        async for item in self._kube.each(JOBS, namespace, metadata_only=True):
            if self._claims.refuses(namespace):  # a handler would get it without its spec
                self._heard("ADDED", item)
            break
        self._refusal_shown = True

    async def _read_all(self) -> tuple[set[str], list[Missed]]:
        """Take up all resources; their uids. The newest ones come first: they may be waiting for their row."""
        await self._take_up(await self._newest(), True)
        listed = set()
        async for item in self._kube.each(JOBS, self._namespace):
            metadata = item["metadata"]
            if metadata.get("deletionTimestamp"):  # a finalizer of others may hold it for long
                continue
            listed.add(metadata["uid"])
            await self._claims.settle([metadata["namespace"]])
            self._hand_on(item)
        return listed, []

    async def _newest(self) -> list[Missed]:
        """The resources that were made last, found by metadata alone: a list is in the order of names."""
        newest: list[Missed] = []
        async for item in self._kube.each(JOBS, self._namespace, metadata_only=True):
            metadata = item["metadata"]
            if not metadata.get("deletionTimestamp") and await self._claims.settle([metadata["namespace"]]):
                newest.append(_found(metadata))
            if len(newest) >= 2 * NEWEST:
                newest = heapq.nlargest(NEWEST, newest, key=_made)
        return heapq.nlargest(NEWEST, newest, key=_made)

    async def _list(self, anew: bool) -> tuple[set[str], list[Missed]]:
        """The uids of all resources, and those of which the watch did not show the last change."""
        listed, missed = set(), []
        async for item in self._kube.each(JOBS, self._namespace, metadata_only=True):
            metadata = item["metadata"]
            if metadata.get("deletionTimestamp"):
                continue
            listed.add(metadata["uid"])
            if await self._claims.settle([metadata["namespace"]]) and self._missed(metadata, anew):
                missed.append(_found(metadata))
        return listed, missed

    def _missed(self, metadata: dict[str, Any], anew: bool) -> bool:
        entry = self._jobs.entries.get(metadata["uid"])
        if entry is None or entry.generation < metadata.get("generation", 1):
            return True
        # A final status that was overwritten while nobody watched.
        return anew and entry.final and entry.version != int(metadata["resourceVersion"])

    def _hand_on(self, resource: dict[str, Any]) -> None:
        """Give a resource to Jobs, unless it was deleted since it was read, or its namespace is not ours."""
        uid = resource["metadata"]["uid"]
        if self._jobs.deleted is None or uid not in self._jobs.deleted:
            self._heard("ADDED", resource)

    async def _cancel_orphans(self, open_rows: Iterable[tuple[int, str]], listed: Container[str]) -> None:
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

    async def _adopt(self, open_rows: Iterable[tuple[int, str]], listed: Container[str]) -> None:
        """Give the open rows of our resources that another installation made, or a version that wrote none, our key."""
        wishes = []
        for id, key in open_rows:
            owner = rows.parse_key(key)
            if owner is None or owner.uid not in listed or not self._claims.serves(owner.namespace):
                continue
            if owner.installation != self._installation:
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
                await self._reopen_one(entry)

    async def _reopen_one(self, entry: Entry) -> None:
        resource = await self._kube.find(JOBS, entry.namespace, entry.name)
        same = resource is not None and resource["metadata"]["uid"] == entry.uid
        if resource is not None and same and self._jobs.entries.get(entry.uid) is entry and entry.row_id is not None:
            self._jobs.reopen(entry, entry.row_id, resource.get("status") or {})

    async def _take_up(self, missed: list[Missed], anew: bool) -> None:
        """Read what the watch has not shown: some of it may be on its way, what is old is not."""
        now, late = datetime.now(UTC), 0
        for namespace, name, uid, made in missed:
            unknown = self._jobs.entries.get(uid) is None
            late += unknown and not anew and (now - made).total_seconds() > LATE
            with contextlib.suppress(KubeError):  # gone meanwhile
                self._hand_on(await self._kube.get(JOBS, namespace, name))
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
