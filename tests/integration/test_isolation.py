"""Jobs that workers have died of run in processes of their own: in real workers."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.engine import Engine, eventually
from tests.servers.process import GOQUEUE, Process
from tests.servers.stores import FreshDatabase, FreshRedis

pytestmark = pytest.mark.timeout(180)

MODULE = """
import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import threading
import time

from pydantic import BaseModel

from goqueue import JobContext, NeverRetry, RetryPolicy, Snooze, job_type

SOON = RetryPolicy(base=0.05, maximum=0.1)
LOADED_BY = os.getpid()


class How(BaseModel):
    how: str = ""


@job_type("poison", payload=How, retry=SOON)
async def poison(payload: How, job: JobContext) -> None:
    job.log(f"attempt {job.attempt} by {os.getpid()}")
    if payload.how == "exit":
        os._exit(3)
    elif payload.how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif payload.how == "segfault":
        ctypes.string_at(0)
    elif payload.how == "thread":
        threading.Thread(target=os._exit, args=(4,)).start()
        await asyncio.sleep(60)


@job_type("innocent", payload=How, retry=SOON)
async def innocent(payload: How, job: JobContext) -> dict:
    job.progress(0.25)
    job.log("a line", "warning")
    print("printed")
    assert sys.stdin.read() == ""
    await asyncio.sleep(0)
    return {"pid": os.getpid(), "deaths": job.deaths, "how": payload.how, "line": "\\n" * 3, "loaded": LOADED_BY}


@job_type("plain", payload=How, retry=SOON)
def plain(payload: How, job: JobContext) -> int:
    return os.getpid()


@job_type("ends", payload=How, retry=SOON)
async def ends(payload: How, job: JobContext) -> None:
    if payload.how == "raises":
        raise LookupError("swordfish")
    if payload.how == "never":
        raise NeverRetry("hopeless")
    if payload.how == "snooze":
        raise Snooze(3600)
    if payload.how == "exits":
        sys.exit(5)
    if payload.how == "unstorable":
        return {1, 2}


@job_type("waits", payload=How)
async def waits(payload: How, job: JobContext) -> None:
    job.log(str(os.getpid()))
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        job.log("was told")
        raise


@job_type("deaf", payload=How)
def deaf(payload: How, job: JobContext) -> None:
    job.log(str(os.getpid()))
    time.sleep(600)


@job_type("blocks", payload=How)
async def blocks(payload: How, job: JobContext) -> None:
    job.log(str(os.getpid()))
    time.sleep(600)


@job_type("short", payload=How, timeout=0.5)
def short(payload: How, job: JobContext) -> None:
    job.log(str(os.getpid()))
    time.sleep(600)


@job_type("works", payload=How)
async def works(payload: How, job: JobContext) -> int:
    await asyncio.sleep(2)
    return os.getpid()
"""


class Running:
    """A worker on the engine's stores, and what its jobs say."""

    def __init__(self, engine: Engine, folder: Path, environment: dict[str, str]) -> None:
        self.engine = engine
        self.folder = folder
        (folder / "suspects.py").write_text(MODULE)
        engine.settings.lease_seconds = 6.0  # a busy machine may keep a heartbeat waiting
        self.environment = {
            **environment,
            "PYTHONPATH": str(folder),
            "GOQUEUE_JOBS": "suspects",
            "GOQUEUE_LEASE_SECONDS": "6",
            "GOQUEUE_HEARTBEAT_SECONDS": "0.5",
            "GOQUEUE_WORKER_HEALTH_PORT": "0",
            "GOQUEUE_WORKER_GRACE_SECONDS": "0.5",
        }

    @contextlib.contextmanager
    def worker(self, **more: str) -> Iterator[Process]:
        log = self.folder / "log"
        environment = {**self.environment, **more}
        with Process([GOQUEUE, "worker"], environment=environment, cwd=self.folder, log=log) as process:
            yield process

    async def suspect(self, type: str, how: str = "", **more: Any) -> int:
        """A job that two workers have died of; before a worker is there."""
        job_id = await self.engine.enqueue(type, payload={"how": how}, **more)
        await self.engine.execute("UPDATE jobs SET deaths = 2 WHERE id = %s", job_id)
        return job_id

    async def lines(self, job_id: int) -> list[str]:
        rows = await self.engine.rows("SELECT message FROM job_logs WHERE job_id = %s ORDER BY id", job_id)
        return [row[0] for row in rows]

    async def logged(self, job_id: int, lines: int) -> list[str]:
        """So many lines; they are written twice a second."""

        async def there() -> list[str]:
            found = await self.lines(job_id)
            return found if len(found) == lines else []

        found: list[str] = await eventually(there)
        return found

    async def process_of(self, job_id: int) -> int:
        """Id of the process in which the job runs, which it has logged."""
        (line, *_) = await eventually(lambda: self.lines(job_id))
        return int(line)


@pytest.fixture
def running(engine: Engine, database: FreshDatabase, ready_queues: FreshRedis, tmp_path: Path) -> Running:
    return Running(engine, tmp_path, {**database.environment, **ready_queues.environment})


def told_of(pid: int, what: str) -> bytes:
    """A file that the kernel keeps about a process; empty where there is no such process."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/{what}").read_bytes()
    return b""


async def gone(pid: int) -> None:
    """Return when that process runs no more."""

    async def ended() -> bool:
        state = told_of(pid, "stat").rpartition(b") ")[2][:1]
        return state in (b"", b"Z", b"X")  # nobody may be there to reap it

    await eventually(ended)


ENDS = {
    "exit": "its process ended with exit code 3",
    "kill": "its process ended by signal 9",
    "segfault": "its process ended by signal 11",
    "thread": "its process ended with exit code 4",
}


async def test_a_poison_job_ends_its_own_process_and_costs_the_others_nothing(running: Running) -> None:
    engine = running.engine
    poisons = {how: await running.suspect("poison", how, max_retries=1) for how in ENDS}
    other = await engine.enqueue("works")
    with running.worker() as worker:
        async with engine.scheduler():
            for how, job_id in poisons.items():
                job = await engine.until(job_id, "failed")
                assert (job.error, job.attempts) == (ENDS[how], 2)
                assert await engine.outcomes(job_id) == ["retried", "failed"]
                first, second = await running.logged(job_id, 2)  # what it has logged in its last moment is kept
                assert first.startswith("attempt 1 by ")
                assert second.startswith("attempt 2 by ")
                assert first.split()[-1] != second.split()[-1]
            job = await engine.until(other, "completed")
            assert (job.result, job.attempts, await engine.outcomes(other)) == (worker.pid, 1, [])
        assert worker.returncode is None
        assert await engine.rows("SELECT count(*), max(id) FROM workers") == [(1, 1)]


async def test_an_innocent_suspect_runs_as_any_other_job(running: Running) -> None:
    engine = running.engine
    job_id, plain = await running.suspect("innocent", "Grüße"), await running.suspect("plain")
    with running.worker() as worker:
        job = await engine.until(job_id, "completed", "failed")
        assert job.error is None
        pid = job.result["pid"]
        assert job.result == {"pid": pid, "deaths": 2, "how": "Grüße", "line": "\n\n\n", "loaded": pid}
        assert pid != worker.pid
        assert job.progress == 0.25
        assert await eventually(lambda: running.lines(job_id)) == ["a line"]
        in_thread = await engine.until(plain, "completed", "failed")
        assert in_thread.result not in (None, worker.pid, pid)
    assert "printed" in worker.log.read_text()
    assert "Traceback" not in worker.log.read_text()


async def test_a_job_of_one_death_and_any_job_where_it_is_switched_off_run_in_the_worker(running: Running) -> None:
    engine = running.engine
    job_id = await running.suspect("plain")
    await engine.execute("UPDATE jobs SET deaths = 1")
    with running.worker() as worker:
        assert (await engine.until(job_id, "completed")).result == worker.pid
    job_id = await running.suspect("plain")
    with running.worker(GOQUEUE_WORKER_ISOLATED="0") as worker:
        assert (await engine.until(job_id, "completed")).result == worker.pid


OTHERWISE = {
    "raises": ("failed", 1, "LookupError: swordfish", "LookupError"),
    "never": ("failed", 1, "NeverRetry: hopeless", "NeverRetry"),
    "snooze": ("pending", 0, None, "Snooze: snoozed for 3600 s"),
    "exits": ("failed", 1, "SystemExit: 5", "SystemExit"),
    "unstorable": ("failed", 1, "NeverRetry: the handler's result is not JSON: Type is not", "NeverRetry"),
}


async def test_every_end_of_a_handler_is_told_as_it_is(running: Running) -> None:
    engine = running.engine
    ids = {how: await running.suspect("ends", how, max_retries=0) for how in OTHERWISE}
    with running.worker(GOQUEUE_LOG_FORMAT="json", GOQUEUE_WORKER_ISOLATED="5") as worker:

        async def told() -> bool:
            return worker.log.read_text().count('"attempt ended"') == len(OTHERWISE)

        await eventually(told)
        for how, (status, attempts, error, logged) in OTHERWISE.items():
            job = await engine.until(ids[how], status)
            assert (job.attempts, (job.error or "").startswith(error or "")) == (attempts, True), job.error
            assert f'"error": "{logged}"' in worker.log.read_text()
    assert "swordfish" not in worker.log.read_text()


@pytest.mark.parametrize("type", ["waits", "deaf", "blocks"])
async def test_a_cancelled_suspect_ends_with_its_process(running: Running, type: str) -> None:
    engine = running.engine
    job_id = await running.suspect(type)
    with running.worker():
        pid = await running.process_of(job_id)
        await engine.service.cancel(job_id)
        job = await engine.until(job_id, "cancelled")
        assert job.error == "cancelled on request"
        await gone(pid)
        if type == "waits":
            assert (await running.logged(job_id, 2))[1] == "was told"


async def test_a_suspect_that_takes_too_long_ends_with_its_process(running: Running) -> None:
    job_id = await running.suspect("short", max_retries=0)
    with running.worker():
        pid = await running.process_of(job_id)
        assert (await running.engine.until(job_id, "failed")).error == "timed out after 0.5 s"
        await gone(pid)


@pytest.mark.parametrize("type", ["waits", "blocks"])
async def test_a_worker_that_is_told_to_end_hands_its_suspects_back(running: Running, type: str) -> None:
    job_id = await running.suspect(type, max_retries=0)
    with running.worker() as worker:
        pid = await running.process_of(job_id)
        worker.send(signal.SIGTERM)
        assert worker.wait(30) == 0
    job = await running.engine.service.get(job_id)
    assert (job.status, job.attempts) == ("pending", 0)
    assert await running.engine.rows("SELECT FROM workers") == []
    await gone(pid)


@pytest.mark.parametrize("type", ["waits", "blocks"])
async def test_the_process_of_a_suspect_ends_with_its_worker(running: Running, type: str) -> None:
    job_id = await running.suspect(type)
    with running.worker() as worker:
        pid = await running.process_of(job_id)
        os.kill(worker.pid, signal.SIGKILL)
        await gone(pid)


async def test_suspects_beyond_the_places_go_back_uncharged_and_hold_no_slot(running: Running) -> None:
    engine = running.engine
    ids = [await running.suspect("waits") for _ in range(3)]
    with running.worker(GOQUEUE_WORKER_ISOLATED="1", GOQUEUE_WORKER_CONCURRENCY="3"):

        async def handed_back() -> list[Any]:
            return await engine.rows("SELECT job_id FROM job_attempts WHERE outcome = 'handed_back'")

        assert len({row[0] for row in await eventually(handed_back)}) <= 2
        await engine.until(await engine.enqueue("plain"), "completed")
        async with engine.scheduler():
            left = set(ids)
            deadline = time.monotonic() + 60
            while left and time.monotonic() < deadline:  # one after the other gets the place
                for job_id in sorted(left):
                    if await running.lines(job_id):
                        await engine.service.cancel(job_id)
                        await engine.until(job_id, "cancelled")
                        left.discard(job_id)
            assert not left
    assert await engine.rows("SELECT DISTINCT attempts FROM jobs WHERE type = 'waits'") == [(1,)]


async def test_the_payload_is_on_no_command_line(running: Running) -> None:
    job_id = await running.suspect("waits", "swordfish")
    with running.worker():
        pid = await running.process_of(job_id)
        for what in ("cmdline", "environ"):
            assert told_of(pid, what) != b""
            assert b"swordfish" not in told_of(pid, what)
