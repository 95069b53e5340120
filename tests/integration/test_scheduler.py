"""The leader's duties on real stores: nothing that waits is forgotten, nobody alive is rescued."""

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from goqueue import JobContext, metrics
from goqueue.access import Actor
from goqueue.errors import BrokerUnavailable
from goqueue.job import NewJob
from goqueue.lifecycle import JobStatus
from goqueue.settings import SchedulerSettings
from goqueue.store import attempts, audit, dispatch, enqueue, schedules, sql
from goqueue.store.audit import Action
from goqueue.store.connect import Connection
from goqueue.store.enqueue import columns
from goqueue_scheduler import floor, reconciler, rescuer, strays
from goqueue_scheduler.scheduler import Scheduler
from tests.integration.engine import Engine, claim, eventually


async def nothing(payload: Any, job: JobContext) -> None: ...


@pytest.fixture(autouse=True)
def types(engine: Engine) -> None:
    engine.handle("nothing", nothing)


async def insert_without_push(engine: Engine, count: int = 1, owed: bool = False) -> list[int]:
    """Jobs as an enqueuer leaves them that dies between commit and push."""
    async with engine.database.connection() as connection:
        orders = [NewJob("default", "nothing", {})] * count
        cursor = await connection.execute(sql.INSERT_PLAIN, columns(orders, owed))
        return sorted(row[0] for row in await cursor.fetchall())


async def claim_by_dead_worker(engine: Engine, job_id: int, name: str = "dead") -> None:
    async with engine.database.connection() as connection:
        worker_id = await attempts.register(connection, name, ["default"], 1)
        assert await claim(connection, worker_id, [job_id])


async def ready_ids(engine: Engine, queue: str = "default") -> set[int]:
    members = await engine.broker._redis.zrange(engine.broker._ready(queue), 0, -1)
    return {int(member) for member in members}


async def sweep(engine: Engine) -> Scheduler:
    """One scan for orphans and one walk, as a new leader makes them, and the rise of the floor after them."""
    scheduler = Scheduler(engine.database, engine.broker, SchedulerSettings(), engine.settings, engine.registry)
    for duty in (scheduler.dispatcher, scheduler.rescuer, scheduler.reconciler):
        duty.begin()
    while await scheduler.rescuer.tick() < rescuer.TICK:
        pass
    while await scheduler.dispatcher.tick() == 0.0:
        pass
    while await scheduler.reconciler.tick() != reconciler.TICK:
        pass
    return scheduler


async def test_a_scheduled_job_runs_when_its_time_comes_and_not_before(engine: Engine) -> None:
    async with engine.worker(), engine.scheduler() as scheduler:
        await engine.leads(scheduler)
        times = [datetime.now(UTC) + timedelta(seconds=seconds) for seconds in (1, 2, 3, 4, 5)]
        ids = [await engine.enqueue("nothing", available_at=due) for due in times]
        jobs = [await engine.until(job_id, "completed") for job_id in ids]
    late = [job.started_at - due for job, due in zip(jobs, times, strict=True) if job.started_at is not None]
    assert len(late) == len(times)
    assert timedelta(0) <= min(late) < timedelta(seconds=1), late  # other processes can only make it slower


async def test_a_job_committed_but_never_pushed_is_found_within_seconds(engine: Engine) -> None:
    async with engine.worker(), engine.scheduler() as scheduler:
        await engine.leads(scheduler)
        (job_id,) = await insert_without_push(engine)
        await engine.until(job_id, "completed")

        async def counted() -> bool:  # after the push, of which the worker may hear first
            return scheduler.dispatcher.strays.repaired > 0

        await eventually(counted)
        assert scheduler.dispatcher.strays.repaired == 1


async def test_of_bulks_that_were_pushed_the_sweep_reads_only_what_lies_between_them(engine: Engine) -> None:
    async with engine.scheduler() as scheduler:
        await engine.leads(scheduler)
        bulk = [NewJob("default", "nothing", {})] * 1500
        first = await engine.service.enqueue_many(bulk)
        (lost,) = await insert_without_push(engine)
        last = await engine.service.enqueue_many(bulk)
        await engine.service.close()
        # Were its row read, the sweep would push it again; what Redis loses later is reconciliation's business.
        await engine.broker.remove("default", first[700].id)

        async def found() -> bool:
            return lost in await ready_ids(engine) and not await engine.broker.noted(0)

        await eventually(found)
        assert scheduler.dispatcher.strays.repaired == 1
        assert await ready_ids(engine) == {lost, *(one.id for one in first + last)} - {first[700].id}


async def test_a_job_owed_by_a_callers_transaction_is_pushed_at_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strays, "STRAY_AGE", 3600.0)  # so that only the sweep of each tick can find it
    async with engine.worker(), engine.scheduler() as scheduler:
        await engine.leads(scheduler)
        (job_id,) = await insert_without_push(engine, owed=True)
        await engine.until(job_id, "completed")


async def test_more_jobs_than_a_chunk_that_are_due_at_the_same_moment_are_all_pushed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "CHUNK", 10)
    async with engine.scheduler() as scheduler:
        await engine.leads(scheduler)
        due = datetime.now(UTC) + timedelta(seconds=1)
        made = await engine.service.enqueue_many([NewJob("default", "nothing", {}, available_at=due)] * 35)

        async def all_there() -> bool:
            return await ready_ids(engine) == {one.id for one in made}

        await eventually(all_there)
        assert scheduler.dispatcher.strays.repaired == 0


async def test_after_redis_lost_everything_every_waiting_job_is_pushed_anew(engine: Engine) -> None:
    async with engine.scheduler() as scheduler:
        # Before that it would find the loss only as what a new leader finds anyway, or not until the next minute.
        await engine.leads(scheduler)
        ids = [await engine.enqueue("nothing") for _ in range(50)]
        later = await engine.enqueue("nothing", available_at=datetime.now(UTC) + timedelta(hours=1))
        await engine.service.close()
        await engine.broker._redis.flushdb()

        async def all_back() -> bool:
            return await ready_ids(engine) == set(ids)

        await eventually(all_back)
        assert later not in await ready_ids(engine)


async def test_a_redis_that_loses_everything_while_it_is_filled_anew_is_filled_once_more(engine: Engine) -> None:
    async with engine.scheduler() as scheduler:
        await engine.leads(scheduler)
        ids = [await engine.enqueue("nothing") for _ in range(5)]
        await engine.service.close()
        finish, lost = scheduler.reconciler._finish, [True, True]

        async def lose_and_finish(connection: Connection) -> None:
            if lost:
                lost.pop()
                await engine.broker._redis.flushdb()
            await finish(connection)

        scheduler.reconciler._finish = lose_and_finish  # type: ignore[method-assign]
        await engine.broker._redis.flushdb()

        async def all_back() -> bool:
            return not lost and await engine.broker.epoch() is not None and await ready_ids(engine) == set(ids)

        await eventually(all_back)


async def test_a_walk_that_is_interrupted_goes_on_where_it_was(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "CHUNK", 10)
    ids = await insert_without_push(engine, 35)
    read, calls = dispatch.open_above_floor, list[int]()

    async def fails_once(connection: Connection, after: int, before: int, limit: int) -> dispatch.OpenJobs:
        calls.append(after)
        if len(calls) == 2:
            raise BrokerUnavailable("redis is unavailable")
        return await read(connection, after, before, limit)

    monkeypatch.setattr(dispatch, "open_above_floor", fails_once)
    async with engine.scheduler():

        async def all_there() -> bool:
            return await ready_ids(engine) == set(ids)

        await eventually(all_there)
        await eventually(engine.broker.epoch)
    assert calls == [0, ids[9], ids[9], ids[19], ids[29]]


async def test_the_job_of_a_silent_worker_runs_again_elsewhere(engine: Engine) -> None:
    job_id = await engine.enqueue("nothing")
    await claim_by_dead_worker(engine, job_id)
    async with engine.scheduler(), engine.worker("heir"):
        job = await engine.until(job_id, "completed")
    assert job.attempts == 1  # the death of its worker charges none
    assert await engine.outcomes(job_id) == ["rescued"]
    assert await engine.rows("SELECT deaths FROM jobs") == [(1,)]


@pytest.mark.parametrize("max_retries", [0, 1])
async def test_deaths_of_workers_charge_no_attempt_before_the_third(engine: Engine, max_retries: int) -> None:
    job_id = await engine.enqueue("nothing", max_retries=max_retries)
    seen = []
    for number in range(3 + max_retries):
        await engine.execute("UPDATE jobs SET available_at = now(), dispatch_at = now()")
        await claim_by_dead_worker(engine, job_id, f"dead {number}")
        await engine.execute("DELETE FROM workers")
        await sweep(engine)
        job = await engine.service.get(job_id)
        seen.append((job.status.value, job.attempts))
    uncharged = [("pending", 0)] * 2
    assert seen == [*uncharged, *[("pending", count + 1) for count in range(max_retries)], ("failed", max_retries + 1)]
    assert (await engine.service.get(job_id)).error == "its worker died"
    assert await engine.outcomes(job_id) == ["rescued"] * (3 + max_retries)


async def test_a_job_that_was_to_be_cancelled_when_its_worker_died_is_cancelled(engine: Engine) -> None:
    job_id = await engine.enqueue("nothing")
    await claim_by_dead_worker(engine, job_id)
    assert await engine.service.cancel(job_id) is JobStatus.PROCESSING
    async with engine.scheduler():
        await engine.until(job_id, "cancelled")


async def test_a_living_worker_is_not_rescued_however_long_its_job_runs(engine: Engine) -> None:
    go = asyncio.Event()

    async def long(payload: Any, job: JobContext) -> None:
        await go.wait()

    engine.handle("long", long, timeout=60)
    engine.settings.lease_seconds = 3.0  # a busy machine may keep a heartbeat waiting
    async with engine.scheduler() as scheduler, engine.worker():
        job_id = await engine.enqueue("long")
        await engine.until(job_id, "processing")

        async def two_leases() -> bool:
            rows = await engine.rows("SELECT now() - started_at > interval '6 seconds' FROM jobs WHERE id = %s", job_id)
            return bool(rows[0][0])

        await eventually(two_leases)
        go.set()
        job = await engine.until(job_id, "completed")
        assert (job.attempts, scheduler.watcher.buried, scheduler.rescuer.rescued) == (1, 0, 0)


async def test_a_job_set_to_processing_by_an_external_worker_is_nobodys_to_rescue(engine: Engine) -> None:
    job_id = await engine.enqueue("nothing")
    await engine.service.set_status(job_id, JobStatus.PROCESSING)
    await sweep(engine)
    assert (await engine.service.get(job_id)).status is JobStatus.PROCESSING


async def test_the_floor_rises_over_final_jobs_and_loses_no_open_one(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await insert_without_push(engine, 300)
    waiting, running, lost = ids[0], ids[1], ids[2]
    await engine.execute(
        "UPDATE jobs SET status = 'completed', finished_at = now() WHERE id <> ALL(%s)", [waiting, running, lost]
    )
    await claim_by_dead_worker(engine, running, "alive")
    monkeypatch.setattr(floor, "WINDOW", 10)
    await sweep(engine)
    async with engine.database.connection() as connection:
        assert await dispatch.floor(connection) > ids[-1]
    # Below the floor now; every way of finding open jobs must still see them.
    await engine.execute("DELETE FROM workers")
    await engine.broker._redis.flushdb()
    scheduler = await sweep(engine)
    assert scheduler.rescuer.rescued == 1
    await engine.execute("UPDATE jobs SET dispatch_at = now() WHERE dispatch_at > now()")
    await sweep(engine)
    assert await ready_ids(engine) == {waiting, running, lost}
    from goqueue.job import JobFilter

    assert {job.id for job in await engine.service.find(JobFilter(status=JobStatus.PENDING))} == {
        waiting,
        running,
        lost,
    }


async def test_the_floor_waits_for_a_transaction_that_has_drawn_an_id(engine: Engine) -> None:
    async with engine.database.connection() as writer, writer.transaction():
        cursor = await writer.execute(sql.INSERT_PLAIN, columns([NewJob("default", "nothing", {})], False))
        ((job_id, *_),) = await cursor.fetchall()
        await sweep(engine)
        async with engine.database.connection() as connection:
            assert await dispatch.floor(connection) <= job_id
    await sweep(engine)
    assert await ready_ids(engine) == {job_id}


async def test_a_reader_with_an_old_snapshot_holds_up_no_sweep(engine: Engine) -> None:
    async with engine.database.connection() as reader, reader.transaction():
        await reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await reader.execute("SELECT count(*) FROM jobs")
        async with engine.database.connection() as connection:
            assert await dispatch.settled(connection, await dispatch.boundary(connection))


async def test_of_many_schedulers_one_leads_and_another_takes_over(engine: Engine) -> None:
    async with AsyncExitStack() as both:
        async with engine.scheduler() as first:
            await engine.leads(first)
            second = await both.enter_async_context(engine.scheduler())

            asked = set()

            async def asked_and_was_answered() -> bool:  # the time of its beginning, of its first try and of its next
                asked.add(second.leadership.asked_at)
                return len(asked) >= 3

            await eventually(asked_and_was_answered)
            assert first.leadership.leading
            assert not second.leadership.leading
        await engine.leads(second)


async def test_each_tick_of_a_schedule_makes_one_job_whoever_leads(engine: Engine) -> None:
    template = {"queue": "default", "type": "nothing", "payload": {}}
    tick = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=30)
    async with engine.database.connection() as connection:
        await schedules.put(connection, "each-minute", "* * * * *", "UTC", template, True, tick)
    async with engine.scheduler(), engine.scheduler():

        async def fired() -> bool:
            return bool(await engine.rows("SELECT 1 FROM schedules WHERE last_job_id IS NOT NULL"))

        await eventually(fired)
    # A leader that died between enqueue and note would fire the same tick again: it finds the first job.
    (first,) = await engine.rows("SELECT last_job_id, source FROM schedules, jobs WHERE jobs.id = last_job_id")
    await engine.execute("UPDATE schedules SET next_tick = last_tick, last_job_id = NULL")
    async with engine.scheduler():
        await eventually(fired)
    keys = await engine.rows("SELECT source_key, count(*) FROM jobs GROUP BY 1")
    assert all(count == 1 for _, count in keys)
    assert (await engine.rows("SELECT last_job_id FROM schedules")) >= [(first[0],)]
    assert first[1] == "schedule"


async def test_a_schedule_that_this_scheduler_cannot_evaluate_stops_no_other_and_stays_due(engine: Engine) -> None:
    template = {"queue": "default", "type": "nothing", "payload": {}}
    tick = datetime.now(UTC) - timedelta(seconds=5)
    async with engine.database.connection() as connection:
        for name, before in (("bad", 2), ("good", 1)):
            at = tick - timedelta(seconds=before)
            await schedules.put(connection, name, "0 0 1 1 *", "UTC", template, True, at)
        await connection.execute("UPDATE schedules SET time_zone = 'Mars/Olympus' WHERE name = 'bad'")
    async with engine.scheduler() as scheduler:

        async def good_fired() -> bool:
            return bool(await engine.rows("SELECT FROM schedules WHERE name = 'good' AND last_job_id IS NOT NULL"))

        await eventually(good_fired)
        await engine.leads(scheduler)
    assert await engine.rows("SELECT name FROM schedules WHERE next_tick <= now()") == [("bad",)]


async def test_a_schedule_whose_unique_key_is_held_keeps_no_other_from_firing_and_stays_due(engine: Engine) -> None:
    tick = datetime.now(UTC) - timedelta(seconds=5)
    template = {"queue": "default", "type": "nothing", "payload": {}}
    async with engine.database.connection() as connection:
        for n in range(3):
            held = {**template, "unique_key": f"held {n}"}
            await schedules.put(connection, f"a{n}", "0 0 1 1 *", "UTC", held, True, tick)
        await schedules.put(connection, "b", "0 0 1 1 *", "UTC", template, True, tick)

    async def fired(*names: str) -> bool:
        rows = await engine.rows("SELECT name FROM schedules WHERE last_job_id IS NOT NULL")
        return {name for (name,) in rows} >= set(names)

    async with engine.scheduler():
        async with engine.database.connection() as connection, connection.transaction(force_rollback=True):
            await enqueue.insert(connection, [NewJob("default", "t", {}, unique_key=f"held {n}") for n in range(3)])
            await eventually(lambda: fired("b"))
            assert not await fired("a0")
        await eventually(lambda: fired("a0", "a1", "a2", "b"))
    assert await engine.rows("SELECT count(*) FROM jobs") == [(4,)]


async def test_a_schedule_whose_template_went_bad_does_not_stop_the_others(engine: Engine) -> None:
    tick = datetime.now(UTC) - timedelta(seconds=5)
    async with engine.database.connection() as connection:
        yearly = "0 0 1 1 *"  # and not each minute, which may be over at any moment of this test
        await schedules.put(connection, "bad", yearly, "UTC", {"queue": "gone", "payload": {}}, True, tick)
        good = {"queue": "default", "type": "nothing", "payload": {}}
        await schedules.put(connection, "good", yearly, "UTC", good, True, tick)
    async with engine.scheduler():

        async def both_advanced() -> bool:
            rows = await engine.rows("SELECT next_tick > now() FROM schedules")
            return rows == [(True,), (True,)]

        await eventually(both_advanced)
    assert len(await engine.rows("SELECT 1 FROM jobs")) == 1


async def test_retention_deletes_final_jobs_past_their_age_and_nothing_else(engine: Engine) -> None:
    from goqueue_scheduler.pruner import Pruner

    old, young, failed, waiting = await insert_without_push(engine, 4)
    await engine.execute("UPDATE jobs SET created_at = now() - interval '10 days'")
    done = "UPDATE jobs SET status = %s, finished_at = now() - %s::interval WHERE id = %s"
    await engine.execute(done, "completed", "8 days", old)
    await engine.execute(done, "completed", "1 day", young)
    await engine.execute(done, "failed", "8 days", failed)
    day = 86400.0
    assert (await Pruner(engine.database, 7 * day, 30 * day, 365 * day).walk())["jobs"] == 1
    assert {row[0] for row in await engine.rows("SELECT id FROM jobs")} == {young, failed, waiting}


async def test_retention_deletes_old_entries_of_the_audit_log(engine: Engine) -> None:
    from goqueue_scheduler.pruner import Pruner

    async with engine.database.connection() as connection:
        for queue in ("old", "young"):
            await audit.record(connection, Actor("test"), Action.QUEUE_PAUSED, queue)
    await engine.execute("UPDATE audit_log SET at = now() - interval '2 days' WHERE object = 'old'")
    assert (await Pruner(engine.database, 1.0, 1.0, 86_400.0).walk())["audit_log"] == 1
    assert await engine.rows("SELECT object FROM audit_log") == [("young",)]


async def test_a_schedules_job_belongs_to_the_tenant_of_the_schedule(engine: Engine) -> None:
    job = {"queue": "default", "type": "nothing", "payload": {}}
    due = datetime.now(UTC) - timedelta(seconds=1)
    async with engine.database.connection() as connection:
        for tenant in ("acme", None):
            await schedules.put(connection, "same", "* * * * *", "UTC", job, True, due, tenant=tenant)

    async def both_fired() -> bool:
        return len(await engine.rows("SELECT 1 FROM jobs")) == 2

    async with engine.scheduler():
        await eventually(both_fired)
    assert {row[0] for row in await engine.rows("SELECT tenant FROM jobs")} == {"acme", None}


async def test_a_redis_that_is_empty_as_no_job_was_ever_made_is_no_loss(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[int] = []
    monkeypatch.setattr(metrics.REDIS_LOSSES, "inc", lambda: losses.append(1))
    await engine.execute("ALTER SEQUENCE jobs_id_seq RESTART")

    async def marked() -> bool:
        return await engine.broker.epoch() is not None

    async with engine.scheduler():
        await eventually(marked)
    assert losses == []
    await engine.enqueue("t")
    await engine.broker._redis.flushdb()
    async with engine.scheduler():
        await eventually(marked)
    assert losses == [1]
