"""GoQueue for Python programs: enqueue, look, wait; also inside one's own SQLAlchemy transaction.

async with AsyncClient.from_environment() as client:
    job_id = await client.enqueue("send_email", {"to": "ada@example.org", "subject": "Hi", "body": "Hello"})
    job = await client.wait(job_id, timeout=30)

with Session(engine) as session, session.begin():
    session.add(order)
    enqueue_in(session, "send_email", {"to": order.email, "subject": "Thank you", "body": "…"})
"""

import asyncio
import threading
from collections.abc import Coroutine
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self, TypedDict, TypeVar, Unpack

from pydantic import BaseModel

from goqueue import settings
from goqueue.broker import Broker
from goqueue.errors import Conflict, InvalidInput
from goqueue.job import Job, NewJob, Source
from goqueue.orders import accept
from goqueue.registry import REGISTRY, Handler, Registry
from goqueue.service import JobService
from goqueue.settings import DatabaseSettings, EngineSettings, PostgresSettings, RedisSettings
from goqueue.store.connect import Database, dsn
from goqueue.store.transactional import holder_statement, insert_statement

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import Session

T = TypeVar("T")

Payload = BaseModel | dict[str, Any]


class Options(TypedDict, total=False):
    """What may be said about a job beside its type and payload; `timeout` in seconds."""

    queue: str
    max_retries: int
    priority: int
    available_at: datetime
    timeout: float
    unique_key: str


def build(
    kind: str | Handler, payload: Payload, options: Options, registry: Registry, queues: list[str] | None
) -> NewJob:
    """An order from what a Python caller says.

    Raises:
        InvalidInput: as for a request body; or `kind` is a function that no type is registered for.
    """
    name = kind if isinstance(kind, str) else _name_of(kind, registry)
    found = registry.get(name)
    if found is None:
        raise InvalidInput("invalid job type", {"provided": name, "allowed": registry.names()})
    body = payload.model_dump(mode="json") if isinstance(payload, BaseModel) else payload
    raw = {"queue": found.queue, **options, "type": name, "payload": body}
    known = queues if queues is not None else settings.load(EngineSettings).queues
    return accept(raw, registry, known, source=Source.LIBRARY)


def _name_of(handler: Handler, registry: Registry) -> str:
    for kind in registry:
        if kind.handler is handler:
            return str(kind.name)
    raise InvalidInput("invalid job type", {"provided": repr(handler), "allowed": registry.names()})


class AsyncClient:
    """Enqueues straight into PostgreSQL and Redis, by the same rules as the API. Use it as `async with`."""

    def __init__(
        self,
        conninfo: str,
        redis: RedisSettings,
        *,
        queues: list[str] | None = None,
        registry: Registry = REGISTRY,
        database: DatabaseSettings | None = None,
    ) -> None:
        """`conninfo` is a libpq connection string or URL; `queues` all there are (default: GOQUEUE_QUEUES)."""
        import goqueue.builtin  # noqa: F401 - registers the three built-in types

        self._settings = database or settings.load(DatabaseSettings)
        self._database = Database(conninfo, self._settings, minimum=0)
        self._broker = Broker(redis)
        self._registry = registry
        self._queues = queues
        self.service = JobService(self._database, self._broker)

    @classmethod
    def from_environment(cls) -> Self:
        """A client with the settings that the other processes read (`POSTGRES_*`, `GOQUEUE_*`)."""
        database = settings.load(DatabaseSettings)
        return cls(dsn(settings.load(PostgresSettings), database), settings.load(RedisSettings), database=database)

    async def __aenter__(self) -> Self:
        await self._database.open(self._settings)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.service.close()
        await self._broker.close()
        await self._database.close()

    async def enqueue(self, kind: str | Handler, payload: Payload, **options: Unpack[Options]) -> int:
        """Enqueue one job; its id, or that of the open job with the same `unique_key`.

        Raises:
            InvalidInput: type, payload or an option is wrong.
            StoreUnavailable: PostgreSQL is away.
        """
        made = await self.service.enqueue(build(kind, payload, options, self._registry, self._queues))
        return made.id

    async def enqueue_many(self, kind: str | Handler, payloads: list[Payload], **options: Unpack[Options]) -> list[int]:
        """Enqueue a job for each payload, all or none; their ids in order."""
        orders = [build(kind, payload, options, self._registry, self._queues) for payload in payloads]
        return [made.id for made in await self.service.enqueue_many(orders)]

    async def get(self, job_id: int) -> Job:
        """The job; NotFound where there is none."""
        return await self.service.get(job_id)

    async def wait(self, job_id: int, timeout: float) -> Job:  # noqa: ASYNC109 - what callers expect
        """The job once it is final.

        Raises:
            TimeoutError: it is not, after `timeout` seconds.
        """
        pause = 0.02
        async with asyncio.timeout(timeout):
            while True:
                job = await self.service.get(job_id)
                if job.status.final:
                    return job
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, 1.0)

    async def cancel(self, job_id: int) -> None:
        """Cancel an open job; Conflict where it is final."""
        await self.service.cancel(job_id)

    async def retry(self, job_id: int) -> None:
        """Run a failed or cancelled job again; Conflict where it is neither."""
        await self.service.retry(job_id)


class Client:
    """The same for code that is not async: a thread of its own runs the loop. Use it as `with`."""

    def __init__(self, client: AsyncClient | None = None) -> None:
        """`client` defaults to one from the environment; it belongs to this object from now on."""
        self._client = client
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="goqueue-client", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._async = self._run(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._async.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> AsyncClient:
        client = self._client or AsyncClient.from_environment()
        return await client.__aenter__()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def enqueue(self, kind: str | Handler, payload: Payload, **options: Unpack[Options]) -> int:
        """As `AsyncClient.enqueue`."""
        return self._run(self._async.enqueue(kind, payload, **options))

    def enqueue_many(self, kind: str | Handler, payloads: list[Payload], **options: Unpack[Options]) -> list[int]:
        """As `AsyncClient.enqueue_many`."""
        return self._run(self._async.enqueue_many(kind, payloads, **options))

    def get(self, job_id: int) -> Job:
        """As `AsyncClient.get`."""
        return self._run(self._async.get(job_id))

    def wait(self, job_id: int, timeout: float) -> Job:
        """As `AsyncClient.wait`."""
        return self._run(self._async.wait(job_id, timeout))

    def cancel(self, job_id: int) -> None:
        """As `AsyncClient.cancel`."""
        self._run(self._async.cancel(job_id))

    def retry(self, job_id: int) -> None:
        """As `AsyncClient.retry`."""
        self._run(self._async.retry(job_id))


def enqueue_in(
    transaction: "Session | Connection",
    kind: str | Handler,
    payload: Payload,
    *,
    registry: Registry = REGISTRY,
    queues: list[str] | None = None,
    **options: Unpack[Options],
) -> int:
    """Enqueue inside the caller's transaction; the job's id. It runs once the caller has committed, or never.

    Raises:
        InvalidInput: type, payload or an option is wrong.
        Conflict: the unique key changed hands meanwhile.
    """
    job = build(kind, payload, options, registry, queues)
    made = transaction.execute(insert_statement(job)).scalar()
    if made is None:
        made = transaction.execute(holder_statement(job)).scalar()
    return _id(made)


async def enqueue_in_async(
    transaction: "AsyncSession | AsyncConnection",
    kind: str | Handler,
    payload: Payload,
    *,
    registry: Registry = REGISTRY,
    queues: list[str] | None = None,
    **options: Unpack[Options],
) -> int:
    """As `enqueue_in`, for SQLAlchemy's async sessions and connections."""
    job = build(kind, payload, options, registry, queues)
    made = (await transaction.execute(insert_statement(job))).scalar()
    if made is None:
        made = (await transaction.execute(holder_statement(job))).scalar()
    return _id(made)


def _id(made: Any) -> int:
    if made is None:
        raise Conflict("unique key is contended, try again")
    return int(made)
