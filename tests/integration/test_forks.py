"""Clients that are open when their process forks, and processes that handlers fork."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.engine import Engine
from tests.servers.process import GOQUEUE, Process
from tests.servers.stores import FreshDatabase, FreshRedis

MAIL = {"to": "ada@example.org", "subject": "x", "body": "y"}

FORKING = f"""
import multiprocessing, os, signal, sys, threading
from goqueue import Client

MAIL = {MAIL}

def told(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def in_child(client, name, leave):
    signal.alarm(60)
    told(name, client.enqueue("send_email", MAIL) > 0)
    told(name, "threads", sorted(thread.name for thread in threading.enumerate()))
    leave()

def forked(client, name, leave):
    pid = os.fork()
    if pid == 0:
        in_child(client, name, leave)
        os._exit(9)  # `leave` has not left
    _, status = os.waitpid(pid, 0)
    told(name, "ended with", os.waitstatus_to_exitcode(status))

with Client() as client:
    client.enqueue("send_email", MAIL)
    forked(client, "exits at once", lambda: os._exit(0))
    pid = os.fork()
    if pid == 0:
        sys.exit()  # through __exit__ and all finalisers
    assert os.waitpid(pid, 0)[1] == 0
    told("parent", client.enqueue("send_email", MAIL) > 0)
    pid = os.fork()
    if pid == 0:
        told("grandparent", client.enqueue("send_email", MAIL) > 0)
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            told("grandchild", client.enqueue("send_email", MAIL) > 0)
            sys.exit()
        assert os.waitpid(pid, 0)[1] == 0
        told("grandparent", client.enqueue("send_email", MAIL) > 0)
        sys.exit()
    assert os.waitpid(pid, 0)[1] == 0
    fork = multiprocessing.get_context("fork")
    child = fork.Process(target=in_child, args=(client, "multiprocessing", lambda: None))
    child.start()
    child.join()
    told("multiprocessing ended with", child.exitcode)
    # What the children closed at their end was not the parent's: it still speaks to both stores.
    told("parent", client.enqueue("send_email", MAIL) > 0, "unpushed", client._async.service.unpushed)
told("closed")
"""


@pytest.mark.timeout(180)
def test_a_client_that_was_open_before_a_fork_works_in_the_child_and_goes_on_in_the_parent(
    engine: Engine, database: FreshDatabase, ready_queues: FreshRedis, tmp_path: Path
) -> None:
    environment = {**database.environment, **ready_queues.environment, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", FORKING],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=150,
    )
    assert done.stdout.splitlines() == [
        "exits at once True",
        "exits at once threads ['MainThread', 'goqueue-client']",
        "exits at once ended with 0",
        "parent True",
        "grandparent True",
        "grandchild True",
        "grandparent True",
        "multiprocessing True",
        "multiprocessing threads ['MainThread', 'goqueue-client']",
        "multiprocessing ended with 0",
        "parent True unpushed 0",
        "closed",
    ], done.stderr
    assert done.stderr == ""


FORKING_ASYNC = f"""
import asyncio, os
from goqueue import AsyncClient

async def main():
    async with AsyncClient.from_environment() as client:
        await client.enqueue("send_email", {MAIL})
        pid = os.fork()
        if pid == 0:
            try:
                await client.get(1)
            except RuntimeError as error:
                os.write(1, f"child: {{error}}\\n".encode())
            await client.__aexit__()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        await client.enqueue("send_email", {MAIL})
        print("parent goes on")

asyncio.run(main())
"""


@pytest.mark.timeout(180)
def test_an_async_client_that_was_open_before_a_fork_says_so_at_once(
    engine: Engine, database: FreshDatabase, ready_queues: FreshRedis, tmp_path: Path
) -> None:
    environment = {**database.environment, **ready_queues.environment, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", FORKING_ASYNC],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=150,
    )
    assert done.stdout.splitlines() == [
        "child: this AsyncClient was opened before the process forked: open one in the child",
        "parent goes on",
    ], done.stderr


MODULE = """
import os
import signal

from pydantic import BaseModel

from goqueue import job_type


class Which(BaseModel):
    number: int


@job_type("fork", payload=Which)
def fork(payload, job):
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(theirs, b"!")
        signal.pause()
        os._exit(7)
    os.read(ours, 1)
    os.kill(pid, payload.number)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)
"""


@pytest.mark.timeout(180)
async def test_a_process_that_a_handler_forked_ends_on_sigterm_and_the_worker_lives_on(
    engine: Engine, database: FreshDatabase, ready_queues: FreshRedis, tmp_path: Path
) -> None:
    (tmp_path / "forking.py").write_text(MODULE)
    environment = {
        **database.environment,
        **ready_queues.environment,
        "PYTHONPATH": str(tmp_path),
        "GOQUEUE_JOBS": "forking",
        "GOQUEUE_WORKER_HEALTH_PORT": "0",
    }
    with Process([GOQUEUE, "worker"], environment=environment, cwd=tmp_path, log=tmp_path / "log") as worker:
        first = await engine.enqueue("fork", payload={"number": int(signal.SIGTERM)}, max_retries=0)
        job = await engine.until(first, "completed", "failed", seconds=30)
        assert (job.status, job.result) == ("completed", -signal.SIGTERM), job.error
        second = await engine.enqueue("fork", payload={"number": int(signal.SIGTERM)}, max_retries=0)
        await engine.until(second, "completed", seconds=30)
        assert worker.returncode is None
