"""A worker process that is told to end leaves, although handlers go on."""

import signal
from pathlib import Path

import pytest

from tests.integration.engine import Engine, eventually
from tests.servers.process import GOQUEUE, Process
from tests.servers.stores import FreshDatabase, FreshRedis

MODULE = """
import asyncio
import atexit
import contextlib
import threading
import time

from pydantic import BaseModel

from goqueue import job_type

atexit.register(lambda: print("exit functions have run", flush=True))


class Nothing(BaseModel):
    pass


@job_type("thread", payload=Nothing)
def thread(payload, job):
    time.sleep(600)


@job_type("deaf", payload=Nothing)
async def deaf(payload, job):
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(600)


@job_type("executor", payload=Nothing)
async def executor(payload, job):
    await asyncio.to_thread(time.sleep, 600)


@job_type("own", payload=Nothing)
async def own(payload, job):
    threading.Thread(target=time.sleep, args=(600,)).start()
    await asyncio.sleep(600)
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("type", ["thread", "deaf", "executor", "own"])
async def test_after_sigterm_the_process_leaves_when_all_is_written_although_a_handler_goes_on(
    engine: Engine, database: FreshDatabase, ready_queues: FreshRedis, tmp_path: Path, type: str
) -> None:
    (tmp_path / "deaf_jobs.py").write_text(MODULE)
    environment = {
        **database.environment,
        **ready_queues.environment,
        "PYTHONPATH": str(tmp_path),
        "GOQUEUE_JOBS": "deaf_jobs",
        "GOQUEUE_WORKER_HEALTH_PORT": "0",
        "GOQUEUE_WORKER_GRACE_SECONDS": "0.5",
    }
    log = tmp_path / "log"
    with Process([GOQUEUE, "worker"], environment=environment, cwd=tmp_path, log=log) as worker:
        job_id = await engine.enqueue(type, max_retries=0)
        await engine.until(job_id, "processing")
        worker.send(signal.SIGTERM)
        assert worker.wait(30) == 0  # the handler takes ten minutes
    job = await engine.service.get(job_id)
    assert (job.status, job.attempts) == ("pending", 0)
    assert await engine.rows("SELECT FROM workers") == []
    assert "exit functions have run" in log.read_text()
    assert "the process ends without them" in log.read_text()


@pytest.mark.timeout(120)
async def test_a_worker_without_such_handlers_ends_as_any_python_process(
    engine: Engine, database: FreshDatabase, ready_queues: FreshRedis, tmp_path: Path
) -> None:
    (tmp_path / "deaf_jobs.py").write_text(MODULE)
    environment = {
        **database.environment,
        **ready_queues.environment,
        "PYTHONPATH": str(tmp_path),
        "GOQUEUE_JOBS": "deaf_jobs",
        "GOQUEUE_WORKER_HEALTH_PORT": "0",
    }
    log = tmp_path / "log"
    with Process([GOQUEUE, "worker"], environment=environment, cwd=tmp_path, log=log) as worker:

        async def registered() -> bool:
            return bool(await engine.rows("SELECT FROM workers"))

        await eventually(registered)
        worker.send(signal.SIGTERM)
        assert worker.wait(30) == 0
    assert log.read_text().count("exit functions have run") == 1
    assert "the process ends without them" not in log.read_text()
