"""GoQueue for Python programs: enqueue, look, wait. `goqueue.transaction` is for one's own SQLAlchemy transaction.

async with AsyncClient.from_environment() as client:
    job_id = await client.enqueue("send_email", {"to": "ada@example.org", "subject": "Hi", "body": "Hello"})
    job = await client.wait(job_id, timeout=30)
"""

import asyncio
import functools
import threading
from collections.abc import Coroutine, Sequence
from datetime import datetime
from typing import Any, Self, TypedDict, TypeVar, Unpack

import orjson
from pydantic import BaseModel

from goqueue import encryption, settings
from goqueue.access import TENANT
from goqueue.broker import Broker
from goqueue.errors import InvalidInput, StoreUnavailable
from goqueue.job import Job, NewJob, Source
from goqueue.jsontext import decode
from goqueue.lifecycle import JobStatus
from goqueue.orders import accept
from goqueue.registry import REGISTRY, Handler, Registry
from goqueue.service import JobService
from goqueue.settings import DatabaseSettings, EncryptionSettings, EngineSettings, PostgresSettings, RedisSettings
from goqueue.store import installation
from goqueue.store.connect import Database, dsn

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
    tenant: str


def build(
    kind: str | Handler, payload: Payload, options: Options, registry: Registry, queues: Sequence[str] | None
) -> NewJob:
    """An order from what a Python caller says; `queues` None: those of the environment, read once.

    Raises:
        InvalidInput: as for a request body; or `kind` is a function that no type is registered for.
    """
    name = kind if isinstance(kind, str) else _name_of(kind, registry)
    found = registry.get(name)
    if found is None:
        raise InvalidInput("invalid job type", {"provided": name, "allowed": registry.names()})
    raw: dict[str, Any] = {"queue": found.queue, **options, "type": name, "payload": _as_json(payload)}
    tenant = raw.pop("tenant", None)
    if tenant is not None and not (isinstance(tenant, str) and TENANT.fullmatch(tenant)):
        raise InvalidInput("validation failed", {"tenant": "lower case letters, digits, '-', '_' and '.'"})
    return accept(raw, registry, _known_queues() if queues is None else queues, source=Source.LIBRARY, tenant=tenant)


def build_many(
    kind: str | Handler, payloads: Sequence[Payload], options: Options, registry: Registry, queues: Sequence[str] | None
) -> list[NewJob]:
    """An order for each payload, as `build` makes it.

    Raises:
        InvalidInput: as `build`, with the `index` of the first wrong payload among the fields.
    """
    orders: list[NewJob] = []
    if len(payloads) > 1 and (alike := _build_alike(kind, payloads, options, registry, queues)):
        return alike
    for index, payload in enumerate(payloads):
        try:
            orders.append(build(kind, payload, options, registry, queues))
        except InvalidInput as error:
            raise InvalidInput(error.message, {**(error.fields or {}), "index": index}) from None
    return orders


def _build_alike(
    kind: str | Handler, payloads: Sequence[Payload], options: Options, registry: Registry, queues: Sequence[str] | None
) -> list[NewJob] | None:
    """The same in a tenth of the time, or None where anything is wrong: all payloads are looked at as one text."""
    try:
        first = build(kind, payloads[0], options, registry, queues)
        values = decode(b"[" + b",".join(map(_encoded, payloads)) + b"]")
    except InvalidInput:
        return None
    found = registry.get(first.type)
    return first.for_each(values) if found and found.accepts_all(values) else None


def _as_json(payload: Payload) -> Any:
    """The payload as the worker will see it, so that what is checked here is what runs there."""
    return decode(_encoded(payload))


def _encoded(payload: Payload) -> bytes:
    if isinstance(payload, BaseModel):
        return payload.model_dump_json(by_alias=True, round_trip=True).encode()
    try:
        return orjson.dumps(payload)
    except orjson.JSONEncodeError as error:
        raise InvalidInput("invalid payload format", {"payload": str(error)}) from None


@functools.cache
def _known_queues() -> tuple[str, ...]:
    return tuple(settings.load(EngineSettings).queues)


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
        queues: Sequence[str] | None = None,
        registry: Registry = REGISTRY,
        database: DatabaseSettings | None = None,
        encryption_keys: EncryptionSettings | None = None,
    ) -> None:
        """`conninfo` is a libpq connection string or URL; `queues` all there are (default: GOQUEUE_QUEUES).

        `encryption_keys` defaults to GOQUEUE_ENCRYPTION_KEYS: must be those of the other processes.

        Raises:
            SettingsError: a setting that is read from the environment is wrong.
        """
        self._settings = database or settings.load(DatabaseSettings)
        keyring = encryption.load(encryption_keys or settings.load(EncryptionSettings))
        self._database = Database(conninfo, self._settings, minimum=0, keyring=keyring)
        self._broker = Broker(redis)
        self._registry = registry
        self._queues = settings.load(EngineSettings).queues if queues is None else queues
        self.service = JobService(self._database, self._broker)

    @classmethod
    def from_environment(cls) -> Self:
        """A client with the settings that the other processes read (`POSTGRES_*`, `GOQUEUE_*`)."""
        database = settings.load(DatabaseSettings)
        return cls(dsn(settings.load(PostgresSettings), database), settings.load(RedisSettings), database=database)

    async def __aenter__(self) -> Self:
        try:
            await self._database.open(self._settings)
            async with self._database.connection() as connection:
                self._broker.installation = await installation.read(connection)
        except BaseException:
            await self.__aexit__()
            raise
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
        """Enqueue a job for each payload, all or none; their ids in order.

        Raises:
            InvalidInput: as for `enqueue`; its fields name the `index` of the first wrong payload.
        """
        orders = build_many(kind, payloads, options, self._registry, self._queues)
        return [made.id for made in await self.service.enqueue_many(orders)]

    async def get(self, job_id: int) -> Job:
        """The job; NotFound where there is none."""
        return await self.service.get(job_id)

    async def wait(self, job_id: int, timeout: float) -> Job:  # noqa: ASYNC109 - what callers expect
        """The job once it is final. If PostgreSQL is away meanwhile, that is waited out.

        Raises:
            NotFound: there is no such job.
            TimeoutError: it is not final after `timeout` seconds.
        """
        pause = 0.02
        async with asyncio.timeout(timeout):
            while True:
                try:
                    job = await self.service.get(job_id)
                except StoreUnavailable:
                    pass
                else:
                    if job.status.final:
                        return job
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, 1.0)

    async def cancel(self, job_id: int) -> JobStatus:
        """Cancel an open job: `cancelled` if it waited, `processing` if its worker was asked to stop it.

        Raises:
            Conflict: it is final.
        """
        return await self.service.cancel(job_id)

    async def retry(self, job_id: int) -> None:
        """Run a failed or cancelled job again; Conflict where it is neither."""
        await self.service.retry(job_id)


class Client:
    """The same for code that is not async, and for any number of threads. Use it as `with`, once.

    A thread of its own runs the loop. What other threads still wait for when the block ends is cancelled.
    """

    def __init__(self, client: AsyncClient | None = None) -> None:
        """`client` defaults to one from the environment; it belongs to this object from now on."""
        self._async = client or AsyncClient.from_environment()
        self._open = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="goqueue-client", daemon=True)
        self._thread.start()
        self._open = True
        try:
            self._run(self._async.__aenter__())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._run(self._async.__aexit__())
        finally:
            self._end()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with self._lock:  # what is handed over before `_end` says no is seen to by it
            if not self._open:
                work.close()
                raise RuntimeError("a Client works inside its `with` block only")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # for a caller that was interrupted

    def _end(self) -> None:
        with self._lock:
            self._open = False
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

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

    def cancel(self, job_id: int) -> JobStatus:
        """As `AsyncClient.cancel`."""
        return self._run(self._async.cancel(job_id))

    def retry(self, job_id: int) -> None:
        """As `AsyncClient.retry`."""
        self._run(self._async.retry(job_id))


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
