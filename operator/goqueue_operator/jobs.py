"""GoQueueJobs: each becomes a row, and the row's state comes back as its status.

    watch ──▶ entries ──▶ accept ──▶ row ──▶ read (one statement for all) ──▶ status ──▶ TTL

Nothing here is the truth. A row is made under a key that names the resource, so making it twice finds it; a status is
written from what the row says now, so a write that was missed is made up for by the next. What the operator did not
see while it was away, `goqueue_operator.compare` finds.
"""

import asyncio
import contextlib
import heapq
import json
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog

from goqueue import metrics, tracing
from goqueue.errors import Conflict, GoQueueError, InvalidInput, NotFound, StoreRefused, StoreUnavailable
from goqueue.job import Enqueued, Source
from goqueue.orders import EARLIEST, accept
from goqueue.registry import Registry
from goqueue.service import JobService
from goqueue.tasks import wait_at_most
from goqueue_operator import history, jobstatus, payloads, rows
from goqueue_operator.conditions import moment
from goqueue_operator.entries import Entries, Entry, parsed
from goqueue_operator.jobstatus import Refusal
from goqueue_operator.kube import JOBS, UNREADABLE, Kube, KubeError, KubeUnavailable
from goqueue_operator.payloads import NoPayload

TOGETHER: Final = 500
"""Resources that are accepted at the same time."""
TOGETHER_BYTES: Final = 4 * 2**20
"""Size of their specs at which no more are taken."""
UNKNOWN_SIZE: Final = 2**20
"""What a spec counts whose size is not known: nearly the most that etcd stores."""

REFUSED_AGAIN: Final = 30.0
"""Seconds until what Kubernetes refused is tried again: rights and policies change."""

log = structlog.get_logger(__name__)


class Jobs:
    """All GoQueueJobs.

    `status_seconds`: how often rows are read; `writers`: status writes at the same time; `ttl_seconds`: after its end
    a resource that says nothing itself is deleted, None: never; `ended_limit`: most ended ones kept, 0: any number.
    """

    def __init__(
        self,
        kube: Kube,
        service: JobService,
        registry: Registry,
        queues: Collection[str],
        *,
        status_seconds: float = 0.5,
        writers: int = 16,
        ttl_seconds: float | None = None,
        ended_limit: int = 0,
    ) -> None:
        self._kube = kube
        self._service = service
        self._registry = registry
        self._queues = queues
        self._status_seconds = status_seconds
        self._writers = writers
        self._ttl_seconds, self._ended_limit = ttl_seconds, ended_limit
        self.entries = Entries()
        self._to_accept: set[str] = set()
        self._to_cancel: set[str] = set()
        self._to_write: dict[str, None] = {}
        self._ending: list[tuple[datetime, str]] = []
        self._accepting, self._cancelling, self._expiring = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._reading = asyncio.Event()
        self._dirty = asyncio.Semaphore(0)
        self.deleted: set[str] | None = None
        """Uids of the resources that were deleted while a list of them is read, which may still have them."""
        self.written = 0
        """Status writes."""

    # --- what the watch says -----------------------------------------------------------------------------------------

    def on_event(self, kind: str | None, resource: dict[str, Any]) -> None:
        """A resource was made, changed or deleted (`DELETED`)."""
        metadata = resource["metadata"]
        if kind == "DELETED" or metadata.get("deletionTimestamp"):
            self.gone(metadata["uid"])
            return
        entry = self.entries.get(metadata["uid"])
        if entry is None:
            self._begin(parsed(resource))
        elif self._end_was_undone(entry, resource):
            self.entries.remove(entry.uid)
            self._begin(parsed(resource))
        elif entry.generation < metadata.get("generation", 1):  # a list may be older than what the watch has shown
            entry.generation = metadata["generation"]
            entry.suspend = bool((resource.get("spec") or {}).get("suspend"))
            if not entry.final and entry.row_id is None:
                self._accept_soon(entry.uid)
            entry.seen = None
            self._write_soon(entry)
            self._reading.set()
        if entry is not None:
            entry.version = max(entry.version, int(metadata.get("resourceVersion", 0)))

    def _end_was_undone(self, entry: Entry, resource: dict[str, Any]) -> bool:
        """Whether somebody wrote an older status over the final one, as a former leader may that was frozen."""
        newer = int(resource["metadata"].get("resourceVersion", 0)) > entry.version
        return entry.final and newer and not entry.writing and not jobstatus.final(resource.get("status") or {})

    def _begin(self, entry: Entry) -> None:
        self.entries.add(entry)
        if entry.final:
            self._end(entry)
        elif entry.row_id is not None:
            self.entries.follow(entry, entry.row_id)
            self._reading.set()
        else:
            self._accept_soon(entry.uid)

    def gone(self, uid: str) -> None:
        """The resource is deleted: its job, if it has not ended, is cancelled."""
        if self.deleted is not None:
            self.deleted.add(uid)
        entry = self.entries.remove(uid)
        if entry is not None and not entry.final:
            self.cancel([entry.key])

    def cancel(self, keys: Iterable[str]) -> None:
        """Cancel the jobs with these `source_key`s, as soon as PostgreSQL answers."""
        self._to_cancel.update(keys)
        self._cancelling.set()

    def show_backlog(self) -> None:
        """Say in the metrics what waits, and how many resources there are."""
        metrics.OPERATOR_BACKLOG.set(len(self._to_accept), "accept")
        metrics.OPERATOR_BACKLOG.set(len(self._to_cancel), "cancel")
        metrics.OPERATOR_BACKLOG.set(len(self._to_write), "write")
        metrics.OPERATOR_RESOURCES.set(len(self.entries) - self.entries.ended, "open")
        metrics.OPERATOR_RESOURCES.set(self.entries.ended, "ended")

    # --- the loops ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._each(self._accepting, self._accept_all), name="accept")
            group.create_task(self._each(self._cancelling, self._cancel_all), name="cancel")
            group.create_task(self._each(self._expiring, self._expire), name="expire")
            group.create_task(self._read_loop(), name="read")
            for number in range(self._writers):
                group.create_task(self._write_loop(), name=f"write-{number}")

    async def _each(self, wake: asyncio.Event, work: Callable[[], Awaitable[float | None]]) -> None:
        """Do the work whenever it is asked for, or after the seconds that it returned."""
        seconds: float | None = 0.0
        while True:
            await wait_at_most(wake, seconds)
            wake.clear()
            try:
                seconds = await work()
            except (StoreUnavailable, KubeUnavailable, KubeError) as error:
                log.warning("cannot go on for now", work=work.__name__.strip("_"), error=str(error))
                seconds = 2.0

    # --- accept: a resource becomes a row ----------------------------------------------------------------------------

    def _accept_soon(self, uid: str) -> None:
        self._to_accept.add(uid)
        self._accepting.set()

    async def _accept_all(self) -> float | None:
        while self._to_accept:
            began = time.monotonic()
            entries = self._batch()
            done = await asyncio.gather(*(self._accept(entry) for entry in entries))
            for entry, accepted in zip(entries, done, strict=True):
                if not accepted:
                    self._again(entry)
            self._reading.set()
            metrics.OPERATOR_SECONDS.observe(time.monotonic() - began, "accept")
        return None

    def _batch(self) -> list[Entry]:
        """The next resources to accept: no more of them, and of their specs, than may be in memory at once."""
        batch: list[Entry] = []
        size = 0
        while self._to_accept and len(batch) < TOGETHER and size < TOGETHER_BYTES:
            entry = self.entries.get(self._to_accept.pop())
            if entry is not None and entry.row_id is None:
                batch.append(entry)
                size += entry.spec_size or UNKNOWN_SIZE
        return batch

    def _again(self, entry: Entry) -> None:
        """Try again later: after 1 s, 2 s, … 5 s where a store was away, else up to 30 s."""
        longest = 5.0 if entry.refusal is not None and entry.refusal.reason == "StoreUnavailable" else 30.0
        delay = min(2.0**entry.tries, longest)
        entry.tries += 1
        asyncio.get_running_loop().call_later(delay, self._accept_soon, entry.uid)

    async def _accept(self, entry: Entry) -> bool:
        """Make the row; False where it is worth another try."""
        if entry.final:
            return True
        if entry.suspend:
            self._refuse(entry, Refusal("Suspended", "spec.suspend is true"))
            return True
        try:
            spec = await self._spec(entry)
            if spec is None:
                return True
            with tracing.doing("accept GoQueueJob", _about(entry), entry.trace_context):
                made = await self._make(entry, spec)
        except NoPayload as error:
            self._refuse(entry, error.refusal)
        except (KubeUnavailable, KubeError) as error:
            self._refuse(entry, Refusal("PayloadNotReadable", str(error)))
        except StoreUnavailable as error:
            self._refuse(entry, Refusal("StoreUnavailable", f"{error.message}; it is tried again"))
        except Conflict as error:
            self._refuse(entry, Refusal("UniqueKeyContended", f"{error.message}; it is tried again"))
        except (StoreRefused, GoQueueError) as error:
            details = "; ".join(f"{name}: {what}" for name, what in error.fields.items())
            reason = "".join(word.capitalize() for word in error.message.split()[:3] if word.isalpha()) or "Invalid"
            self._refuse(entry, Refusal(reason, f"{error.message}: {details}" if details else error.message, True))
            return True
        else:
            if self.entries.get(entry.uid) is not entry:  # deleted while the row was made
                self.cancel([entry.key])
            else:
                self.entries.follow(entry, made.id)
            return True
        return False

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
        )
        return await self._service.enqueue(order)

    def _refuse(self, entry: Entry, refusal: Refusal) -> None:
        entry.refusal = refusal
        self._write_soon(entry)

    # --- read: rows come back ----------------------------------------------------------------------------------------

    async def _read_loop(self) -> None:
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._read()
            except StoreUnavailable as error:
                log.warning("rows not read", error=error.message)
            spent = asyncio.get_running_loop().time() - began
            metrics.OPERATOR_SECONDS.observe(spent, "read")
            await asyncio.sleep(max(self._status_seconds - spent, 4 * spent, 0.05))
            if not self.entries.followers:
                self._reading.clear()
                await self._reading.wait()

    async def _read(self) -> None:
        known = self.entries.followed()
        if not known:
            return
        async with self._service.database.connection() as connection:
            found = await rows.changed(connection, known, self._service.database.keyring)
        for row in found:
            for entry in self.entries.of_row(row.id):
                entry.row, entry.seen = row, row.updated_at
                self._write_soon(entry)
        missing = {id for id, seen in known if seen is None} - {row.id for row in found}
        for id in missing:
            self.row_gone(id)
        try:
            await self._hold_and_release(found)
        except Exception:
            for row in found:  # to be tried again, though they may not change any more
                for entry in self.entries.of_row(row.id):
                    entry.seen = None
            raise

    def row_gone(self, row_id: int) -> None:
        """There is no such row any more."""
        for entry in self.entries.of_row(row_id):
            if entry.row is None or not entry.row.status.final:
                entry.lost = True
                self._write_soon(entry)

    async def _hold_and_release(self, found: list[rows.Row]) -> None:
        """Bring `spec.suspend` to waiting rows. A job that follows another one's row has no say over it."""
        hold, release = [], []
        for row in found:
            owners = [entry for entry in self.entries.of_row(row.id) if entry.key == row.source_key]
            if row.status.value != "pending" or not owners:
                continue
            if owners[0].suspend and not row.held:
                hold.append(row.id)
            elif row.held and not owners[0].suspend:
                release.append((row.id, owners[0].available_at))
        if not hold and not release:
            return
        async with self._service.database.connection() as connection:
            held = await rows.hold(connection, hold) if hold else []
            if release:
                await rows.release(connection, release)
        for id, queue in held:
            with contextlib.suppress(GoQueueError):  # a worker that fetches it cannot claim it
                await self._service.broker.remove(queue, id)

    # --- write: the status -------------------------------------------------------------------------------------------

    def _write_soon(self, entry: Entry) -> None:
        if entry.uid not in self._to_write:
            self._to_write[entry.uid] = None
            self._dirty.release()

    async def _write_loop(self) -> None:
        while True:
            await self._dirty.acquire()
            uid = next(iter(self._to_write))
            del self._to_write[uid]
            entry = self.entries.get(uid)
            if entry is None:
                continue
            if entry.writing:  # two at once could arrive in the wrong order
                entry.write_again = True
                continue
            entry.writing, entry.write_again = True, False
            try:
                await self._write(entry)
            except KubeUnavailable as error:
                log.warning("status not written, trying again", name=entry.name, error=str(error))
                asyncio.get_running_loop().call_later(1.0, self._write_soon, entry)
            except KubeError as error:
                if error.code == 404:
                    continue
                if error.code != 409:  # another one by the same name, of which the watch will tell
                    log.error("status refused", name=entry.name, namespace=entry.namespace, error=str(error))
                asyncio.get_running_loop().call_later(REFUSED_AGAIN, self._write_soon, entry)
            finally:
                entry.writing = False
                if entry.write_again:
                    self._write_soon(entry)

    async def _write(self, entry: Entry) -> None:
        status = entry.wanted(datetime.now(UTC))
        if status is None:
            return
        if jobstatus.difference(entry.status, status) is not None:
            written = await self._put_status(entry, status)
            entry.version = max(entry.version, int(written["metadata"]["resourceVersion"]))
            self.written += 1
            metrics.OPERATOR_WRITES.inc()
        status.pop("result", None)
        entry.status = status
        if jobstatus.final(status) and not entry.final:
            self._end(entry)

    async def _put_status(self, entry: Entry, status: dict[str, Any]) -> dict[str, Any]:
        """As a whole: a merge would mix a result with the one before it, and take a null in it for a removal."""
        steps: list[dict[str, Any]] = [
            {"op": "test", "path": "/metadata/uid", "value": entry.uid},
            {"op": "add", "path": "/status", "value": status},
        ]
        if not jobstatus.final(status) or entry.row is None or entry.row.trace_context is None:
            return await self._kube.edit(JOBS, entry.namespace, entry.name, steps, "status")
        # Into the job's trace goes the write that tells how it ended; those on the way would drown it.
        about = _about(entry) | {"goqueue.job.state": status["state"]}
        with tracing.doing("write status", about, entry.row.trace_context):
            return await self._kube.edit(JOBS, entry.namespace, entry.name, steps, "status")

    # --- the end -----------------------------------------------------------------------------------------------------

    def _end(self, entry: Entry) -> None:
        """Its job has ended: read the row no more, delete the resource when its time is over."""
        self.entries.end(entry)
        if (due := self._due(entry)) is not None:
            heapq.heappush(self._ending, (due, entry.uid))
            self._expiring.set()

    def _due(self, entry: Entry) -> datetime | None:
        """When the resource of an ended job is to be deleted; None: never."""
        ttl = entry.ttl if entry.ttl is not None else self._ttl_seconds
        if ttl is None:
            return None
        return (moment(entry.status.get("finishedAt")) or datetime.now(UTC)) + timedelta(seconds=ttl)

    def trim(self) -> None:
        """Let go of the oldest ended resources beyond the limit, and of deletions whose resource is gone."""
        if len(self._ending) > 2 * self.entries.ended + TOGETHER:
            dues = ((self._due(entry), entry.uid) for entry in self.entries if entry.final)
            self._ending = [(due, uid) for due, uid in dues if due is not None]
            heapq.heapify(self._ending)
        if not self._ended_limit or self.entries.ended <= self._ended_limit:
            return
        ended = (
            (entry.namespace, entry.status.get("finishedAt") or "", entry.uid) for entry in self.entries if entry.final
        )
        surplus = history.surplus(ended, self._ended_limit)
        log.info("ended GoQueueJobs beyond the limit are deleted", resources=len(surplus), limit=self._ended_limit)
        for uid in surplus:
            heapq.heappush(self._ending, (EARLIEST, uid))
        self._expiring.set()

    def reopen(self, entry: Entry, row_id: int, status: dict[str, Any]) -> None:
        """Its job was retried by hand after it had ended; `status`: what the resource has."""
        self.entries.reopen(entry, row_id, status)
        self._reading.set()

    async def _expire(self) -> float | None:
        while self._ending:
            due, uid = self._ending[0]
            if (wait := (due - datetime.now(UTC)).total_seconds()) > 0:
                return min(wait, 3600.0)
            entry = self.entries.get(uid)
            if entry is not None and entry.final:
                try:
                    await self._kube.delete(JOBS, entry.namespace, entry.name, uid)
                except KubeError as error:  # a policy, say: that of one resource is not the others' business
                    log.error("deletion refused", name=entry.name, namespace=entry.namespace, error=str(error))
                    heapq.heappush(self._ending, (datetime.now(UTC) + timedelta(seconds=REFUSED_AGAIN), uid))
            heapq.heappop(self._ending)
        return None

    async def _cancel_all(self) -> float | None:
        keys = list(self._to_cancel)
        if not keys:
            return None
        async with self._service.database.connection() as connection:
            found = await rows.by_key(connection, keys)
        for id, status in found.values():
            if not status.final:
                with contextlib.suppress(Conflict, NotFound):
                    await self._service.cancel(id)
                    log.info("job cancelled, its resource is deleted", job_id=id)
        self._to_cancel.difference_update(keys)
        return None


def _about(entry: Entry) -> tracing.Attributes:
    """Of which resource a span is, in OpenTelemetry's words."""
    return {
        "k8s.namespace.name": entry.namespace,
        "goqueue.resource.kind": "GoQueueJob",
        "goqueue.resource.name": entry.name,
        "goqueue.resource.uid": entry.uid,
    }
