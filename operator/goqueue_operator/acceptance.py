"""Accepting GoQueueJobs: each becomes one row, under a key that names the resource."""

import asyncio
import json
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

import structlog

from goqueue import metrics, tracing
from goqueue.errors import InvalidInput, StoreUnavailable
from goqueue.job import Enqueued, Source
from goqueue.orders import accept
from goqueue.registry import Registry
from goqueue.service import JobService
from goqueue_operator import payloads, rows
from goqueue_operator.entries import Entries, Entry
from goqueue_operator.jobstatus import Refusal
from goqueue_operator.jobwrites import about
from goqueue_operator.kube import JOBS, UNREADABLE, Kube, KubeError
from goqueue_operator.namespaces import Namespaces
from goqueue_operator.refusals import FAILURES, refusal_of
from goqueue_operator.rows import Relation

TOGETHER: Final = 500
"""Resources that are accepted at the same time."""
TOGETHER_BYTES: Final = 4 * 2**20
"""Size of their specs at which no more are taken."""
UNKNOWN_SIZE: Final = 2**20
"""What a spec counts whose size is not known: nearly the most that etcd stores."""

log = structlog.get_logger(__name__)


class Acceptance:
    """Makes the rows of resources that have none.

    `refused` is told of each entry whose refusal changed, `accepted` after each batch; `cancel` takes the source keys
    of a job whose resource was deleted while its row was made.
    """

    def __init__(
        self,
        kube: Kube,
        service: JobService,
        registry: Registry,
        queues: Collection[str],
        namespaces: Namespaces,
        entries: Entries,
        *,
        refused: Callable[[Entry], None],
        accepted: Callable[[], None],
        cancel: Callable[[Iterable[str]], None],
    ) -> None:
        self._kube = kube
        self._service = service
        self._registry = registry
        self._queues = queues
        self._namespaces = namespaces
        self._entries = entries
        self._refused, self._accepted, self._cancel = refused, accepted, cancel
        self.waiting: set[str] = set()
        """Uids of the resources to accept."""
        self.wake = asyncio.Event()

    def soon(self, uid: str) -> None:
        """Accept a resource with the next batch."""
        self.waiting.add(uid)
        self.wake.set()

    async def accept_all(self) -> None:
        """Accept what waits."""
        while self.waiting:
            began = time.monotonic()
            entries = self._batch()
            done = await self._accept_some(entries)
            for entry, accepted in zip(entries, done, strict=True):
                if not accepted:
                    self._again(entry)
            self._accepted()
            metrics.OPERATOR_SECONDS.observe(time.monotonic() - began, "accept")

    async def _accept_some(self, entries: list[Entry]) -> list[bool]:
        """Make or find the rows of these; for each whether it is dealt with, False where it is worth another try."""
        try:
            made = await self._made_before(entries)
        except StoreUnavailable as error:
            for entry in entries:
                self._refuse(entry, Refusal("StoreUnavailable", f"{error.message}; it is tried again"))
            return [False] * len(entries)
        for entry in entries:
            if entry.uid in made and self._entries.get(entry.uid) is entry:
                self._entries.follow(entry, made[entry.uid])
        return await asyncio.gather(*(self._accept(entry) for entry in entries))

    async def _made_before(self, entries: list[Entry]) -> dict[str, int]:
        """Rows (uid → id) that a former leader made and could not note, also one of an earlier version, whose keys have
        neither installation nor scope."""
        sources = {key: entry.uid for entry in entries for key in entry.keys}
        unique = {entry.unique_key for entry in entries if entry.unique_key}
        if not sources:
            return {}
        async with self._service.database.connection() as connection:
            holders = await rows.holders(connection, sources, unique)
        own = {sources[source]: id for id, _, source in holders if source in sources}
        shared = {
            entry.uid: id
            for id, active, source in holders
            for entry in entries
            if active == entry.unique_key and active and entry.relation_to(source, active) is not Relation.STRANGE
        }
        return shared | own

    def _batch(self) -> list[Entry]:
        """The next resources to accept: no more of them, and of their specs, than may be in memory at once."""
        batch: list[Entry] = []
        size = 0
        while self.waiting and len(batch) < TOGETHER and size < TOGETHER_BYTES:
            entry = self._entries.get(self.waiting.pop())
            if entry is not None and entry.row_id is None:
                batch.append(entry)
                size += entry.spec_size or UNKNOWN_SIZE
        return batch

    def _again(self, entry: Entry) -> None:
        """Try again later: after 1 s, 2 s, … 5 s where a store was away, else up to 30 s."""
        longest = 5.0 if entry.refusal is not None and entry.refusal.reason == "StoreUnavailable" else 30.0
        delay = min(2.0**entry.tries, longest)
        entry.tries += 1
        asyncio.get_running_loop().call_later(delay, self.soon, entry.uid)

    async def _accept(self, entry: Entry) -> bool:
        """Make the row; False where it is worth another try."""
        if entry.final or entry.row_id is not None:
            return True
        if entry.suspend:
            self._refuse(entry, Refusal("Suspended", "spec.suspend is true"))
            return True
        try:
            spec = await self._spec(entry)
            if spec is None:
                return True
            with tracing.doing("accept GoQueueJob", about(entry), entry.trace_context):
                made = await self._make(entry, spec)
        except FAILURES as error:
            refusal = refusal_of(error)
            self._refuse(entry, refusal)
            return refusal.final
        except Exception as error:  # one job must not keep all others from being accepted
            if entry.refusal is None or entry.refusal.reason != "InternalError":
                log.exception("job not accepted", name=entry.name, namespace=entry.namespace)
            self._refuse(entry, Refusal("InternalError", f"the operator failed: {type(error).__name__}"))
            return False
        if self._entries.get(entry.uid) is not entry:  # deleted while the row was made
            self._cancel(entry.keys)
        else:
            self._entries.follow(entry, made.id)
        return True

    async def _spec(self, entry: Entry) -> dict[str, Any] | None:
        """The spec, from the API server where it was not kept; None where the resource is gone.

        Raises:
            InvalidInput: it is nested more deeply than can be read.
        """
        if entry.spec is not None:
            spec: dict[str, Any] = json.loads(entry.spec)
            return spec
        try:
            found = await self._kube.find(JOBS, entry.namespace, entry.name)
        except KubeError as error:
            if error.reason == UNREADABLE:
                raise InvalidInput("invalid json: the payload is nested too deeply") from error
            raise
        if found is None or found["metadata"]["uid"] != entry.uid:
            return None
        return found.get("spec") or {}

    async def _make(self, entry: Entry, spec: dict[str, Any]) -> Enqueued:
        payload = await payloads.fetch(self._kube, entry.namespace, spec)
        order = accept(
            payloads.body(spec, payload),
            self._registry,
            self._queues,
            source=Source.KUBERNETES,
            source_key=entry.key,
            trace_context=entry.trace_context,
            tenant=self._namespaces.tenant(entry.namespace),
        )
        self._namespaces.check(entry.namespace, order.queue)
        return await self._service.enqueue(order)

    def _refuse(self, entry: Entry, refusal: Refusal) -> None:
        entry.refusal = refusal
        self._refused(entry)
