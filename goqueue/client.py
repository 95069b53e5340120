"""GoQueue for Python programs: enqueue, look, wait, steer. For one's own SQLAlchemy transaction: `goqueue.transaction`.

async with AsyncClient.from_environment() as client:
    job_id = await client.enqueue("send_email", {"to": "ada@example.org", "subject": "Hi", "body": "Hello"})
    job = await client.wait(job_id, timeout=30)
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Self, Unpack

from goqueue import development, encryption, forks, settings
from goqueue.broker import Broker
from goqueue.errors import InvalidInput, StoreUnavailable
from goqueue.job import Attempt, Job, JobFilter
from goqueue.library import Options, build, build_many, load_missing
from goqueue.lifecycle import JobStatus
from goqueue.overview import QueueState, overview, seen
from goqueue.payloads import Payload
from goqueue.queues import Queues
from goqueue.registry import REGISTRY, Handler, Registry
from goqueue.service import JobService
from goqueue.settings import DatabaseSettings, EncryptionSettings, EngineSettings, PostgresSettings, RedisSettings
from goqueue.store import installation
from goqueue.store.connect import Database, dsn

HINT: Final = (
    "no POSTGRES_* is set, and no `goqueue dev` runs in this folder or above it: set them, for a `goqueue dev` "
    "elsewhere by `set -a; . FOLDER/.goqueue/environment; set +a`"
)
"""What a program is told beside the first failed attempt to connect."""


class AsyncClient:
    """Works straight on PostgreSQL and Redis, by the same rules as the API. Use it as `async with`, once.

    It uses no API key: who has the database has everything. It belongs to the event loop that opened it, and to the
    process: in a forked child it raises RuntimeError.
    """

    def __init__(
        self,
        conninfo: str,
        redis: RedisSettings,
        *,
        queues: Sequence[str] | None = None,
        registry: Registry = REGISTRY,
        database: DatabaseSettings | None = None,
        encryption_keys: EncryptionSettings | None = None,
        modules: Sequence[str] = (),
        hint: str = "",
    ) -> None:
        """Nothing is connected before the block begins.

        Args:
            conninfo: A libpq connection string or URL.
            redis: Where the ready queues are.
            queues: Queues beside the built-in ones and those of the registered types; default: GOQUEUE_QUEUES.
            registry: The job types that may be enqueued.
            database: How to connect; default: `DB_*`.
            encryption_keys: Must be those of the other processes; default: GOQUEUE_ENCRYPTION_KEYS.
            modules: Imported when a job is enqueued by the name of a type that is not registered.
            hint: Logged beside the first failed attempt to connect.

        Raises:
            SettingsError: a setting that is read from the environment is wrong.
        """
        self._conninfo = conninfo
        self._redis = redis
        self._settings = database or settings.load(DatabaseSettings)
        self._keyring = encryption.load(encryption_keys or settings.load(EncryptionSettings))
        self._registry = registry
        self._queues = Queues(registry, settings.load(EngineSettings).queues if queues is None else queues)
        self._modules = tuple(modules)
        self._hint = hint
        self._forked = False
        self._assemble()

    def _assemble(self) -> None:
        self._fresh = True
        self._database = Database(self._conninfo, self._settings, minimum=0, keyring=self._keyring)
        self._database.hint = self._hint
        self._broker = Broker(self._redis)
        self.service = JobService(self._database, self._broker)

    @classmethod
    def from_environment(cls) -> Self:
        """A client with the settings that the other processes read (`POSTGRES_*`, `GOQUEUE_*`).

        Where no POSTGRES_* is set and `goqueue dev` runs in this folder or above it, its stores are used.

        Raises:
            SettingsError: a setting is wrong, or the file that `goqueue dev` keeps cannot be trusted.
        """
        found = development.values()
        database = settings.load(DatabaseSettings)
        engine = settings.load(EngineSettings, found)
        return cls(
            dsn(settings.load(PostgresSettings, found), database),
            settings.load(RedisSettings, found),
            queues=engine.queues,
            database=database,
            encryption_keys=settings.load(EncryptionSettings, found),
            modules=engine.jobs,
            hint="" if found or development.names_a_database() else HINT,
        )

    async def __aenter__(self) -> Self:
        """Connect to PostgreSQL; Redis may be unavailable.

        Raises:
            StoreUnavailable: PostgreSQL did not answer within all attempts (`DB_MAX_RETRIES`, `DB_RETRY_DELAY`).
        """
        if not self._fresh:
            self._assemble()
        self._fresh = self._forked = False
        try:
            await self._database.open(self._settings)
            async with self._database.connection() as connection:
                self._broker.installation = await installation.read(connection)
        except BaseException:
            await self.__aexit__()
            raise
        forks.watch(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Wait for what is under way, then close all connections."""
        forks.forget(self)
        if self._forked:
            return
        await self.service.close()
        await self._broker.close()
        await self._database.close()

    async def open(self) -> Self:
        """Connect, where a block with `async with` does not fit; raises as that does. `close` ends it."""
        return await self.__aenter__()

    async def close(self) -> None:
        """Wait for what is under way, then close all connections."""
        await self.__aexit__()

    def in_child(self) -> None:
        """Leave the parent's connections alone; called in a forked child."""
        forks.forget(self)
        forks.abandon(self._database, self._broker, self.service)
        self._forked = True
        del self._database, self._broker, self.service

    if not TYPE_CHECKING:  # type checkers would take any name for an attribute

        def __getattr__(self, name: str) -> Any:
            """Called for what is not there: in a forked child, the connections."""
            if name in ("service", "_database", "_broker") and self.__dict__.get("_forked"):
                raise RuntimeError("this AsyncClient was opened before the process forked: open one in the child")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # --- enqueue -----------------------------------------------------------------------------------------------------

    def load_types(self, kind: str | Handler) -> None:
        """Import the modules of GOQUEUE_JOBS if a type of that name is not registered; `enqueue` calls it.

        Raises:
            SettingsError: a module cannot be imported.
        """
        load_missing(kind, self._registry, self._modules)

    async def enqueue(self, kind: str | Handler, payload: Payload, **options: Unpack[Options]) -> int:
        """Enqueue one job.

        Args:
            kind: The type, by its name or its function.
            payload: A model or a dictionary, checked as the worker will see it.
            options: `queue`, `max_retries`, `priority`, `available_at`, `timeout` (seconds), `unique_key`, `tenant`.

        Returns:
            The job's id, or that of the open job with the same `unique_key`.

        Raises:
            InvalidInput: type, payload or an option is wrong; nothing was done.
            Conflict: another transaction holds the `unique_key` and is not over yet; nothing was done.
            StoreUnavailable: PostgreSQL is unavailable; the job may or may not have been made.
        """
        self.load_types(kind)
        made = await self.service.enqueue(build(kind, payload, options, self._registry, self._queues))
        return made.id

    async def enqueue_many(
        self, kind: str | Handler, payloads: Sequence[Payload], **options: Unpack[Options]
    ) -> list[int]:
        """Enqueue a job for each payload, all or none; their ids in order. Arguments as for `enqueue`.

        Raises:
            InvalidInput: as for `enqueue`; its fields name the `index` of the first wrong payload.
            Conflict: as for `enqueue`.
            StoreUnavailable: as for `enqueue`.
        """
        self.load_types(kind)
        orders = build_many(kind, payloads, options, self._registry, self._queues)
        return [made.id for made in await self.service.enqueue_many(orders)]

    # --- look --------------------------------------------------------------------------------------------------------

    async def get(self, job_id: int) -> Job:
        """The job.

        Raises:
            NotFound: there is none with this id.
            StoreUnavailable: PostgreSQL is unavailable.
        """
        return await self.service.get(job_id)

    async def find(
        self,
        *,
        queue: str | None = None,
        type: str | None = None,
        status: JobStatus | str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        after: int | None = None,
        newest_first: bool = False,
        limit: int = 100,
    ) -> list[Job]:
        """The first jobs that match all that is given, ordered by id.

        Args:
            queue: Only jobs of this queue.
            type: Only jobs of this type.
            status: Only jobs in this state, e.g. `failed`.
            created_after: Only jobs made at this time or later (an aware datetime).
            created_before: Only jobs made before it.
            after: Only jobs beyond this id, e.g. that of the last job found before.
            newest_first: Order by id, descending.
            limit: As many at most.

        Raises:
            InvalidInput: there is no such status.
            StoreUnavailable: PostgreSQL is unavailable.
        """
        wanted = JobFilter(
            queue, type, _status(status), created_after, created_before, after, newest_first, max(0, limit)
        )
        return await self.service.find(wanted)

    async def wait(self, job_id: int, timeout: float) -> Job:  # noqa: ASYNC109 - what callers expect
        """The job once it is final. If PostgreSQL is unavailable meanwhile, that is waited out.

        Raises:
            NotFound: there is no such job.
            TimeoutError: it is not final after `timeout` seconds; its text says in which state it is.
        """
        pause, last = 0.02, "in an unknown state: the database is unavailable"
        try:
            async with asyncio.timeout(timeout) as limit:
                while True:
                    try:
                        job = await self.service.get(job_id)
                    except StoreUnavailable:
                        pass
                    else:
                        if job.status.final:
                            return job
                        last = job.status.value
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.5, 1.0)
        except TimeoutError:
            if not limit.expired():
                raise
            raise TimeoutError(f"job {job_id} is still {last} after {timeout:g} s") from None

    async def attempts(self, job_id: int) -> list[Attempt]:
        """The finished attempts of a job, oldest first. A retry by hand begins a new `round`, in which they count
        from 1 again.

        Raises:
            NotFound: there is no such job.
            StoreUnavailable: PostgreSQL is unavailable.
        """
        return await self.service.attempts(job_id)

    async def logs(self, job_id: int, *, after: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
        """The lines that the job's handler logged, oldest first: `id`, `round`, `attempt`, `level`, `message`, `at`.

        Args:
            job_id: The job.
            after: The `id` of the last line of the page before.
            limit: As many lines at most.

        Raises:
            NotFound: there is no such job.
            StoreUnavailable: PostgreSQL is unavailable.
        """
        return await self.service.logs(job_id, after, limit)

    async def queues(self) -> list[QueueState]:
        """The queues as they are now: the known ones, and others that have open jobs or are paused.

        Raises:
            StoreUnavailable: PostgreSQL is unavailable.
        """
        return (await overview(self.service, self._queues)).queues

    # --- steer -------------------------------------------------------------------------------------------------------

    async def cancel(self, job_id: int) -> JobStatus:
        """Cancel an open job: `cancelled` if it waited, `processing` if its worker was asked to stop it.

        Raises:
            NotFound: there is no such job.
            Conflict: it is final.
            StoreUnavailable: PostgreSQL is unavailable.
        """
        return await self.service.cancel(job_id)

    async def retry(self, job_id: int) -> None:
        """Run a failed or cancelled job again, with all its attempts.

        Raises:
            NotFound: there is no such job.
            Conflict: it is in another state.
            StoreUnavailable: PostgreSQL is unavailable.
        """
        await self.service.retry(job_id)

    async def delete(self, job_id: int) -> None:
        """Hide a job; an open one is cancelled first. Retention removes it for good.

        Raises:
            NotFound: there is no such job.
            StoreUnavailable: PostgreSQL is unavailable.
        """
        await self.service.delete(job_id)

    async def pause(self, queue: str) -> None:
        """Let no worker fetch from a queue; running jobs go on, new ones are accepted.

        Raises:
            InvalidInput: there is no such queue.
            StoreUnavailable: PostgreSQL is unavailable.
        """
        await self.service.pause(await self._existing(queue))

    async def resume(self, queue: str) -> None:
        """Let workers fetch from a queue again.

        Raises:
            InvalidInput: there is no such queue.
            StoreUnavailable: PostgreSQL is unavailable.
        """
        await self.service.resume(await self._existing(queue))

    async def _existing(self, queue: str) -> str:
        if queue not in self._queues:
            self.load_types("")  # it may be that of a type of the program's own
        if queue not in self._queues and queue not in await seen(self.service):
            raise InvalidInput("invalid queue", {"provided": queue, "allowed": sorted(self._queues)})
        return queue


def _status(status: JobStatus | str | None) -> JobStatus | None:
    try:
        return None if status is None else JobStatus(status)
    except ValueError:
        allowed = [state.value for state in JobStatus]
        raise InvalidInput("invalid status", {"provided": status, "allowed": allowed}) from None
