"""The process that writes heartbeats: what it outlives, what it must not outlive, and for whom it must not beat."""

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from goqueue import JobContext
from goqueue.settings import EngineSettings
from goqueue_worker import membership as module
from goqueue_worker.membership import Membership
from goqueue_worker.standing import Standing
from tests.integration.engine import Engine, eventually
from tests.servers.process import GOQUEUE, Process
from tests.servers.stores import FreshDatabase, FreshRedis

LEASE = 3.0

MODULE = """
import asyncio
import os
import pathlib
import threading
import time

from pydantic import BaseModel

from goqueue import JobContext, job_type


class Nothing(BaseModel):
    pass


def note(job):
    with open("runs", "a") as file:
        file.write(f"{job.job_id}\\n")


def longest_silence(call):
    # The longest time in which a thread of the interpreter could not make a step while `call` ran.
    steps, over = [time.monotonic()], threading.Event()

    def step():
        while not over.wait(0.01):
            steps.append(time.monotonic())

    thread = threading.Thread(target=step)
    thread.start()
    call()
    over.set()
    thread.join()
    steps.append(time.monotonic())
    return max(later - earlier for earlier, later in zip(steps, steps[1:]))


def one_call(size):
    # One C call that looks at no signal and lets go of the interpreter's lock nowhere.
    return sum(range(size))


@job_type("keep", payload=Nothing, timeout=120)
def keep(payload: Nothing, job: JobContext) -> float:
    note(job)
    began = time.thread_time()  # on a busy machine the wall clock would tell of others
    one_call(10_000_000)
    size = int(10_000_000 * 8 / (time.thread_time() - began))  # some eight seconds of this machine's processor
    return longest_silence(lambda: one_call(size))


@job_type("nap", payload=Nothing)
async def nap(payload: Nothing, job: JobContext) -> None:
    note(job)
    await asyncio.sleep(2)


@job_type("fork", payload=Nothing)
def fork(payload: Nothing, job: JobContext) -> int:
    pid = os.fork()
    if pid == 0:
        time.sleep(600)  # it has all of the worker's descriptors
        os._exit(0)
    return pid
"""


@contextlib.contextmanager
def worker(database: FreshDatabase, ready_queues: FreshRedis, folder: Path) -> Iterator[Process]:
    """A worker as a process of its own with the job types of `MODULE`."""
    (folder / "own_jobs.py").write_text(MODULE)
    environment = {
        **database.environment,
        **ready_queues.environment,
        "PYTHONPATH": str(folder),
        "GOQUEUE_JOBS": "own_jobs",
        "GOQUEUE_LEASE_SECONDS": str(LEASE),
        "GOQUEUE_HEARTBEAT_SECONDS": "0.5",
        "GOQUEUE_WORKER_HEALTH_PORT": "0",
    }
    with Process([GOQUEUE, "worker"], environment=environment, cwd=folder, log=folder / "log") as process:
        yield process


def heartbeat_of(parent: int) -> list[tuple[int, str]]:
    """(pid, command line) of the processes that write heartbeats for a worker."""
    table = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
    rows = (line.split(None, 2) for line in table.stdout.splitlines())
    return [(int(pid), args) for pid, ppid, args in rows if int(ppid) == parent and "heartbeat.py" in args]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def registered(engine: Engine) -> list[int]:
    return [row[0] for row in await engine.rows("SELECT id FROM workers")]


async def test_a_c_call_that_keeps_the_interpreters_lock_for_two_leases_costs_a_living_worker_no_job(
    engine: Engine, database: FreshDatabase, ready_queues: FreshRedis, tmp_path: Path
) -> None:
    engine.settings.lease_seconds = LEASE
    for name in ("keep", "nap"):
        engine.handle(name, lambda payload, job: None)
    async with engine.scheduler() as scheduler:
        await engine.leads(scheduler)
        with worker(database, ready_queues, tmp_path):
            (before,) = await eventually(lambda: registered(engine))
            ids = [await engine.enqueue("nap") for _ in range(5)]
            for job_id in ids:
                await engine.until(job_id, "processing", "completed")
            ids.append(await engine.enqueue("keep"))
            jobs = [await engine.until(job_id, "completed", seconds=100) for job_id in ids]
            assert await registered(engine) == [before]
    assert float(jobs[-1].result or 0) > 1.5 * LEASE, "the call let other threads make steps"
    assert [job.attempts for job in jobs] == [1] * 6
    assert [await engine.outcomes(job.id) for job in jobs] == [[]] * 6
    assert sorted((tmp_path / "runs").read_text().split()) == sorted(str(job_id) for job_id in ids)


async def test_a_stopped_worker_is_not_kept_alive_and_registers_anew_when_it_goes_on(
    engine: Engine, database: FreshDatabase, ready_queues: FreshRedis, tmp_path: Path
) -> None:
    engine.settings.lease_seconds = LEASE
    async with engine.scheduler() as scheduler:
        await engine.leads(scheduler)
        with worker(database, ready_queues, tmp_path) as process:
            (before,) = await eventually(lambda: registered(engine))
            ((beating, _),) = heartbeat_of(process.pid)
            process.send(signal.SIGSTOP)

            async def buried() -> bool:
                return await registered(engine) == []

            try:
                await eventually(buried)
                assert alive(beating)
            finally:
                process.send(signal.SIGCONT)
            (after,) = await eventually(lambda: registered(engine))
            assert after != before


async def test_heartbeats_go_on_until_a_drain_is_over_whatever_signals_reach_their_process(
    engine: Engine, database: FreshDatabase, ready_queues: FreshRedis, tmp_path: Path
) -> None:
    engine.handle("nap", lambda payload, job: None)
    with worker(database, ready_queues, tmp_path) as process:
        await eventually(lambda: registered(engine))
        ((beating, _),) = heartbeat_of(process.pid)
        job_id = await engine.enqueue("nap")
        await engine.until(job_id, "processing")
        os.killpg(process.pid, signal.SIGINT)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(beating, number)

        async def draining() -> Any:
            return await engine.rows("SELECT FROM workers WHERE draining")

        await eventually(draining)
        assert await asyncio.to_thread(process.wait, 30) == 0
    assert (await engine.service.get(job_id)).status == "completed"
    assert await registered(engine) == []
    assert not alive(beating)
    assert "heartbeat process" not in (tmp_path / "log").read_text()


async def test_heartbeats_end_with_a_killed_worker_although_a_process_that_a_handler_forked_keeps_its_pipes(
    engine: Engine, database: FreshDatabase, ready_queues: FreshRedis, tmp_path: Path
) -> None:
    engine.handle("fork", lambda payload, job: None)
    with worker(database, ready_queues, tmp_path) as process:
        await eventually(lambda: registered(engine))
        ((beating, command),) = heartbeat_of(process.pid)
        assert database.server.password not in command
        grandchild = int((await engine.until(await engine.enqueue("fork"), "completed")).result or 0)
        process.send(signal.SIGKILL)
        try:

            async def gone() -> bool:
                return not alive(beating)

            await eventually(gone, 10)
            assert alive(grandchild)
        finally:
            os.kill(grandchild, signal.SIGKILL)


async def test_a_heartbeat_process_that_is_killed_is_replaced_and_costs_no_job(engine: Engine) -> None:
    done = asyncio.Event()

    async def waits(payload: Any, job: JobContext) -> None:
        await done.wait()

    engine.handle("waits", waits)
    engine.settings.lease_seconds = 9.0
    async with engine.worker() as worker:
        job_id = await engine.enqueue("waits")
        await engine.until(job_id, "processing")
        ours, before = worker._membership, worker._membership.process
        assert before is not None
        os.kill(before, signal.SIGKILL)
        killed_at = time.monotonic()

        async def beats_again() -> bool:
            return ours.beaten_at > killed_at

        await eventually(beats_again)
        assert ours.process not in (None, before)
        assert await registered(engine) == [ours.worker_id]
        done.set()
        await engine.until(job_id, "completed")
        after = ours.process
    assert await engine.outcomes(job_id) == []
    assert after is not None
    assert not alive(after)


@pytest.mark.parametrize(("stalled", "beats"), [(60.0, True), (0.5, False)])
def test_an_interpreter_that_makes_no_step_is_kept_alive_for_a_bounded_time(
    own_database: FreshDatabase, monkeypatch: pytest.MonkeyPatch, stalled: float, beats: bool
) -> None:
    monkeypatch.setattr(module, "STALLED_SECONDS", stalled)
    joined, asked, go_on = threading.Event(), threading.Event(), threading.Event()
    standing = Standing(0, False, {})

    def blocked() -> Standing:
        if joined.is_set():
            asked.set()
            go_on.wait(60)
        return standing

    engine = EngineSettings(lease_seconds=3, heartbeat_seconds=0.2)
    membership = Membership(
        own_database.dsn, engine, "w", ["default"], 1, blocked, lambda _: joined.set(), lambda: None
    )
    membership.start()
    try:
        assert joined.wait(20)
        assert asked.wait(20)
        silent_at = time.monotonic()
        while not membership.fenced and membership.beaten_at < silent_at + 5:
            time.sleep(0.01)  # shared memory gives no sign
        assert membership.fenced is not beats
        with psycopg.connect(own_database.dsn) as connection:
            row = connection.execute("SELECT beat FROM workers").fetchone()
        assert row is not None
        assert (row[0] > 10) is beats
    finally:
        go_on.set()
        membership.leave(empty=True)
