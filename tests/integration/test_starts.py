"""An attempt ends whatever meets its start: its slot is free, and its job has an end."""

import asyncio
from typing import Any

import pytest

from goqueue import JobContext
from goqueue.job import ClaimedJob, NewJob
from goqueue_worker.attempt import Stop
from goqueue_worker.worker import Worker
from tests.integration.engine import Engine, eventually


@pytest.mark.parametrize(
    ("reason", "status"), [(Stop.CANCEL, "cancelled"), (Stop.TIMEOUT, "failed"), (Stop.HAND_BACK, "pending")]
)
@pytest.mark.parametrize("handler_waits", [True, False])
async def test_an_attempt_that_is_interrupted_as_it_starts_ends_and_frees_its_slot(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, reason: Stop, status: str, handler_waits: bool
) -> None:
    """Before Python 3.12 a task begins with the next turn of the event loop. One that is cancelled before that never
    runs a line, and its end must be written none the less."""
    start = Worker._start

    async def works(payload: Any, job: JobContext) -> None:
        if handler_waits:
            await asyncio.Event().wait()
        await asyncio.sleep(0)

    def interrupted_at_once(worker: Worker, job: ClaimedJob) -> None:
        start(worker, job)
        if (running := worker._running.get(job.id)) is not None and job.id in ids:
            running.interrupt(reason)

    async def idle() -> bool:
        return not worker._running

    engine.handle("works", works)
    monkeypatch.setattr(Worker, "_start", interrupted_at_once)
    ids: list[int] = []
    async with engine.worker(concurrency=2) as worker:
        ids += [
            one.id for one in await engine.service.enqueue_many([NewJob("default", "works", {}, max_retries=0)] * 4)
        ]
        for job_id in ids:
            await eventually(lambda job_id=job_id: engine.outcomes(job_id))  # type: ignore[misc]
        await eventually(idle)
    for job_id in ids:
        assert (await engine.service.get(job_id)).status == status
        assert len(await engine.outcomes(job_id)) == 1
