"""How each long-running process is put together, started and stopped."""

import asyncio
import atexit
import contextlib
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import structlog

from goqueue import encryption, logs, metrics, registry, settings, tracing, zonedata
from goqueue.broker import Broker
from goqueue.errors import GoQueueError, StaleSchema
from goqueue.gauges import check_owner, watch_stores
from goqueue.instruments import Process
from goqueue.queues import Queues
from goqueue.registry import REGISTRY
from goqueue.settings import DatabaseSettings, EncryptionSettings, EngineSettings, PostgresSettings, RedisSettings
from goqueue.store import installation
from goqueue.store import migrate as schema
from goqueue.store.connect import Database, connect, dsn
from goqueue.tasks import end_all

GARBAGE: Final = 20_000
"""New objects that make Python look for circles among them. Its own 700 or 2,000 are a single claim: a worker would
look at all that it holds a hundred times a second, and find nothing (docs/decisions/0012-cheap-rows.md)."""

LEAVE_SECONDS: Final = 1.0
"""How long Python may take to end a worker when all is written, and what is registered with `atexit` after it."""

log = structlog.get_logger(__name__)


def _begin(process: str) -> EngineSettings:
    engine = settings.load(EngineSettings)
    logs.configure(engine, process=process)
    import goqueue.builtin  # noqa: F401 - registers the three built-in types

    registry.load(engine.jobs)
    return engine


def _say_start() -> None:
    """Say by which zone data this process computes the ticks of schedules: a difference between two is seen here."""
    log.info("starting", zone_data=zonedata.release())


def _begin_counting(process: Process) -> EngineSettings:
    engine = _begin(process)
    tracing.begin(process)
    metrics.begin(process, Queues(REGISTRY, engine.queues), REGISTRY.names())
    return engine


def _run(main: Callable[[asyncio.Event], Awaitable[None]], *, leave: bool = False) -> None:
    """Run `main` in an event loop; SIGTERM and SIGINT set its event.

    `leave`: the process ends soon after `main`, whatever threads and tasks still run.
    """
    import uvloop

    # What was imported lives as long as the process: no collection of garbage needs to walk through it again.
    gc.freeze()
    gc.set_threshold(GARBAGE)

    os.register_at_fork(after_in_child=_default_signals)

    async def guarded() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        code = 1
        try:
            await main(stop)
            code = 0
        finally:
            if leave:
                tracing.end()  # not below: the end of the loop may wait for a task that does not end
                _leave_soon(code)

    try:
        uvloop.run(guarded())
    finally:
        tracing.end()


def _leave_soon(code: int) -> None:
    """End the process in `LEAVE_SECONDS`, unless it has ended by then.

    Python waits at its end for all threads, and the event loop for all tasks and its own threads. A handler that does
    not stop when it is told to would hold the process for as long as it likes, beside the next run of its job.
    """

    def leave() -> None:
        time.sleep(LEAVE_SECONDS)
        with contextlib.suppress(Exception):
            log.warning("handlers still run, the process ends without them")
        # What Python would do after its threads have ended: flush the logs, and whatever else has asked for it.
        last = threading.Thread(target=atexit._run_exitfuncs, daemon=True)
        last.start()
        last.join(LEAVE_SECONDS)
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(code)

    threading.Thread(target=leave, name="leave", daemon=True).start()


def _default_signals() -> None:
    """Let a process that a handler forked end on SIGTERM and SIGINT: it has our handlers, but not the event loop that
    would hear of them, and what it wrote to the wakeup descriptor would stop the worker instead."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


async def _stores(stack: AsyncExitStack, connections: int, stop: asyncio.Event) -> tuple[Database, Broker, str]:
    """Open PostgreSQL (refusing an old schema) and Redis; the stack closes them.

    Raises:
        ForeignBroker: the ready queues are another installation's. Where that is found out later, `stop` is set, and
            the stack raises it.
    """
    database_settings, redis = settings.load(DatabaseSettings), settings.load(RedisSettings)
    conninfo = dsn(settings.load(PostgresSettings), database_settings)
    keyring = encryption.load(settings.load(EncryptionSettings))
    database = Database(conninfo, database_settings, maximum=connections, keyring=keyring)
    await database.open(database_settings)
    stack.push_async_callback(database.close)
    async with database.connection() as connection:
        await schema.check(connection)
        owner = await installation.read(connection)
    broker = Broker(redis)
    broker.installation = owner
    stack.push_async_callback(broker.close)
    await check_owner(broker)
    watching = asyncio.create_task(watch_stores(database, broker), name="stores")
    watching.add_done_callback(lambda _: stop.set())
    stack.push_async_callback(_end_watch, watching)
    return database, broker, conninfo


async def _end_watch(watching: "asyncio.Task[None]") -> None:
    """Raise what has ended the watch, if it was not this."""
    await end_all([watching])
    with contextlib.suppress(asyncio.CancelledError):
        await watching


async def _until_stopped(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
    """Do work that ends only by cancellation until `stop` is set. What ends it before is raised: a process whose work
    is over must not look as if it had been told to go."""
    running = asyncio.create_task(work)
    await asyncio.wait({running, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
        raise GoQueueError("the process's work ended by itself")
    await end_all([running])
    await asyncio.gather(running, return_exceptions=True)


def worker() -> None:
    """`goqueue worker`."""
    from goqueue.probes import Probes
    from goqueue.settings import WorkerSettings
    from goqueue_worker import handlers
    from goqueue_worker.isolation import Isolation
    from goqueue_worker.worker import Worker

    engine = _begin_counting("worker")
    chosen = settings.load(WorkerSettings)
    installed = handlers.install()

    async def main(stop: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(installed.close)
            database, broker, conninfo = await _stores(stack, 6, stop)
            await installed.attach(database)
            isolation = Isolation(chosen.isolated) if chosen.isolated else None
            work = Worker(database, broker, conninfo, chosen, engine, isolation=isolation)
            probes = Probes(chosen.health_host, chosen.health_port, work.unwell, work.unready)
            probes.start()
            stack.callback(probes.stop)
            running = asyncio.create_task(work.run())
            await asyncio.wait({running, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
            work.stop()
            await running

    _run(main, leave=True)


def scheduler() -> None:
    """`goqueue scheduler`."""
    from goqueue.probes import Probes
    from goqueue.settings import SchedulerSettings
    from goqueue_scheduler.scheduler import Scheduler

    engine = _begin_counting("scheduler")
    _say_start()
    chosen = settings.load(SchedulerSettings)

    async def main(stop: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            database, broker, _ = await _stores(stack, 8, stop)
            process = Scheduler(database, broker, chosen, engine)
            probes = Probes(chosen.health_host, chosen.health_port, process.unwell, lambda: {})
            probes.start()
            stack.callback(probes.stop)
            await _until_stopped(process.run(), stop)

    _run(main)


def operator() -> None:
    """`goqueue operator`."""
    from goqueue.probes import Probes
    from goqueue.service import JobService
    from goqueue.settings import OperatorSettings
    from goqueue_operator import access
    from goqueue_operator.operator import Operator

    engine = _begin_counting("operator")
    _say_start()
    chosen = settings.load(OperatorSettings)

    async def main(stop: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            database, broker, _ = await _stores(stack, 5, stop)
            service = JobService(database, broker)
            stack.push_async_callback(service.close)
            process = Operator(access.find(), service, chosen, engine)
            probes = Probes(chosen.health_host, chosen.health_port, process.unwell, process.unready)
            probes.start()
            stack.callback(probes.stop)
            await _until_stopped(process.run(), stop)

    _run(main)


def api() -> None:
    """`goqueue api`."""
    from goqueue_api.server import serve

    _begin("api")
    _say_start()
    serve()


def migrate(revision: str, *, only_check: bool, grant_to: Sequence[str] = ()) -> None:
    """`goqueue migrate`. Roles are granted to whenever the schema is current, so that a role that came later gets its
    rights from the next run.

    Raises:
        StaleSchema: with `only_check`, where migrations are missing.
        StoreUnavailable: PostgreSQL did not answer within the attempts that `DB_MAX_RETRIES` allows.
        UnfitDatabase: the database or the role is not set up for it.
    """
    _begin("migrate")
    database_settings = settings.load(DatabaseSettings)
    conninfo = dsn(settings.load(PostgresSettings), database_settings)

    async def check() -> None:
        database = Database(conninfo, database_settings, maximum=1)
        await database.open(database_settings)
        try:
            async with database.connection() as connection:
                await schema.check(connection)
        finally:
            await database.close()

    async def reach() -> None:
        await (await connect(conninfo, database_settings)).close()

    if not only_check:
        asyncio.run(reach())
        schema.upgrade(conninfo, revision, pgbouncer=database_settings.pgbouncer)
    try:
        asyncio.run(check())
    except StaleSchema:
        if only_check or revision == "head":
            raise
    else:
        for role in grant_to:
            _grant(conninfo, role)
    log.info("schema is current", revision=schema.head())


def _grant(conninfo: str, role: str) -> None:
    import psycopg

    from goqueue.store import grants

    try:
        grants.grant(conninfo, role)
    except psycopg.Error as error:
        raise GoQueueError(f"cannot grant to {role}: {' '.join(str(error).split())}") from None
    log.info("rights granted", role=role)
