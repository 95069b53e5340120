"""The worker on real stores: how attempts begin, run and end."""

import asyncio
import sys
import threading
import time
from typing import Any

import pytest

import goqueue_worker.worker as module
from goqueue import JobContext, NeverRetry, RetryIn, RetryPolicy, Snooze
from goqueue.job import AttemptEnd, Outcome, ReadyJob
from goqueue.lifecycle import JobStatus
from goqueue.store import attempts
from tests.integration.engine import Engine, claim, eventually


async def test_a_job_runs_and_its_result_is_kept(engine: Engine) -> None:
    async def double(payload: Any, job: JobContext) -> dict[str, int]:
        return {"twice": payload.number * 2}

    engine.handle("double", double)
    async with engine.worker("w1"):
        job = await engine.until(await engine.enqueue("double", payload={"number": 21}), "completed")
    assert job.result == {"twice": 42}
    assert (job.attempts, job.error) == (1, None)
    assert job.created_at <= job.started_at <= job.finished_at  # type: ignore[operator]


async def test_a_sync_handler_runs_in_a_thread_and_blocks_nobody(engine: Engine) -> None:
    release = threading.Event()

    def wait(payload: Any, job: JobContext) -> str:
        assert release.wait(60)
        return threading.current_thread().name

    async def quick(payload: Any, job: JobContext) -> None: ...

    engine.handle("wait", wait)
    engine.handle("quick", quick)
    async with engine.worker():
        slow = await engine.enqueue("wait")
        await engine.until(slow, "processing")
        await engine.until(await engine.enqueue("quick"), "completed")
        release.set()
        assert (await engine.until(slow, "completed")).result.startswith("handler")


async def test_a_failing_job_is_tried_again_and_ends_in_failed_with_every_error_kept(engine: Engine) -> None:
    async def fail(payload: Any, job: JobContext) -> None:
        raise RuntimeError(f"attempt {job.attempt}")

    engine.handle("fail", fail)
    async with engine.worker(), engine.scheduler():
        job = await engine.until(await engine.enqueue("fail", max_retries=2), "failed")
    assert job.attempts == 3
    assert job.error == "RuntimeError: attempt 3"
    kept = await engine.rows("SELECT outcome, error FROM job_attempts WHERE job_id = %s ORDER BY finished_at", job.id)
    assert kept == [
        (outcome, f"RuntimeError: attempt {n}") for n, outcome in enumerate(("retried",) * 2 + ("failed",), 1)
    ]


async def test_zero_retries_means_one_attempt(engine: Engine) -> None:
    async def fail(payload: Any, job: JobContext) -> None:
        raise RuntimeError

    engine.handle("fail", fail)
    async with engine.worker():
        job = await engine.until(await engine.enqueue("fail", max_retries=0), "failed")
    assert job.attempts == 1


async def test_a_snoozed_job_runs_again_and_is_charged_no_attempt(engine: Engine) -> None:
    runs = 0

    async def later(payload: Any, job: JobContext) -> int:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise Snooze(0.05)
        return job.attempt

    engine.handle("later", later)
    async with engine.worker(), engine.scheduler():
        job = await engine.until(await engine.enqueue("later", max_retries=0), "completed")
    assert (job.attempts, job.result, job.error) == (1, 1, None)
    assert await engine.outcomes(job.id) == ["snoozed", "snoozed"]


async def test_a_handler_says_when_to_retry_and_that_it_must_not(engine: Engine) -> None:
    async def picky(payload: Any, job: JobContext) -> None:
        if job.attempt == 1:
            raise RetryIn(0.01, "busy")
        raise NeverRetry("hopeless")

    engine.handle("picky", picky, retry=RetryPolicy(base=3600))
    async with engine.worker(), engine.scheduler():
        job = await engine.until(await engine.enqueue("picky", max_retries=20), "failed")
    assert (job.attempts, job.error) == (2, "NeverRetry: hopeless")


async def test_a_job_that_takes_too_long_is_interrupted_and_charged(engine: Engine) -> None:
    async def hang(payload: Any, job: JobContext) -> None:
        await asyncio.Event().wait()

    engine.handle("hang", hang, timeout=0.2)
    async with engine.worker():
        job = await engine.until(await engine.enqueue("hang", max_retries=0), "failed")
    assert job.error == "timed out after 0.2 s"


async def test_the_jobs_own_timeout_goes_before_the_types(engine: Engine) -> None:
    async def hang(payload: Any, job: JobContext) -> None:
        await asyncio.Event().wait()

    engine.handle("hang", hang, timeout=3600)
    async with engine.worker():
        job = await engine.until(await engine.enqueue("hang", max_retries=0, timeout=0.1), "failed")
    assert job.error == "timed out after 0.1 s"


async def test_a_running_job_is_cancelled_within_a_second(engine: Engine) -> None:
    async def hang(payload: Any, job: JobContext) -> None:
        await asyncio.Event().wait()

    engine.handle("hang", hang)
    took: list[float] = []
    async with engine.worker():
        while len(took) < 20 and min(took, default=1.0) >= 1.0:  # other processes can only make it slower
            job_id = await engine.enqueue("hang")
            await engine.until(job_id, "processing")
            asked = time.monotonic()
            assert await engine.service.cancel(job_id) is JobStatus.PROCESSING
            await engine.until(job_id, "cancelled")
            took.append(time.monotonic() - asked)
    assert min(took) < 1.0, took


async def test_a_cancel_request_reaches_the_worker_even_if_redis_loses_the_message(engine: Engine) -> None:
    async def hang(payload: Any, job: JobContext) -> None:
        await asyncio.Event().wait()

    engine.handle("hang", hang)
    async with engine.worker():
        job_id = await engine.enqueue("hang")
        await engine.until(job_id, "processing")
        await engine.execute("UPDATE jobs SET cancel_requested_at = now() WHERE id = %s", job_id)
        await engine.until(job_id, "cancelled")


async def test_a_sync_handler_sees_that_it_was_cancelled(engine: Engine) -> None:
    saw = threading.Event()

    def watch(payload: Any, job: JobContext) -> None:
        deadline = time.monotonic() + 60
        while not job.cancelled and time.monotonic() < deadline:
            time.sleep(0.01)
        saw.set()

    engine.handle("watch", watch)
    async with engine.worker():
        job_id = await engine.enqueue("watch")
        await engine.until(job_id, "processing")
        await engine.service.cancel(job_id)
        await engine.until(job_id, "cancelled")
        assert await asyncio.to_thread(saw.wait, 60)


async def test_a_cancelled_waiting_job_never_runs(engine: Engine) -> None:
    ran: list[int] = []

    async def note(payload: Any, job: JobContext) -> None:
        ran.append(job.job_id)

    engine.handle("note", note)
    cancelled, other = await engine.enqueue("note"), await engine.enqueue("note")
    assert await engine.service.cancel(cancelled) is JobStatus.CANCELLED
    async with engine.worker():
        await engine.until(other, "completed")
    assert ran == [other]


async def test_sigterm_lets_running_jobs_finish(engine: Engine) -> None:
    go = asyncio.Event()

    async def finish(payload: Any, job: JobContext) -> str:
        await go.wait()
        return "done"

    engine.handle("finish", finish)
    async with engine.worker() as worker:
        job_id = await engine.enqueue("finish")
        await engine.until(job_id, "processing")
        worker.stop()
        go.set()
    assert (await engine.service.get(job_id)).status is JobStatus.COMPLETED
    assert await engine.rows("SELECT 1 FROM workers") == []


async def test_at_the_deadline_of_a_drain_jobs_go_back_uncharged(engine: Engine) -> None:
    async def hang(payload: Any, job: JobContext) -> None:
        await asyncio.Event().wait()

    engine.handle("hang", hang)
    async with engine.worker(grace_seconds=0.2) as worker:
        job_id = await engine.enqueue("hang", max_retries=0)
        await engine.until(job_id, "processing")
        worker.stop()
    job = await engine.service.get(job_id)
    assert (job.status, job.attempts) == (JobStatus.PENDING, 0)
    assert await engine.outcomes(job_id) == ["handed_back"]


async def test_a_drained_job_is_run_by_the_next_worker_at_once(engine: Engine) -> None:
    go = asyncio.Event()

    async def wait(payload: Any, job: JobContext) -> int:
        await go.wait()
        return job.attempt

    engine.handle("wait", wait)
    async with engine.scheduler():
        async with engine.worker("first", grace_seconds=0.1) as worker:
            job_id = await engine.enqueue("wait", max_retries=0)
            await engine.until(job_id, "processing")
            worker.stop()
        go.set()
        async with engine.worker("second"):
            assert (await engine.until(job_id, "completed", seconds=3)).result == 1


@pytest.mark.parametrize(
    ("result", "error"),
    [({1, 2}, "not JSON"), ("x" * 300_000, "larger than"), ("a\0b", "NUL"), ({"k": ["\0"]}, "NUL")],
)
async def test_a_result_that_cannot_be_stored_fails_the_job_and_nobody_elses(
    engine: Engine, result: Any, error: str
) -> None:
    async def give(payload: Any, job: JobContext) -> Any:
        return result if payload.bad else "fine"

    engine.handle("give", give)
    bad = await engine.enqueue("give", payload={"bad": True})
    good = [await engine.enqueue("give", payload={"bad": False}) for _ in range(5)]
    async with engine.worker():
        assert error in ((await engine.until(bad, "failed")).error or "")
        for job_id in good:
            await engine.until(job_id, "completed")


async def test_a_handler_that_exits_does_not_take_the_worker_with_it(engine: Engine) -> None:
    async def leave(payload: Any, job: JobContext) -> None:
        raise SystemExit(3)

    async def quick(payload: Any, job: JobContext) -> None: ...

    engine.handle("leave", leave)
    engine.handle("quick", quick)
    async with engine.worker():
        assert (await engine.until(await engine.enqueue("leave", max_retries=0), "failed")).error == "SystemExit: 3"
        await engine.until(await engine.enqueue("quick"), "completed")


async def test_progress_and_log_lines_are_stored_while_the_job_runs(engine: Engine) -> None:
    go = asyncio.Event()

    async def report(payload: Any, job: JobContext) -> None:
        job.progress(0.5)
        job.log("half way")
        job.log("odd\0", "warning")
        await go.wait()

    engine.handle("report", report)
    async with engine.worker():
        job_id = await engine.enqueue("report")

        async def half() -> bool:
            return (await engine.service.get(job_id)).progress == 0.5

        async def lines() -> list[Any]:  # written after the progress
            return await engine.rows("SELECT level, message FROM job_logs WHERE job_id = %s ORDER BY id", job_id)

        await eventually(half)
        assert await eventually(lines) == [("info", "half way"), ("warning", "odd\ufffd")]
        go.set()
        await engine.until(job_id, "completed")
    assert len(await lines()) == 2


async def test_a_worker_that_ends_waits_for_the_log_lines_that_are_being_written(engine: Engine) -> None:
    go = asyncio.Event()

    async def report(payload: Any, job: JobContext) -> None:
        job.log("half way")
        await go.wait()

    async def given_up() -> None:
        while await engine.lock_awaited():  # noqa: ASYNC110 - PostgreSQL has no event for it
            await asyncio.sleep(0.01)

    engine.handle("report", report)
    async with engine.worker() as worker:
        job_id = await engine.enqueue("report")
        async with engine.database.connection() as connection, connection.transaction():
            await connection.execute("LOCK TABLE job_logs IN EXCLUSIVE MODE")
            await eventually(engine.lock_awaited)
            worker.stop()
            go.set()
            await engine.until(job_id, "completed")
            # A worker that does not wait for them gives them up within that time.
            done, _ = await asyncio.wait([asyncio.create_task(given_up())], timeout=0.5)
            assert not done
    assert await engine.rows("SELECT message FROM job_logs WHERE job_id = %s", job_id) == [("half way",)]


async def test_an_id_that_stands_in_redis_twice_runs_once(engine: Engine) -> None:
    runs: list[int] = []

    async def note(payload: Any, job: JobContext) -> None:
        runs.append(job.job_id)

    engine.handle("note", note)
    async with engine.worker():
        job_id = await engine.enqueue("note")
        await engine.until(job_id, "completed")
        await engine.broker.push([ReadyJob(job_id, "default", 1.0)])
        await engine.until(await engine.enqueue("note"), "completed")
    assert runs.count(job_id) == 1


async def test_a_higher_priority_runs_first_and_equals_run_in_order(engine: Engine) -> None:
    order: list[str] = []

    async def note(payload: Any, job: JobContext) -> None:
        order.append(payload.name)

    engine.handle("note", note)
    for name, priority in (("low", -5), ("first", 0), ("second", 0), ("high", 7)):
        last = await engine.enqueue("note", payload={"name": name}, priority=priority)
        await engine.service.close()
    async with engine.worker(concurrency=1):
        await engine.until(last, "completed")

        async def all_done() -> bool:
            return len(order) == 4

        await eventually(all_done)
    assert order == ["high", "first", "second", "low"]


async def test_a_paused_queue_is_not_served_until_it_is_resumed(engine: Engine) -> None:
    async def quick(payload: Any, job: JobContext) -> None: ...

    engine.handle("quick", quick)
    async with engine.worker() as worker:
        await engine.service.pause("other")

        async def knows() -> bool:
            return bool(worker._requests.paused == {"other"})

        await eventually(knows)
        # One fetch that began before the pause may still be out; let it come back empty.
        seen = worker.hearing.fetched_at

        async def came_round() -> bool:
            return worker.hearing.fetched_at > seen

        await eventually(came_round)
        waiting = await engine.enqueue("quick", queue="other")
        await engine.until(await engine.enqueue("quick"), "completed")
        assert (await engine.service.get(waiting)).status is JobStatus.PENDING
        await engine.service.resume("other")
        await engine.until(waiting, "completed")


async def test_a_worker_that_lost_its_lease_cannot_write(engine: Engine) -> None:
    job_id = await engine.enqueue("anything")
    async with engine.database.connection() as connection:
        zombie = await attempts.register(connection, "zombie", ["default"], 1)
        heir = await attempts.register(connection, "heir", ["default"], 1)
        (old,) = await claim(connection, zombie, [job_id])
        await engine.execute("UPDATE jobs SET status = 'pending', dispatch_at = now() WHERE id = %s", job_id)
        (new,) = await claim(connection, heir, [job_id])
        late = AttemptEnd(job_id, old.lease, Outcome.COMPLETED, result='"late"')
        failed = AttemptEnd(job_id, old.lease, Outcome.FAILED, error="late")
        assert await attempts.complete(connection, [late]) == set()
        assert await attempts.end_otherwise(connection, [failed]) == set()
        mine = AttemptEnd(job_id, new.lease, Outcome.COMPLETED, result='"mine"')
        assert await attempts.complete(connection, [mine]) == {job_id}
    job = await engine.service.get(job_id)
    assert (job.status, job.result, await engine.outcomes(job_id)) == (JobStatus.COMPLETED, "mine", [])


async def test_a_worker_that_was_declared_dead_stops_its_jobs_and_registers_anew(engine: Engine) -> None:
    interrupted = asyncio.Event()

    async def hang(payload: Any, job: JobContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            interrupted.set()

    engine.handle("hang", hang)
    async with engine.worker(grace_seconds=0.1) as worker:
        job_id = await engine.enqueue("hang")
        await engine.until(job_id, "processing")
        was = worker._membership.worker_id
        await engine.execute("DELETE FROM workers")
        async with asyncio.timeout(60):
            await interrupted.wait()

        async def anew() -> bool:
            return worker._membership.worker_id not in (None, was)

        await eventually(anew)


async def test_a_handler_that_blocks_the_event_loop_does_not_cost_the_worker_its_lease(engine: Engine) -> None:
    async def block(payload: Any, job: JobContext) -> str:
        time.sleep(5)  # noqa: ASYNC251 - the mistake under test; longer than the lease
        return "done"

    engine.settings.lease_seconds = 3.0  # a busy machine may keep a heartbeat waiting
    engine.handle("block", block)
    with engine.scheduler_in_thread():
        async with engine.worker():
            job = await engine.until(await engine.enqueue("block"), "completed")
    assert (job.attempts, await engine.outcomes(job.id)) == (1, [])


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks begin with the next turn, all of them")
async def test_jobs_that_never_wait_leave_the_event_loop_its_turns_and_are_not_handed_back(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK", 0.01)
    seen: list[int] = []
    turns = 0

    async def busy(payload: Any, job: JobContext) -> None:
        time.sleep(2 * module.SLICE)  # noqa: ASYNC251 - the handler's own work
        seen.append(turns)

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    engine.handle("busy", busy)
    ids = [await engine.enqueue("busy") for _ in range(50)]
    turning = asyncio.create_task(turn())
    async with engine.worker(concurrency=100):
        for job_id in ids:
            await engine.until(job_id, "completed")
    turning.cancel()
    assert len(set(seen)) == len(seen) == 50
    assert [await engine.outcomes(job_id) for job_id in ids] == [[]] * 50


async def test_a_handler_that_logs_in_a_loop_keeps_so_many_lines_and_says_how_many_were_dropped(engine: Engine) -> None:
    async def chat(payload: Any, job: JobContext) -> None:
        for number in range(500):
            job.log(f"line {number}")

    engine.handle("chat", chat)
    async with engine.worker(log_lines=20):
        job_id = await engine.enqueue("chat")
        await engine.until(job_id, "completed")

    lines = [line["message"] for line in await engine.service.logs(job_id, 0, 1000)]
    assert lines == [*(f"line {number}" for number in range(20)), "480 log lines dropped"]
