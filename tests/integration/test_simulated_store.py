"""The simulated PostgreSQL (`tests/simulation/pg`) answers as the real one does, alone and under concurrency.

Histories of the engine's own store operations run on both; answers and rows must be the same. A pair of operations is
run, too, one of them in a transaction that is still open while the other begins, and then commits or rolls back.
"""

import asyncio
import dataclasses
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from enum import Enum
from typing import Any, LiteralString

import psycopg
import pytest

from goqueue.errors import GoQueueError
from goqueue.job import AttemptEnd, NewJob, Outcome
from goqueue.lifecycle import JobStatus
from goqueue.store import attempt_sql, attempts, dispatch, enqueue, jobs, leaders, queues, rescue
from goqueue.store.connect import Connection, fetch_all
from goqueue.store.dispatch import WorkerRow
from tests.integration.engine import Engine
from tests.simulation import mutations
from tests.simulation.loop import SimulatedLoop
from tests.simulation.pg import catalog, client
from tests.simulation.pg.server import Server

Operation = tuple[str, tuple[Any, ...]]
Connect = Callable[[], AbstractAsyncContextManager[Connection]]

HISTORIES = 40
PAIRS = 60
JOBS = 6
LONG_AGO, LONG_AFTER = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)

JOBS_NOW = """
SELECT id, queue, status, attempts, lease, worker_id, dispatch_at IS NULL, dispatch_at <= now(), available_at <= now(),
    finished_at IS NULL, failed_at IS NULL, cancel_requested_at IS NULL, result, error, round, deaths, progress
FROM jobs ORDER BY id
"""
ATTEMPTS_NOW = "SELECT job_id, lease, attempt, outcome, error, worker, round FROM job_attempts ORDER BY job_id, lease"
WORKERS_NOW = "SELECT id, name, beat, busy, draining FROM workers ORDER BY id"


def plain(value: Any) -> Any:
    """A result without what differs between two runs: times, and leases that were drawn at random."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [plain(getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value))
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, datetime | float):
        return "time"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10_000:
        return "lease"
    return value


def in_any_order(value: Any) -> Any:
    """The same, where PostgreSQL promises no order."""
    return sorted(value, key=repr) if isinstance(value, list) else value


# --- operations ------------------------------------------------------------------------------------------------------


def _ends(pairs: Sequence[tuple[int, int]], outcome: Outcome) -> list[AttemptEnd]:
    delay = 1000.0 if outcome is Outcome.SNOOZED else 0.0
    error = None if outcome is Outcome.COMPLETED else f"{outcome}"
    result = '{"done": true}' if outcome is Outcome.COMPLETED else None
    return [AttemptEnd(id, lease, outcome, result, error, delay) for id, lease in pairs]


async def _bury(connection: Connection, worker: int, beat: int) -> bool:
    now = datetime.now(UTC)
    return await rescue.bury(connection, WorkerRow(worker, "", [], 1, 0, beat, False, now, now, {}))


async def _enqueue(connection: Connection, orders: Sequence[tuple[str, int, str | None]]) -> Any:
    made, ready = await enqueue.insert(
        connection, [NewJob(queue, "work", {"n": 1}, retries, unique_key=key) for queue, retries, key in orders]
    )
    return [(one.id, one.created) for one in made], [one.id for one in ready]


async def _claim(connection: Connection, worker: int, ids: list[int], queue: str, lease: int, skip: bool) -> Any:
    claimed = await attempts.claim(connection, worker, ids, queue=queue, lease=lease, skip_locked=skip)
    return in_any_order([plain(one) for one in claimed])


OPERATIONS: dict[str, Callable[..., Awaitable[Any]]] = {
    "enqueue": _enqueue,
    "register": lambda connection, name: attempts.register(connection, name, ["default"], 2),
    "heartbeat": lambda connection, worker: attempts.heartbeat(connection, worker, 1, False, {}),
    "claim": _claim,
    "held": lambda connection, *args: attempts.held(connection, *args),
    "still_processing": attempts.still_processing,
    "passed_over": attempts.passed_over,
    "complete": lambda connection, pairs: attempts.complete(connection, _ends(pairs, Outcome.COMPLETED)),
    "end": lambda connection, pairs, outcome: attempts.end_otherwise(connection, _ends(pairs, outcome)),
    "save_progress": lambda connection, pairs: attempts.save_progress(connection, [(*pair, 0.5) for pair in pairs]),
    "cancel_requests": attempts.cancel_requests,
    "cancel": jobs.cancel,
    "retry": jobs.retry,
    "set_status": jobs.set_status,
    "delete": jobs.soft_delete,
    "bury": _bury,
    "rescue": lambda connection, ids: rescue.rescue(connection, dict.fromkeys(ids, 0.0), "its worker died"),
    "orphans_above_floor": lambda connection: rescue.orphans_above_floor(connection, 0, 100),
    "orphans_listed": lambda connection: rescue.orphans_listed(connection, (LONG_AGO, 0), LONG_AFTER),
    "orphans_among": rescue.orphans_among,
    "open_above_floor": lambda connection: dispatch.open_above_floor(connection, 0, 100),
    "open_listed": lambda connection: dispatch.open_listed(connection, (LONG_AGO, 0), LONG_AFTER),
    "due": lambda connection: dispatch.due(connection, (LONG_AGO, 0), LONG_AFTER),
    "recent": dispatch.recent,
    "unseen": dispatch.unseen,
    "boundary": dispatch.boundary,
    "workers": dispatch.workers,
    "park": dispatch.park,
    "raise_floor": dispatch.raise_floor,
    "floor": dispatch.floor,
    "pause": queues.pause,
    "resume": queues.resume,
    "take_lead": lambda connection, holder: leaders.take(connection, "scheduler", holder, 1000.0),
    "leave_lead": lambda connection, holder: leaders.leave(connection, "scheduler", holder),
}

UNORDERED = ("held", "still_processing", "passed_over", "cancel_requests", "rescue")


async def carry_out(connection: Connection, operation: Operation) -> Any:
    """What an operation returns, or the name of the error that it raises."""
    name, arguments = operation
    try:
        found = plain(await OPERATIONS[name](connection, *arguments))
    except (psycopg.Error, GoQueueError) as error:
        return type(error).__name__
    if name == "boundary":
        return found[0]
    return [in_any_order(part) for part in in_any_order(found)] if name in UNORDERED and found else found


async def rows(connection: Connection) -> Any:
    """All that is stored."""
    queries: tuple[LiteralString, ...] = (JOBS_NOW, ATTEMPTS_NOW, WORKERS_NOW, "SELECT id FROM dispatch_floor")
    found = [[plain(row) for row in await fetch_all(connection, query)] for query in queries]
    found[1] = in_any_order(found[1])
    return found


# --- histories -------------------------------------------------------------------------------------------------------


class Author:
    """Writes histories that mostly make sense: it remembers which lease each job was claimed under."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._leases: dict[int, int] = {}
        self._next = 0

    def beginning(self) -> list[Operation]:
        """Jobs and workers."""
        orders = [(self._chance.choice(("default", "default", "other")), self._chance.randrange(3), None)] * JOBS
        return [("enqueue", (orders,)), ("register", ("one",)), ("register", ("two",))]

    def history(self, length: int) -> list[Operation]:
        """So many operations."""
        return [self.operation() for _ in range(length)]

    def _ids(self) -> list[int]:
        return sorted(self._chance.sample(range(1, JOBS + 2), self._chance.randrange(1, 4)))

    def _pairs(self) -> list[tuple[int, int]]:
        ids = self._ids()
        wrong = self._chance.random() < 0.2
        return [(id, 77 if wrong else self._leases.get(id, 0)) for id in ids]

    def operation(self, name: str | None = None) -> Operation:
        """One, of this name or any."""
        chance = self._chance
        name = name or chance.choice([*OPERATIONS, *["claim"] * 8, *["end", "complete", "cancel"] * 3])
        ids, job, queue = self._ids(), chance.randrange(1, JOBS + 1), chance.choice(("default", "default", "other"))
        if name == "claim":
            self._next += 1
            self._leases.update(dict.fromkeys(ids, self._next))
            return name, (chance.randrange(1, 4), ids, queue, self._next, chance.random() < 0.2)
        arguments: dict[str, tuple[Any, ...]] = {
            "enqueue": ([(queue, chance.randrange(3), chance.choice((None, "key")))] * chance.randrange(1, 3),),
            "register": ("another",),
            "heartbeat": (chance.randrange(1, 4),),
            "held": (chance.randrange(1, 4), ids, list(range(self._next + 1))),
            "still_processing": (self._pairs(),),
            "passed_over": (ids,),
            "complete": (self._pairs(),),
            "end": (self._pairs(), chance.choice([one for one in attempts._STATUS if one is not Outcome.RESCUED])),
            "save_progress": (self._pairs(),),
            "cancel_requests": (ids,),
            "set_status": (job, chance.choice(list(JobStatus))),
            "bury": (chance.randrange(1, 3), chance.randrange(2)),
            "rescue": (list(range(1, JOBS + 1)),),
            "recent": ([(1, chance.randrange(2, JOBS + 3))],),
            "unseen": ([(1, 3), (4, JOBS + 5)],),
            "orphans_among": (ids,),
            "park": (1, chance.randrange(2, JOBS + 3)),
            "raise_floor": (chance.randrange(JOBS + 3),),
            "pause": (queue,),
            "resume": (queue,),
            "take_lead": (chance.choice(("a", "b")),),
            "leave_lead": (chance.choice(("a", "b")),),
        }
        alone = name in ("due", "boundary", "workers", "floor") or name.startswith(
            ("open_", "orphans_above", "orphans_l")
        )
        return name, () if alone else arguments.get(name, (job,))


async def told(connect: Connect, operations: Sequence[Operation]) -> list[Any]:
    """The answers to a history, each with what is stored after it."""
    found = []
    async with connect() as connection:
        for operation in operations:
            answer = await carry_out(connection, operation)
            found.append((operation, answer, await rows(connection)))
    return found


async def told_of_a_pair(
    connect: Connect,
    before: Sequence[Operation],
    pair: tuple[Operation, Operation],
    commits: bool,
    wait: Callable[["asyncio.Task[Any]"], Awaitable[None]],
) -> list[Any]:
    """The same of two operations at a time, the first of them in a transaction that ends while the second waits."""
    found = await told(connect, before)
    async with connect() as one, connect() as other:
        try:
            async with one.transaction():
                first = await carry_out(one, pair[0])
                second = asyncio.ensure_future(carry_out(other, pair[1]))
                await wait(second)
                if not commits:
                    raise psycopg.Rollback
        except psycopg.Rollback:
            pass
        answers = (pair, commits, first, await second)
        return [*found, (answers, await rows(one))]


def simulated(work: Callable[[Connect], Awaitable[list[Any]]]) -> list[Any]:
    """What the simulated server says, on a loop of its own."""
    loop = SimulatedLoop(random.Random(1))

    def fail(error: BaseException) -> None:
        raise error

    async def main() -> list[Any]:
        server = Server(loop, random.Random(2), lambda who, what: None, lambda changes: None, fail)
        storage = server.storage
        transaction = storage.begin(server.clock(), "test")
        storage.insert(storage.tables["dispatch_floor"], {"only_row": True, "id": 0}, transaction)
        storage.commit(transaction)
        return await work(client.database(server, "test").connection)

    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


async def a_moment(task: "asyncio.Task[Any]") -> None:
    """Time enough for a simulated statement to run into a lock."""
    await asyncio.wait((task,), timeout=0.3)


@pytest.fixture
async def real(engine: Engine) -> Connect:
    """Connections to PostgreSQL, where the first job's id is 1."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[Connection]:
        async with engine.database.connection() as connection:
            yield connection

    return connect


async def anew(engine: Engine) -> None:
    """Nothing stored, and ids from 1."""
    await engine.execute("TRUNCATE jobs, job_attempts, workers, queues, leaders RESTART IDENTITY CASCADE")
    await engine.rows("SELECT setval('jobs_id_seq', 1, false)")
    await engine.execute("UPDATE dispatch_floor SET id = 0")


async def test_histories_have_the_same_answers_on_both(engine: Engine, real: Connect) -> None:
    for seed in range(HISTORIES):
        author = Author(seed)
        operations = [*author.beginning(), *author.history(25)]
        await anew(engine)
        expected = await told(real, operations)
        found = await asyncio.to_thread(simulated, lambda connect: told(connect, operations))  # noqa: B023
        for mine, theirs in zip(found, expected, strict=True):
            assert mine == theirs, f"history {seed}"


async def _waits(engine: Engine, task: "asyncio.Task[Any]") -> None:
    while not task.done() and not await engine.lock_awaited():  # noqa: ASYNC110 - PostgreSQL gives no signal
        await asyncio.sleep(0.001)


@pytest.mark.timeout(300)
async def test_operations_at_the_same_time_have_the_same_outcome_on_both(engine: Engine, real: Connect) -> None:
    writes = ["claim", "complete", "end", "cancel", "retry", "set_status", "rescue", "park", "bury", "enqueue", "claim"]
    for seed in range(PAIRS):
        author, chance = Author(seed), random.Random(seed)
        before = [*author.beginning(), author.operation("claim"), author.operation("claim"), *author.history(4)]
        pair = (author.operation(chance.choice(writes)), author.operation(chance.choice(writes)))
        commits = chance.random() < 0.8
        await anew(engine)

        async def both(connect: Connect, wait: Any) -> list[Any]:
            return await told_of_a_pair(connect, before, pair, commits, wait)  # noqa: B023 - called in this round

        expected = await both(real, lambda task: _waits(engine, task))
        found = await asyncio.to_thread(simulated, lambda connect: both(connect, a_moment))
        assert found[-1] == expected[-1], f"pair {seed}"


async def _status_after_a_late_cancel(connect: Connect, wait: Callable[["asyncio.Task[Any]"], Awaitable[None]]) -> Any:
    """A retry is written while a request to cancel is about to be committed."""
    before: list[Operation] = [("enqueue", ([("default", 5, None)],)), ("register", ("one",))]
    before.append(("claim", (1, [1], "default", 7, False)))
    pair: tuple[Operation, Operation] = ("cancel", (1,)), ("end", ([(1, 7)], Outcome.RETRIED))
    found = await told_of_a_pair(connect, before, pair, True, wait)
    return found[-1][1][0][0][2]


@pytest.mark.parametrize("cured", [True, False])
async def test_a_join_reads_the_version_of_a_row_that_the_snapshot_has(
    engine: Engine, real: Connect, monkeypatch: pytest.MonkeyPatch, cured: bool
) -> None:
    if not cured:
        for name in ("END_OTHERWISE", "CLAIM", "CLAIM_UNLOCKED"):
            monkeypatch.setattr(attempt_sql, name, getattr(attempt_sql, name))  # back to it at the end
        mutations.apply("newest-request")
    await anew(engine)
    expected = await _status_after_a_late_cancel(real, lambda task: _waits(engine, task))
    found = (await asyncio.to_thread(simulated, lambda connect: _as_list(connect)))[0]
    assert found == expected == ("cancelled" if cured else "pending")


async def _as_list(connect: Connect) -> list[Any]:
    return [await _status_after_a_late_cancel(connect, a_moment)]


async def test_the_simulated_tables_have_the_columns_of_the_real_ones(engine: Engine) -> None:
    query = (
        "SELECT column_name FROM information_schema.columns WHERE table_name = %s AND table_schema = current_schema()"
    )
    for table in catalog.tables():
        columns = {row[0] for row in await engine.rows(query, table.name)}
        assert set(table.defaults) == columns, table.name


async def test_a_new_row_has_the_same_defaults_on_both(engine: Engine, real: Connect) -> None:
    async def work(connect: Connect) -> list[Any]:
        async with connect() as connection:
            await enqueue.insert(connection, [NewJob("default", "work", {"n": 1})])
            await attempts.register(connection, "one", ["default"], 1)
            found = []
            for table in ("jobs", "workers"):
                names = sorted(next(one for one in catalog.tables() if one.name == table).defaults)
                query = f"SELECT {', '.join(names)} FROM {table}"  # noqa: S608 - our own names
                found.append(plain(await fetch_all(connection, query)))
            return found

    await anew(engine)
    assert await asyncio.to_thread(simulated, work) == await work(real)
