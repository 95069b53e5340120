"""What a job shows of its attempts: the last progress, and to which round of attempts each belongs."""

import asyncio
from typing import Any

import pytest

from goqueue import JobContext, NeverRetry, Snooze
from goqueue.job import AttemptEnd, LogLine, Outcome
from goqueue.store import attempts
from tests.integration.console import Console
from tests.integration.engine import Engine, claim

LONG = 3600.0
"""Seconds between two writes of progress, so that only the end of an attempt can have written it."""


@pytest.fixture(autouse=True)
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("goqueue_worker.reports.FLUSH_SECONDS", LONG)


async def test_the_last_progress_is_kept_with_the_end_of_the_job(engine: Engine) -> None:
    async def work(payload: Any, job: JobContext) -> str:
        job.progress(0.25)
        await asyncio.sleep(0)
        job.progress(1.0)
        return "done"

    def fail(payload: Any, job: JobContext) -> None:
        job.progress(0.75)
        raise NeverRetry("no")

    async def silent(payload: Any, job: JobContext) -> None: ...

    engine.handle("work", work)
    engine.handle("fail", fail)
    engine.handle("silent", silent)
    ids = [await engine.enqueue(name) for name in ("work", "silent", "fail", "work", "silent")]
    async with engine.worker():
        jobs = [await engine.until(job_id, "completed", "failed") for job_id in ids]
    assert [(job.status, job.progress) for job in jobs] == [
        ("completed", 1.0),
        ("completed", None),
        ("failed", 0.75),
        ("completed", 1.0),
        ("completed", None),
    ]
    assert [job.result for job in jobs] == ["done", None, None, "done", None]


async def test_an_attempt_begins_without_the_progress_of_the_one_before(engine: Engine) -> None:
    seen: list[float | None] = []

    async def work(payload: Any, job: JobContext) -> None:
        seen.append((await engine.service.get(job.job_id)).progress)
        if len(seen) == 1:
            job.progress(0.5)
            raise RuntimeError("once more")
        if len(seen) == 2:
            job.progress(0.6)
            raise Snooze(0)

    engine.handle("work", work)
    async with engine.worker(), engine.scheduler():
        job = await engine.until(await engine.enqueue("work"), "completed")
    assert seen == [None, None, None]
    assert job.progress is None


async def test_a_cancelled_job_keeps_what_it_reported_and_a_rescued_one_starts_at_none(engine: Engine) -> None:
    async def work(payload: Any, job: JobContext) -> None:
        job.progress(0.4)
        await asyncio.Event().wait()

    engine.handle("work", work)
    async with engine.worker():
        job_id = await engine.enqueue("work")
        await engine.until(job_id, "processing")
        await engine.service.cancel(job_id)
        assert (await engine.until(job_id, "cancelled")).progress == 0.4
    lost = await engine.enqueue("work")
    async with engine.database.connection() as connection:
        worker = await attempts.register(connection, "w", ["default"], 1)
        [claimed] = await claim(connection, worker, [lost])
        await attempts.save_progress(connection, [(lost, claimed.lease, 0.9)])
        await attempts.deregister(connection, worker)
    async with engine.scheduler():
        assert (await engine.until(lost, "pending")).progress is None


async def test_a_batch_with_and_without_progress_is_written_in_one_statement(engine: Engine) -> None:
    ids = [await engine.enqueue("any") for _ in range(4)]
    async with engine.database.connection() as connection:
        worker = await attempts.register(connection, "w", ["default"], 4)
        claimed = await claim(connection, worker, ids)
        await attempts.save_progress(connection, [(ids[1], claimed[1].lease, 0.5)])
        ends = [
            AttemptEnd(job.id, job.lease, Outcome.COMPLETED, result=f'"{job.id}"', progress=progress)
            for job, progress in zip(sorted(claimed, key=lambda job: job.id), (0.125, None, 1e-7, None), strict=True)
        ]
        assert await attempts.complete(connection, ends) == set(ids)
    jobs = [await engine.service.get(job_id) for job_id in ids]
    assert [job.progress for job in jobs] == [0.125, 0.5, pytest.approx(1e-7), None]
    assert [job.result for job in jobs] == [str(job_id) for job_id in ids]


async def test_attempts_and_log_lines_tell_the_rounds_that_retries_by_hand_begin(
    engine: Engine, goqueue: Console
) -> None:
    fails = True

    async def work(payload: Any, job: JobContext) -> None:
        job.log(f"attempt {job.attempt}")
        if fails:
            raise RuntimeError("no")

    engine.handle("work", work)
    async with engine.worker(), engine.scheduler():
        job_id = await engine.enqueue("work", max_retries=1)
        await engine.until(job_id, "failed")
        await engine.service.retry(job_id)
        assert (await engine.until(job_id, "failed")).attempts == 2
        fails = False
        await engine.service.retry(job_id)
        assert (await engine.until(job_id, "completed")).attempts == 1
    (page, lines), ended = await engine.service.history(job_id), await engine.service.attempts(job_id)
    assert page.attempts == ended
    assert [(one.round, one.attempt, one.outcome) for one in ended] == [
        (1, 1, "retried"),
        (1, 2, "failed"),
        (2, 1, "retried"),
        (2, 2, "failed"),
        (3, 1, "completed"),
    ]
    assert [(line["attempt"], line["message"]) for line in lines] == [
        (attempt, f"attempt {attempt}") for attempt in (1, 2, 1, 2, 1)
    ]
    shown = await goqueue("jobs", "attempts", str(job_id))
    assert [row[:3] for row in shown.rows[:5]] == [
        ["1", "1", "retried"],
        ["1", "2", "failed"],
        ["2", "1", "retried"],
        ["2", "2", "failed"],
        ["3", "1", "completed"],
    ]


async def test_a_rescued_attempt_is_of_the_round_in_which_it_ran(engine: Engine) -> None:
    engine.handle("work", lambda payload, job: None)
    job_id = await engine.enqueue("work")
    await engine.service.cancel(job_id)
    await engine.service.retry(job_id)
    async with engine.database.connection() as connection:
        worker = await attempts.register(connection, "w", ["default"], 1)
        [job] = await claim(connection, worker, [job_id])
        line = LogLine(job_id, job.created, 1, "info", "hello", await _now(engine))
        await attempts.save_logs(connection, [line])
        await attempts.deregister(connection, worker)
    async with engine.scheduler():
        await engine.until(job_id, "pending")
    (page, lines), ended = await engine.service.history(job_id), await engine.service.attempts(job_id)
    assert page.attempts == ended
    assert [(one.round, one.attempt, one.outcome) for one in ended] == [(2, 1, "rescued")]
    assert [(line["round"], line["attempt"]) for line in lines] == [(2, 1)]


async def _now(engine: Engine) -> Any:
    return (await engine.rows("SELECT now()"))[0][0]
