"""The leader's duties beside each other: what holds up one, or one row of it, holds up nothing else."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from goqueue import JobContext, instruments, metrics
from goqueue.job import NewJob, ready_score
from goqueue.store import attempts, dispatch, leaders, rescue, retention, schedules
from goqueue.store.connect import Connection
from goqueue_scheduler import floor, strays, supervisor, tables
from goqueue_scheduler.pruner import Pruner
from tests.integration.engine import Engine, claim, eventually
from tests.integration.test_scheduler import insert_without_push, ready_ids, sweep

LOCK = "SELECT FROM jobs WHERE id = %s FOR UPDATE"


async def nothing(payload: Any, job: JobContext) -> None: ...


@pytest.fixture(autouse=True)
def types(engine: Engine) -> None:
    engine.handle("nothing", nothing)


@pytest.fixture
def counted() -> Any:
    """The scheduler's metrics, by name and labels."""
    registry = CollectorRegistry()
    metrics.begin("scheduler", ["default", "other"], ["nothing"], registry)
    yield lambda name, **labels: registry.get_sample_value(name, labels)
    instruments.end()


@pytest.fixture
async def refused(engine: Engine) -> AsyncIterator[list[int]]:
    """Seven old jobs; a table of somebody else's refers to the third and to the sixth."""
    ids = await insert_without_push(engine, 7)
    old = "UPDATE jobs SET status = 'completed', created_at = %s, finished_at = %s"
    long_ago = datetime.now(UTC) - timedelta(days=30)
    await engine.execute(old, long_ago, long_ago)
    await engine.execute("CREATE TABLE orders (job_id bigint REFERENCES jobs (id))")
    await engine.execute("INSERT INTO orders VALUES (%s), (%s)", ids[2], ids[5])
    yield ids
    await engine.execute("DROP TABLE orders")


# --- retention -------------------------------------------------------------------------------------------------------


async def test_retention_passes_over_rows_that_another_table_refers_to(
    engine: Engine, refused: list[int], counted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "CHUNK", 4)
    day = 86400.0
    assert (await Pruner(engine.database, day, day, day).walk())["jobs"] == 5
    assert await engine.rows("SELECT id FROM jobs ORDER BY id") == [(refused[2],), (refused[5],)]
    assert counted("goqueue_retention_refused_total", table="jobs") == 2


async def test_where_every_row_is_refused_retention_stops_dividing(
    engine: Engine, refused: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("goqueue_scheduler.pruner.REFUSED", 2)
    await engine.execute("INSERT INTO orders SELECT id FROM jobs")
    day, tries = 86400.0, list[int]()
    delete = retention.delete

    async def noted(connection: Connection, ids: list[int], keep: retention.Keep) -> int:
        tries.append(len(ids))
        return await delete(connection, ids, keep)

    monkeypatch.setattr(retention, "delete", noted)
    assert (await Pruner(engine.database, day, day, day).walk())["jobs"] == 0
    assert tries == [7, 3, 1, 2, 4]


async def test_a_row_that_retention_cannot_delete_holds_up_no_scheduled_job(engine: Engine, refused: list[int]) -> None:
    async with engine.worker(), engine.scheduler(keep_completed=86400.0) as scheduler:
        await engine.leads(scheduler)
        await eventually(lambda: engine.rows("SELECT FROM jobs HAVING count(*) = 2"))
        due = datetime.now(UTC) + timedelta(seconds=0.5)
        job = await engine.until(await engine.enqueue("nothing", available_at=due), "completed")
        assert job.started_at is not None
        assert job.started_at - due < timedelta(seconds=1.5)
        assert scheduler.supervisor.failing == {}


async def test_a_missing_table_fails_one_duty_and_is_told(engine: Engine, counted: Any) -> None:
    await engine.execute("ALTER TABLE payment_declines RENAME TO hidden")
    try:
        async with engine.worker(), engine.scheduler() as scheduler:
            await engine.leads(scheduler)

            async def failing() -> bool:
                return "retention" in scheduler.supervisor.failing

            await eventually(failing)
            assert counted("goqueue_scheduler_duty_failing", duty="retention") == 1
            assert counted("goqueue_scheduler_duty_failing", duty="dispatch") == 0
            due = datetime.now(UTC) + timedelta(seconds=0.5)
            await engine.until(await engine.enqueue("nothing", available_at=due), "completed")
            assert set(scheduler.supervisor.failing) <= {"retention"}
            assert scheduler.unwell() == {}
    finally:
        await engine.execute("ALTER TABLE hidden RENAME TO payment_declines")
    assert counted("goqueue_scheduler_duty_failures_total", duty="retention") > 0


async def test_the_other_tables_are_pruned_where_one_cannot_be(engine: Engine, refused: list[int]) -> None:
    day = 86400.0
    pruner = Pruner(engine.database, day, day, day)
    await engine.execute("ALTER TABLE audit_log RENAME TO hidden")
    failures = 0
    try:
        while len(pruner._done) < 3:
            try:
                await pruner.tick()
            except psycopg.errors.UndefinedTable:
                failures += 1
    finally:
        await engine.execute("ALTER TABLE hidden RENAME TO audit_log")
    assert failures == 1
    assert pruner._done == {"jobs": 5, "payment_declines": 0, "idempotency_keys": 0}


async def test_an_idempotency_key_that_cannot_be_deleted_keeps_no_other(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "CHUNK", 4)
    insert = "INSERT INTO idempotency_keys (digest, fingerprint, job_id, job_gone, look_at)"
    values = " SELECT n::text::bytea, '', n, true, now() - make_interval(secs => n) FROM generate_series(1, 9) AS n"
    await engine.execute(insert + values)
    await engine.execute("CREATE TABLE requests (digest bytea REFERENCES idempotency_keys (digest))")
    await engine.execute("INSERT INTO requests SELECT digest FROM idempotency_keys WHERE job_id = 5")
    try:
        assert (await Pruner(engine.database, 1e9, 1e9, 1e9).walk())["idempotency_keys"] == 8
        assert await engine.rows("SELECT job_id, look_at > now() FROM idempotency_keys") == [(5, True)]
    finally:
        await engine.execute("DROP TABLE requests")


# --- locked rows -----------------------------------------------------------------------------------------------------


async def test_a_locked_row_holds_up_neither_the_rescue_of_others_nor_dispatch(engine: Engine) -> None:
    ids = [await engine.enqueue("nothing") for _ in range(3)]
    async with engine.database.connection() as connection:
        dead = await attempts.register(connection, "dead", ["default"], 3)
        assert len(await claim(connection, dead, ids)) == 3
    await engine.execute("DELETE FROM workers")
    async with engine.worker(), engine.scheduler() as scheduler:
        async with engine.database.connection() as holder, holder.transaction():
            await holder.execute(LOCK, (ids[1],))
            for job_id in (ids[0], ids[2]):
                await engine.until(job_id, "completed", seconds=10.0)
            due = datetime.now(UTC) + timedelta(seconds=0.3)
            await engine.until(await engine.enqueue("nothing", available_at=due), "completed", seconds=10.0)
            assert scheduler.rescuer.rescued == 2
        await engine.until(ids[1], "completed", seconds=10.0)
    assert [await engine.outcomes(job_id) for job_id in ids] == [["rescued"]] * 3


async def test_the_jobs_of_a_dead_worker_are_found_in_its_queues_before_all_others_are_read(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rescue, "CHUNK", 10)
    async with engine.scheduler() as scheduler:
        await engine.leads(scheduler)

        async def scanned() -> bool:
            return not scheduler.rescuer._orphans.scan_asked and scheduler.rescuer._walk is None

        await eventually(scanned)
        await insert_without_push(engine, 100)
        held = [await engine.enqueue("nothing", queue="other") for _ in range(2)]
        read = list[tuple[str, int]]()
        of_queue, above = rescue.orphans_of_queue, rescue.orphans_above_floor

        async def noted_queue(connection: Connection, queue: str, after: int) -> rescue.Orphans:
            read.append((queue, after))
            return await of_queue(connection, queue, after)

        async def noted_all(connection: Connection, after: int, before: int) -> rescue.Orphans:
            read.append(("all", after))
            return await above(connection, after, before)

        monkeypatch.setattr(rescue, "orphans_of_queue", noted_queue)
        monkeypatch.setattr(rescue, "orphans_above_floor", noted_all)
        async with engine.database.connection() as connection:
            dead = await attempts.register(connection, "dead", ["other"], 2)
            await connection.execute(
                "UPDATE jobs SET status = 'processing', worker_id = %s, attempts = 1 WHERE id = ANY(%s)", (dead, held)
            )

        async def rescued() -> bool:
            return scheduler.rescuer.rescued == 2

        await eventually(rescued)
        assert read[0] == ("other", 0)
        await eventually(scanned)
        assert next(after for name, after in read if name == "all") == 0
        assert len([name for name, _ in read if name == "all"]) >= 10


async def test_the_floor_rises_up_to_a_locked_row_and_past_it_when_it_is_free(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(floor, "WINDOW", 10)
    monkeypatch.setattr(floor, "CHUNK", 50)
    monkeypatch.setattr(floor, "TRIES", 1)
    ids = await insert_without_push(engine, 300)
    waiting, locked = ids[10], ids[120]
    done = "UPDATE jobs SET status = 'completed', finished_at = now() WHERE id <> ALL(%s)"
    await engine.execute(done, [waiting, locked])

    async def place() -> int:
        async with engine.database.connection() as connection:
            return await dispatch.floor(connection)

    async with engine.database.connection() as holder, holder.transaction():
        await holder.execute(LOCK, (locked,))
        await sweep(engine)
        assert await place() == locked
        assert await engine.rows("SELECT id FROM jobs WHERE dispatch_at IS NOT NULL") == [(waiting,)]
    await sweep(engine)
    assert await place() == ids[-1] + 1
    assert await ready_ids(engine) == {waiting, locked}


async def test_the_floor_rises_up_to_the_first_id_that_an_open_transaction_may_have_drawn(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strays, "STRAY_AGE", 0.0)
    monkeypatch.setattr(floor, "WINDOW", 10)
    draw = "INSERT INTO jobs (queue, type, payload) VALUES ('default', 'nothing', '{}') RETURNING id"
    async with engine.scheduler(reconcile_seconds=0.1) as scheduler:
        await engine.leads(scheduler)
        before = await insert_without_push(engine, 30)
        async with engine.database.connection() as writer, writer.transaction():
            [[drawn]] = await (await writer.execute(draw)).fetchall()
            await insert_without_push(engine, 30)
            await engine.execute("UPDATE jobs SET status = 'completed', finished_at = now()")

            async def risen() -> bool:
                async with engine.database.connection() as connection:
                    return bool(await dispatch.floor(connection) >= drawn)

            await eventually(risen)
            async with engine.database.connection() as connection:
                assert before[-1] < drawn == await dispatch.floor(connection)
        await eventually(lambda: ready_ids(engine))
        assert await ready_ids(engine) == {drawn}


async def test_the_floor_never_rises_above_the_next_id(engine: Engine) -> None:
    async with engine.database.connection() as connection:
        edge = await dispatch.boundary(connection)
        await dispatch.raise_floor(connection, edge.next_id + 1000)  # read on the server before a failover
        assert await dispatch.floor(connection) == edge.next_id


async def test_a_leader_whose_row_is_locked_steps_down_when_its_lease_is_over(engine: Engine) -> None:
    async with engine.scheduler() as scheduler:
        await engine.leads(scheduler)
        async with engine.database.connection() as holder, holder.transaction():
            await holder.execute("SELECT FROM leaders FOR UPDATE")

            async def stepped_down() -> bool:
                return not scheduler.leadership.leading

            await eventually(stepped_down, 10.0)
        await engine.leads(scheduler)
        async with engine.database.connection() as connection:
            assert await leaders.take(connection, "scheduler", "other", 60.0) is None


# --- transactions that stay open -------------------------------------------------------------------------------------


async def test_a_stray_is_found_within_seconds_while_another_transaction_is_open(engine: Engine) -> None:
    async with engine.scheduler() as scheduler:
        await engine.leads(scheduler)
        async with engine.database.connection() as idle, idle.transaction():
            draw = "INSERT INTO jobs (queue, type, payload) VALUES ('default', 'nothing', '{}') RETURNING id"
            [[mine]] = await (await idle.execute(draw)).fetchall()
            [stray] = await insert_without_push(engine)

            async def found() -> bool:
                return stray in await ready_ids(engine)

            await eventually(found, 6.0)
            assert scheduler.dispatcher.strays.settled == mine

        async def both_found() -> bool:
            return await ready_ids(engine) == {mine, stray}

        await eventually(both_found, 6.0)
        assert scheduler.dispatcher.strays.repaired == 2


async def test_a_retry_whose_commit_stalls_is_found_when_it_is_visible(engine: Engine) -> None:
    job_id = await engine.enqueue("nothing")
    await engine.service.close()
    async with engine.scheduler() as scheduler:
        await engine.leads(scheduler)
        await engine.broker.remove("default", job_id)  # a worker has it
        async with engine.database.connection() as writer, writer.transaction():
            await writer.execute("UPDATE jobs SET dispatch_at = now()")
            [[written]] = await (await writer.execute("SELECT dispatch_at FROM jobs")).fetchall()

            async def passed_by() -> bool:
                place = scheduler.dispatcher.due._place
                return place is not None and bool(place[0] > written + timedelta(seconds=1))

            await eventually(passed_by)
            assert await ready_ids(engine) == set()

        async def found() -> bool:
            return await ready_ids(engine) == {job_id}

        await eventually(found, 6.0)


async def test_jobs_that_their_enqueuer_pushed_are_no_strays(engine: Engine, counted: Any) -> None:
    async with engine.scheduler() as scheduler:
        await engine.leads(scheduler)
        ids = [await engine.enqueue("nothing") for _ in range(5)]
        [stray] = await insert_without_push(engine)

        async def found() -> bool:
            return await ready_ids(engine) == {*ids, stray} and scheduler.dispatcher.strays.repaired > 0

        await eventually(found)
        assert scheduler.dispatcher.strays.repaired == 1
        assert counted("goqueue_dispatched_jobs_total", sweep="stray") == 1


async def test_every_sweep_gives_a_job_the_score_that_its_enqueuer_gives_it(engine: Engine) -> None:
    made = datetime.now(UTC) - timedelta(days=1, microseconds=123)
    orders = [NewJob("default", "nothing", {}, priority=n, available_at=made) for n in (-100, -1, 0, 7, 100)]
    ids = [one.id for one in await engine.service.enqueue_many(orders)]
    await engine.execute("UPDATE jobs SET dispatch_at = NULL WHERE priority < 0")
    pushed = {
        id: ready_score(order.priority, int(made.timestamp() * 1000)) for id, order in zip(ids, orders, strict=True)
    }
    async with engine.database.connection() as connection:
        now = datetime.now(UTC)
        await connection.execute("UPDATE jobs SET dispatch_at = available_at WHERE priority >= 0")
        due = [job for job, _ in await dispatch.due(connection, (made - timedelta(days=1), 0), now)]
        recent = await dispatch.recent(connection, [(ids[0], ids[-1] + 1)])
        above = await dispatch.open_above_floor(connection, 0, ids[-1] + 1)
        await connection.execute("UPDATE dispatch_floor SET id = %s", (ids[-1] + 1,))
        listed = await dispatch.open_listed(connection, (made - timedelta(days=1), 0), now)
    for found, wanted in ((due, ids[2:]), (recent, ids), (above.ready, ids), (listed.ready, ids[2:])):
        assert {job.id: job.score for job in found} == {id: pushed[id] for id in wanted}
        assert [job.listed for job in sorted(found, key=lambda job: job.id)] == [id in ids[2:] for id in wanted]


# --- Redis, cron, counts ---------------------------------------------------------------------------------------------


async def test_a_first_installation_is_no_loss_of_redis_and_a_loss_is_one(engine: Engine, counted: Any) -> None:
    async with engine.scheduler() as scheduler:
        await engine.leads(scheduler)
        await eventually(lambda: engine.rows("SELECT FROM dispatch_floor WHERE id > 0"))
        assert not counted("goqueue_redis_losses_total")
        await engine.broker._redis.flushdb()
        await eventually(engine.broker.epoch)

    async def lost(times: int) -> bool:
        return bool(counted("goqueue_redis_losses_total") == times)

    assert await lost(1)
    await engine.broker._redis.flushdb()
    async with engine.scheduler() as scheduler:  # a new process, which did not see Redis as it was before
        await engine.leads(scheduler)
        await eventually(lambda: lost(2))


async def test_a_schedule_whose_unique_key_is_held_keeps_no_other_from_firing(engine: Engine) -> None:
    tick = datetime.now(UTC) - timedelta(seconds=5)
    template = {"queue": "default", "type": "nothing", "payload": {}}
    async with engine.database.connection() as connection:
        for number in range(6):
            held = template | {"unique_key": f"held-{number}"}
            await schedules.put(connection, f"a{number}", "0 0 1 1 *", "UTC", held, True, tick)
        await schedules.put(connection, "b", "0 0 1 1 *", "UTC", template, True, tick)

    async def fired(name: str) -> bool:
        return bool(await engine.rows("SELECT FROM schedules WHERE name = %s AND last_job_id IS NOT NULL", name))

    async with engine.database.connection() as holder, holder.transaction():
        for number in range(6):
            key = f"held-{number}"
            columns = "queue, type, payload, unique_key, active_key"
            insert = f"INSERT INTO jobs ({columns}) VALUES ('other', 'nothing', '{{}}', %s, %s)"  # noqa: S608 - no value is from outside
            await holder.execute(insert, (key, key))
        async with engine.scheduler():
            await eventually(lambda: fired("b"), 15.0)
            assert not await fired("a0")


async def test_a_count_that_fails_stops_neither_the_census_nor_the_other_count(
    engine: Engine, counted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from goqueue.store import queues

    async def broken(connection: Connection) -> Any:
        return await connection.execute("SELECT no_such_column FROM jobs")

    monkeypatch.setattr(queues, "open_counts", broken)
    async with engine.scheduler() as scheduler:

        async def failing() -> bool:
            return "counts" in scheduler.supervisor.failing

        await eventually(failing)

        async def shown() -> bool:
            return bool(counted("goqueue_queue_failed", queue="default") == 0)

        await eventually(shown)

        async def looked() -> bool:
            return bool(counted("goqueue_workers", state="active") == 0)

        await eventually(looked)
        assert "census" not in scheduler.supervisor.failing


async def test_every_duty_has_a_name_of_its_own_and_is_supervised(engine: Engine) -> None:
    async with engine.scheduler() as scheduler:
        names = [duty.name for duty in scheduler.duties]
        assert len(set(names)) == len(names)
        ticked = {name: asyncio.Event() for name in names}
        for duty in scheduler.duties:
            tick = duty.tick

            async def noted(tick: Any = tick, name: str = duty.name) -> float:
                ticked[name].set()
                return float(await tick())

            duty.tick = noted  # type: ignore[method-assign]
        async with asyncio.timeout(20):
            await asyncio.gather(*(event.wait() for event in ticked.values()))
        assert supervisor.PATIENCE > 60
