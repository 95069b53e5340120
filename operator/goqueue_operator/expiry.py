"""Deleting GoQueueJobs that ended: after their time to live, and the oldest ones beyond a limit."""

import asyncio
import heapq
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from goqueue.orders import EARLIEST
from goqueue_operator import history
from goqueue_operator.conditions import moment
from goqueue_operator.entries import Entries, Entry
from goqueue_operator.kube import JOBS, Kube, KubeError, KubeUnavailable

REFUSED_AGAIN: Final = 30.0
"""Seconds until a deletion that Kubernetes refused is tried again: rights and policies change."""

SLACK: Final = 500
"""Planned deletions of resources that are gone, which are kept before they are dropped."""

log = structlog.get_logger(__name__)


class Expiry:
    """Deletes resources of ended jobs. `ttl_seconds`: for those that say nothing themselves, None: never;
    `ended_limit`: most ended ones kept, 0: any number."""

    def __init__(self, kube: Kube, entries: Entries, ttl_seconds: float | None, ended_limit: int) -> None:
        self._kube = kube
        self._entries = entries
        self._ttl_seconds, self._ended_limit = ttl_seconds, ended_limit
        self._ending: list[tuple[datetime, str]] = []
        self._surplus: set[str] = set()
        """Uids of ended resources beyond the limit."""
        self.wake = asyncio.Event()

    def _due(self, entry: Entry) -> datetime | None:
        """When the resource of an ended job is to be deleted; None: never."""
        ttl = entry.ttl if entry.ttl is not None or entry.declared else self._ttl_seconds
        if ttl is None:
            return None
        return (moment(entry.status.get("finishedAt")) or entry.created) + timedelta(seconds=ttl)

    def plan(self, entry: Entry) -> None:
        """Delete the resource of an ended job when its time is over."""
        if (due := self._due(entry)) is not None:
            heapq.heappush(self._ending, (due, entry.uid))
            self.wake.set()

    def trim(self) -> None:
        """Let go of the oldest ended resources beyond the limit, and of deletions whose resource is gone."""
        if len(self._ending) > 2 * self._entries.ended + SLACK:
            dues = ((self._due(entry), entry.uid) for entry in self._entries if entry.final)
            self._ending = [(due, uid) for due, uid in dues if due is not None]
            heapq.heapify(self._ending)
        if not self._ended_limit or self._entries.ended <= self._ended_limit:
            return
        ended = [entry for entry in self._entries if entry.final]
        spare = [entry for entry in ended if not entry.declared]
        limit = max(0, self._ended_limit - (len(ended) - len(spare)))
        known = ((entry.namespace, entry.status.get("finishedAt") or "", entry.uid) for entry in spare)
        self._surplus = set(history.surplus(known, limit))
        log.info(
            "ended GoQueueJobs beyond the limit are deleted", resources=len(self._surplus), limit=self._ended_limit
        )
        for uid in self._surplus:
            heapq.heappush(self._ending, (EARLIEST, uid))
        self.wake.set()

    def _is_due(self, entry: Entry, planned: datetime) -> bool:
        """Whether a planned deletion still holds: with another TTL it is in the heap once more."""
        due = self._due(entry)
        return due is not None and due <= planned

    async def expire(self) -> float | None:
        """Delete what is due; seconds until the next one is, None where none is planned."""
        while self._ending:
            due, uid = self._ending[0]
            if (wait := (due - datetime.now(UTC)).total_seconds()) > 0:
                return min(wait, 3600.0)
            heapq.heappop(self._ending)
            entry = self._entries.get(uid)
            if entry is None or not entry.final or not (uid in self._surplus or self._is_due(entry, due)):
                continue
            try:
                await self._kube.delete(JOBS, entry.namespace, entry.name, uid)
            except KubeError as error:  # a policy, say: that of one resource is not the others' business
                log.error("deletion refused", name=entry.name, namespace=entry.namespace, error=str(error))
                heapq.heappush(self._ending, (datetime.now(UTC) + timedelta(seconds=REFUSED_AGAIN), uid))
            except KubeUnavailable:
                heapq.heappush(self._ending, (due, uid))
                raise
        return None
