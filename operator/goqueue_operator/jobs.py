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
from goqueue.errors import Conflict, GoQueueError, InvalidInput, NotFound, StoreUnavailable
from goqueue.job import Enqueued, Source
from goqueue.orders import EARLIEST, accept
from goqueue.registry import Registry
from goqueue.service import JobService
from goqueue.tasks import wait_at_most
from goqueue_operator import history, jobstatus, payloads, rows
from goqueue_operator.conditions import moment
from goqueue_operator.entries import RETRY, Entries, Entry, parsed
from goqueue_operator.jobevents import JobEvents
from goqueue_operator.jobretries import Retries
from goqueue_operator.jobstatus import Refusal
from goqueue_operator.jobwrites import JobStatuses, about
from goqueue_operator.kube import JOBS, UNREADABLE, Kube, KubeError, KubeUnavailable
from goqueue_operator.namespaces import Namespaces
from goqueue_operator.refusals import FAILURES, refusal_of
from goqueue_operator.rows import Relation
from goqueue_operator.tokens import token_of

TOGETHER: Final = 500
"""Resources that are accepted at the same time."""
TOGETHER_BYTES: Final = 4 * 2**20
"""Size of their specs at which no more are taken."""
UNKNOWN_SIZE: Final = 2**20
"""What a spec counts whose size is not known: nearly the most that etcd stores."""

REFUSED_AGAIN: Final = 30.0
"""Seconds until what Kubernetes refused is tried again: rights and policies change."""

KEEP: Final = 7 * 86400.0
"""Shortest time in seconds for which an ended job has a row, where nobody says."""

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
        installation: str = "",
        namespaces: Namespaces = Namespaces(),  # noqa: B008 - immutable
        keep_seconds: float = KEEP,
        ttl_seconds: float | None = None,
        ended_limit: int = 0,
    ) -> None:
        self._kube = kube
        self._service = service
        self._registry = registry
        self._queues = queues
        self._status_seconds = status_seconds
        self._writers = writers
        self._installation = installation
        self._namespaces = namespaces
        self._keep_seconds = keep_seconds
        self._ttl_seconds, self._ended_limit = ttl_seconds, ended_limit
        self.entries = Entries()
        self._to_accept: set[str] = set()
        self._to_cancel: set[str] = set()
        self._to_retry: set[str] = set()
        self._to_write: dict[str, None] = {}
        self._ending: list[tuple[datetime, str]] = []
        self._accepting, self._cancelling, self._expiring = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._reading, self._retrying = asyncio.Event(), asyncio.Event()
        self._dirty = asyncio.Semaphore(0)
        self._events = JobEvents(kube)
        self._statuses = JobStatuses(kube, self._events)
        self._retries = Retries(service, self._events, self._write_soon)
        self._surplus: set[str] = set()
        """Uids of ended resources beyond the limit."""
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
            self._begin(parsed(resource, self._installation))
        elif self._end_was_undone(entry, resource):
            self.entries.remove(entry.uid)
            self._begin(parsed(resource, self._installation))
        elif entry.generation < metadata.get("generation", 1):  # a list may be older than what the watch has shown
            self._change(entry, metadata["generation"], resource.get("spec") or {})
            if not entry.final and entry.row_id is None:
                self._accept_soon(entry.uid)
            entry.seen = None
            self._write_soon(entry)
            self._reading.set()
        if entry is not None:
            entry.version = max(entry.version, int(metadata.get("resourceVersion", 0)))
            if entry.version == int(metadata.get("resourceVersion", 0)):  # else it is older than what was seen
                entry.retry = token_of(resource, RETRY)
                self._retry_if_asked(entry)

    def _change(self, entry: Entry, generation: int, spec: dict[str, Any]) -> None:
        """Take over what may change of a spec."""
        entry.generation = generation
        entry.suspend = bool(spec.get("suspend"))
        entry.priority = spec.get("priority") or 0
        self.entries.drop_spec(entry)  # where it is needed it is read again
        if entry.ttl != (ttl := spec.get("ttlSecondsAfterFinished")):
            entry.ttl = ttl
            if entry.final:
                self._expire_later(entry)

    def _retry_if_asked(self, entry: Entry) -> None:
        if entry.retry is not None and entry.retry != entry.retried:
            self._to_retry.add(entry.uid)
            self._retrying.set()

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
        if entry.final and entry.status.get("observedGeneration") != entry.generation:
            self._write_soon(entry)
        self._retry_if_asked(entry)

    def gone(self, uid: str) -> None:
        """The resource is deleted: its job, if it has not ended, is cancelled."""
        if self.deleted is not None:
            self.deleted.add(uid)
        entry = self.entries.remove(uid)
        if entry is not None and not entry.final:
            self.cancel(entry.keys)

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
            group.create_task(self._each(self._retrying, self._retry_all), name="retry")
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
            done = await self._accept_some(entries)
            for entry, accepted in zip(entries, done, strict=True):
                if not accepted:
                    self._again(entry)
            self._reading.set()
            metrics.OPERATOR_SECONDS.observe(time.monotonic() - began, "accept")
        return None

    async def _accept_some(self, entries: list[Entry]) -> list[bool]:
        """Make or find the rows of these; for each whether it is dealt with, False where it is worth another try."""
        try:
            made = await self._made_before(entries)
        except StoreUnavailable as error:
            for entry in entries:
                self._refuse(entry, Refusal("StoreUnavailable", f"{error.message}; it is tried again"))
            return [False] * len(entries)
        for entry in entries:
            if entry.uid in made and self.entries.get(entry.uid) is entry:
                self.entries.follow(entry, made[entry.uid])
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
        else:
            if self.entries.get(entry.uid) is not entry:  # deleted while the row was made
                self.cancel(entry.keys)
            else:
                self.entries.follow(entry, made.id)
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
                if entry.relation(row) is Relation.STRANGE:
                    self._accept_anew(entry, "its id was given to another job")
                    continue
                entry.row, entry.seen = row, row.updated_at
                self._write_soon(entry)
        try:
            await self._hold_and_release(found)
        except Exception:
            for row in found:  # to be tried again, though they may not change any more
                for entry in self.entries.of_row(row.id):
                    entry.seen = None
            raise
        await self.rows_gone({id for id, seen in known if seen is None} - {row.id for row in found})

    async def rows_gone(self, ids: Collection[int]) -> None:
        """There are no such rows any more: accept the jobs of those that cannot have ended anew.

        Nothing removes the row of an open job but a restore, a failover that lost it, or a person. Retention removes
        those of ended ones, which the operator may not have seen end if it did not run for as long as they are kept.
        """
        if not ids:
            return
        async with self._service.database.connection() as connection:
            last = await rows.last_id(connection)
        kept = datetime.now(UTC) - timedelta(seconds=self._keep_seconds)
        for id in ids:
            for entry in self.entries.of_row(id):
                if entry.row is not None and entry.row.status.final:
                    continue  # its status is about to be written
                if id > last:
                    self._accept_anew(entry, "this database never had its row")
                elif entry.row is not None or entry.open_at() > kept:
                    self._accept_anew(entry, "its row is gone")
                else:
                    entry.lost = True
                    self._write_soon(entry)

    def _accept_anew(self, entry: Entry, why: str) -> None:
        """Make the row of a job that was lost; under its own key, so that one which is there is found."""
        log.warning("job is accepted anew", name=entry.name, namespace=entry.namespace, job_id=entry.row_id, why=why)
        self.entries.unfollow(entry)
        entry.row_id, entry.row, entry.seen, entry.lost = None, None, None, False
        self._accept_soon(entry.uid)

    async def _hold_and_release(self, found: list[rows.Row]) -> None:
        """Bring `spec.suspend` to waiting rows, and `spec.priority` to all. A job that follows another one's row has no
        say over it."""
        hold, release, prioritize = [], [], []
        for row in found:
            owners = [entry for entry in self.entries.of_row(row.id) if entry.relation(row) is Relation.OWN]
            if not owners or row.status.final:
                continue
            if row.priority != owners[0].priority:
                prioritize.append((row.id, owners[0].priority))
            if row.status.value != "pending":
                continue
            if owners[0].suspend and not row.held:
                hold.append(row.id)
            elif row.held and not owners[0].suspend:
                release.append((row.id, owners[0].available_at))
        if not hold and not release and not prioritize:
            return
        async with self._service.database.connection() as connection:
            held = await rows.hold(connection, hold) if hold else []
            if release:
                await rows.release(connection, release)
            if prioritize:
                await rows.prioritize(connection, prioritize)
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
        if entry.final:
            await self._statuses.note(entry)
            return
        status, former = entry.wanted(datetime.now(UTC)), entry.status
        if status is None:
            return
        if jobstatus.difference(former, status) is not None:
            await self._statuses.put(entry, status)
            self.written += 1
            metrics.OPERATOR_WRITES.inc()
        status.pop("result", None)
        entry.status = status
        await self._events.changed(entry, former, status)
        if jobstatus.final(status) and not entry.final:
            self._end(entry)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _end(self, entry: Entry) -> None:
        """Its job has ended: read the row no more, delete the resource when its time is over."""
        self.entries.end(entry)
        self._expire_later(entry)

    def _due(self, entry: Entry) -> datetime | None:
        """When the resource of an ended job is to be deleted; None: never."""
        ttl = entry.ttl if entry.ttl is not None or entry.declared else self._ttl_seconds
        if ttl is None:
            return None
        return (moment(entry.status.get("finishedAt")) or entry.created) + timedelta(seconds=ttl)

    def _expire_later(self, entry: Entry) -> None:
        if (due := self._due(entry)) is not None:
            heapq.heappush(self._ending, (due, entry.uid))
            self._expiring.set()

    def trim(self) -> None:
        """Let go of the oldest ended resources beyond the limit, and of deletions whose resource is gone."""
        if len(self._ending) > 2 * self.entries.ended + TOGETHER:
            dues = ((self._due(entry), entry.uid) for entry in self.entries if entry.final)
            self._ending = [(due, uid) for due, uid in dues if due is not None]
            heapq.heapify(self._ending)
        if not self._ended_limit or self.entries.ended <= self._ended_limit:
            return
        ended = [entry for entry in self.entries if entry.final]
        spare = [entry for entry in ended if not entry.declared]
        limit = max(0, self._ended_limit - (len(ended) - len(spare)))
        known = ((entry.namespace, entry.status.get("finishedAt") or "", entry.uid) for entry in spare)
        self._surplus = set(history.surplus(known, limit))
        log.info(
            "ended GoQueueJobs beyond the limit are deleted", resources=len(self._surplus), limit=self._ended_limit
        )
        for uid in self._surplus:
            heapq.heappush(self._ending, (EARLIEST, uid))
        self._expiring.set()

    def reopen(self, entry: Entry, row_id: int, status: dict[str, Any]) -> None:
        """Its job was retried by hand after it had ended; `status`: what the resource has."""
        self.entries.reopen(entry, row_id, status)
        self._reading.set()

    def _is_due(self, entry: Entry, planned: datetime) -> bool:
        """Whether a planned deletion still holds: with another TTL it is in the heap once more."""
        due = self._due(entry)
        return due is not None and due <= planned

    async def _expire(self) -> float | None:
        while self._ending:
            due, uid = self._ending[0]
            if (wait := (due - datetime.now(UTC)).total_seconds()) > 0:
                return min(wait, 3600.0)
            heapq.heappop(self._ending)
            entry = self.entries.get(uid)
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

    async def _retry_all(self) -> float | None:
        for uid in list(self._to_retry):
            entry = self.entries.get(uid)
            if entry is not None and (status := await self._retries.follow(entry)) is not None:
                await self._begin_again(entry, status)
            self._to_retry.discard(uid)
        return None

    async def _begin_again(self, entry: Entry, status: dict[str, Any]) -> None:
        """Take up a resource as if it had this status: one that has ended has a new round of attempts, or none yet."""
        resource = await self._kube.find(JOBS, entry.namespace, entry.name)
        if resource is not None and resource["metadata"]["uid"] == entry.uid:
            self.entries.remove(entry.uid)
            self._begin(parsed(resource | {"status": status}, self._installation))

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
