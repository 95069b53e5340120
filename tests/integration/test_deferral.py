"""Jobs that a worker cannot run and another may, as during a rollout: they wait, uncharged, and not for ever."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel
from structlog.testing import capture_logs

from goqueue import JobContext
from goqueue.registry import JobType, Registry
from goqueue.store import attempts
from goqueue_worker import deferral
from goqueue_worker.worker import Worker
from tests.integration.engine import Anything, Engine, eventually


class Old(BaseModel):
    """The payload as the old worker knows it."""

    a: int
    b: None = None


class New(BaseModel):
    """As the API accepts it now."""

    a: int
    b: str = "x"


async def run(payload: Any, job: JobContext) -> int:
    return job.attempt


async def parse(payload: Any, job: JobContext) -> None:
    New.model_validate({"a": "swordfish"})


@contextlib.asynccontextmanager
async def old_worker(engine: Engine, **settings: Any) -> AsyncIterator[Worker]:
    """A worker of the version before."""
    new, engine.registry = engine.registry, Registry([JobType("known", Old, handler=run)])
    async with engine.worker(**settings) as worker:
        engine.registry = new
        yield worker


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deferred jobs come back at once."""
    monkeypatch.setattr(deferral, "DELAYS", (0.05, 0.1))


NEWS = {"type": ("unknown", {"a": 1}), "payload": ("known", {"a": 1, "b": "new"})}


@pytest.mark.parametrize("what", NEWS)
async def test_a_job_of_a_new_shape_waits_uncharged_for_a_worker_that_knows_it(engine: Engine, what: str) -> None:
    name, payload = NEWS[what]
    job_id = await engine.enqueue(name, payload=payload, max_retries=0)

    async def deferred() -> bool:
        outcomes = await engine.outcomes(job_id)
        return len(outcomes) >= 3 and set(outcomes) == {"deferred"}

    async with engine.scheduler():
        async with old_worker(engine):
            await eventually(deferred)
        assert (await engine.service.get(job_id)).attempts == 0
        engine.registry = Registry([JobType(name, New, handler=run)])
        async with engine.worker():
            job = await engine.until(job_id, "completed", "failed")
    assert (job.status, job.result, job.error) == ("completed", 1, None)


async def test_a_waiting_job_shows_what_it_waits_for_until_it_has_run(engine: Engine) -> None:
    job_id = await engine.enqueue("unknown", payload={"a": 1})

    async def shown() -> bool:
        job = await engine.service.get(job_id)
        return (job.status, job.error) == ("pending", "this worker knows no job type 'unknown'")

    async with engine.scheduler(), old_worker(engine):
        await eventually(shown)
        engine.registry = Registry([JobType("unknown", New, handler=run)])
        async with engine.worker():
            assert (await engine.until(job_id, "completed")).error is None


async def test_beside_a_worker_that_knows_the_type_the_job_runs_and_is_charged_for_that_attempt_only(
    engine: Engine,
) -> None:
    async with engine.scheduler(), old_worker(engine):
        first = await engine.enqueue("unknown", payload={"a": 1}, max_retries=0)

        async def deferred() -> bool:
            return "deferred" in await engine.outcomes(first)

        await eventually(deferred)  # the old worker has had it
        engine.registry = Registry([JobType("unknown", New, handler=run)])
        async with engine.worker():
            ids = [first, *[await engine.enqueue("unknown", payload={"a": 1}, max_retries=0) for _ in range(20)]]
            jobs = [await engine.until(job_id, "completed", "failed") for job_id in ids]
    assert {(job.status, job.attempts, job.result, job.error) for job in jobs} == {("completed", 1, 1, None)}


@pytest.mark.parametrize("what", NEWS)
async def test_a_job_that_nobody_can_run_fails_when_its_time_is_over(engine: Engine, what: str) -> None:
    name, payload = NEWS[what]
    async with engine.scheduler(), old_worker(engine, defer_seconds=0.5):
        job = await engine.until(await engine.enqueue(name, payload=payload), "failed")
    assert job.error is not None
    assert job.error.startswith(
        "this worker knows no job type 'unknown' (for" if what == "type" else "payload validation failed: {'b': 'Input"
    )
    outcomes = await engine.outcomes(job.id)
    assert len(outcomes) > 2
    assert (outcomes[-1], set(outcomes[:-1])) == ("failed", {"deferred"})


@pytest.mark.parametrize("payload", ["[1]", "1", "null", "{}"])
async def test_a_payload_that_was_put_into_the_table_by_hand_fails_as_well(engine: Engine, payload: str) -> None:
    engine.registry = Registry([JobType("known", Old, handler=run)])
    insert = "INSERT INTO jobs (queue, type, payload) VALUES ('default', 'known', %s) RETURNING id"
    rows = await engine.rows(insert, payload)
    async with engine.scheduler(), engine.worker(defer_seconds=0.3):
        job = await engine.until(rows[0][0], "failed")
    assert "payload validation failed" in (job.error or "")


async def test_the_time_counts_from_the_first_deferral_after_the_last_attempt_that_ran(engine: Engine) -> None:
    job_id = await engine.enqueue("unknown")

    async def waited() -> float | None:
        async with engine.database.connection() as connection:
            return await attempts.deferred_for(connection, job_id)

    async def attempt(lease: int, outcome: str, minutes: int, round: int | None = None) -> None:
        await engine.execute(
            "INSERT INTO job_attempts (job_id, lease, attempt, outcome, finished_at, round) "
            "VALUES (%s, %s, 1, %s, now() - make_interval(mins => %s), %s)",
            *(job_id, lease, outcome, minutes, round),
        )

    assert await waited() is None
    await attempt(1, "deferred", 90)
    await attempt(2, "retried", 80)
    assert await waited() is None
    await attempt(3, "deferred", 60)
    await attempt(4, "handed_back", 50)
    await attempt(5, "deferred", 40)
    assert await waited() == pytest.approx(3600, abs=30)
    await engine.execute("UPDATE jobs SET round = 2 WHERE id = %s", job_id)  # retried by hand
    assert await waited() is None
    await attempt(6, "deferred", 10, 2)
    assert await waited() == pytest.approx(600, abs=30)


async def logged(engine: Engine, jobs: int) -> list[Any]:
    """The lines about jobs of one type, each deferred for the first time before the next is enqueued."""
    with capture_logs() as lines:
        async with old_worker(engine):
            for _ in range(jobs):
                job_id = await engine.enqueue("unknown")

                async def deferred(job_id: int = job_id) -> bool:
                    return "deferred" in await engine.outcomes(job_id)

                await eventually(deferred)
    return [line for line in lines if line["event"] == "jobs wait for a worker that can run them"]


async def test_one_line_a_minute_for_a_type_says_that_its_jobs_wait(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = await logged(engine, 3)
    assert (line["type"], line["log_level"], line["fail_after_seconds"]) == ("unknown", "warning", 21600.0)
    monkeypatch.setattr(deferral, "LOG_SECONDS", 0.0)  # the minute is over at once
    assert len(await logged(engine, 3)) == 3


async def test_a_validation_that_fails_within_a_handler_is_a_failed_attempt_without_the_values(engine: Engine) -> None:
    engine.registry = Registry([JobType("parse", Anything, handler=parse)])
    async with engine.worker():
        job = await engine.until(await engine.enqueue("parse", max_retries=0), "failed")
    assert job.attempts == 1
    assert job.error is not None
    assert job.error.startswith("ValidationError: {'a': 'Input should be a valid integer")
    assert "swordfish" not in job.error


def test_the_pause_is_as_long_as_the_wait_so_far_and_five_minutes_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferral, "DELAYS", (5.0, 300.0))
    waited, pauses = 0.0, []
    while waited < 3600:
        pauses.append(deferral.pause(waited))
        waited += pauses[-1]
    assert pauses[:7] == [5, 5, 10, 20, 40, 80, 160]
    assert set(pauses[7:]) == {300}
