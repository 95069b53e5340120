"""`goqueue dev`: the command a newcomer types first, run as it is typed."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from goqueue import development
from goqueue_cli.embedded import free_port
from tests.integration.engine import eventually
from tests.servers.process import GOQUEUE, Process

LIMIT = 60


class Dev(Process):
    """A `goqueue dev` with a folder and a port of its own."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self.folder = folder
        self.port = free_port()
        settings = {"GOQUEUE_DEV_DIR": str(folder), "GOQUEUE_API_PORT": str(self.port), **environment}
        super().__init__([GOQUEUE, "dev", *options], log=folder.with_suffix(f".{self.port}"), environment=settings)

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def get(self, path: str) -> Any:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=30).raise_for_status().json()

    def create(self, order: dict[str, Any]) -> int:
        answer = httpx.post(f"http://127.0.0.1:{self.port}/jobs/create", json=order, timeout=30)
        return int(answer.raise_for_status().json()["id"])

    async def until(self, condition: Callable[[str], object]) -> None:
        """Until the output meets the condition, or the process has ended."""

        async def met() -> bool:
            return bool(condition(self.output)) or self.returncode is not None

        await eventually(met, seconds=LIMIT)
        assert condition(self.output), self.output

    async def up(self) -> None:
        await self.until(lambda output: "Ctrl-C stops" in output)


def processes_of(folder: Path) -> dict[int, str]:
    """Processes that have to do with a folder of `goqueue dev`: id → command line."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            about = command + (process / "environ").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        if os.fsencode(str(folder)) in about and int(process.name) != os.getpid():
            found[int(process.name)] = command.decode().replace("\0", " ")
    return found


@pytest.mark.timeout(180)
async def test_it_completes_a_job_of_each_type_stops_cleanly_and_finds_them_again(tmp_path: Path) -> None:
    folder = tmp_path / "dev"
    with Dev(folder) as dev:
        await dev.up()
        for kind in ("send_email", "send_webhook", "process_payment"):
            assert re.search(rf"job \d+ {kind}: completed", dev.output)
        assert (folder / "environment").stat().st_mode & 0o777 == 0o600
        dev.send(signal.SIGINT)
        assert dev.wait(LIMIT) == 0, dev.output
    assert processes_of(folder) == {}
    assert [mail.suffix for mail in (folder / "mails").iterdir()] == [".eml"]
    assert not (folder / "environment").exists()
    password = (folder / "postgres" / "password").read_text()
    logs = "".join(log.read_text() for log in (folder / "logs").iterdir())
    assert password not in logs + dev.output
    assert "Traceback" not in logs

    with Dev(folder) as again:
        await again.up()
        assert "the jobs of earlier runs are there, the newest is 3\n" in again.output, again.output
        assert [job["status"] for job in again.get("/jobs?queue=email")] == ["completed", "completed"]


@pytest.mark.timeout(120)
async def test_a_job_that_runs_at_ctrl_c_is_finished_first(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import asyncio\nfrom pydantic import BaseModel\nfrom goqueue import job_type\n"
        "class Nap(BaseModel):\n    seconds: float\n"
        "@job_type('nap', payload=Nap, queue='naps')\n"
        "async def nap(payload: Nap, job) -> str:\n    await asyncio.sleep(payload.seconds)\n    return 'rested'\n"
    )
    folder = tmp_path / "dev"
    environment = {"GOQUEUE_JOBS": "slow", "GOQUEUE_QUEUES": "lemons", "PYTHONPATH": str(tmp_path)}
    with Dev(folder, **environment) as dev:
        await dev.up()
        names = [queue["name"] for queue in dev.get("/queues")["queues"]]
        assert names == ["default", "email", "webhooks", "payment", "naps", "lemons"]
        kept = development.read(folder / "environment")
        assert {"GOQUEUE_JOBS": "slow", "GOQUEUE_QUEUES": "lemons"}.items() <= kept.items()
        # A program in a shell of its own: it imports no module of types and names no store.
        program = (
            "from goqueue import Client\nwith Client() as c: print(c.wait(c.enqueue('nap', {'seconds': 0}), 30).result)"
        )
        own = {name: value for name, value in os.environ.items() if not name.startswith(("POSTGRES_", "GOQUEUE_"))}
        own |= {"GOQUEUE_DEV_DIR": str(folder), "PYTHONPATH": str(tmp_path)}
        said = await asyncio.to_thread(subprocess.check_output, [sys.executable, "-c", program], env=own)
        assert said == b"rested\n"
        order = {"queue": "naps", "type": "nap", "payload": {"seconds": 3}}
        job = dev.create(order)

        async def running() -> bool:
            return bool(dev.get(f"/jobs/{job}")["status"] == "processing")

        await eventually(running)
        dev.send(signal.SIGTERM)
        assert dev.wait(LIMIT) == 0, dev.output
    with Dev(folder, **environment) as again:
        await again.up()
        found = again.get(f"/jobs/{job}")
        assert (found["status"], found["attempts"], found["result"]) == ("completed", 1, "rested")


@pytest.mark.timeout(120)
async def test_a_part_that_ends_is_reported_with_its_last_lines_and_ends_the_rest(tmp_path: Path) -> None:
    folder = tmp_path / "dev"
    with Dev(folder) as dev:
        await dev.up()
        [pid] = [pid for pid, command in processes_of(folder).items() if "goqueue_cli scheduler" in command]
        os.kill(pid, signal.SIGKILL)
        assert dev.wait(LIMIT) == 1
        assert "the scheduler ended with exit code -9" in dev.output
    assert processes_of(folder) == {}


@pytest.mark.timeout(120)
def test_a_wrong_setting_of_a_part_is_told_and_nothing_stays(tmp_path: Path) -> None:
    with Dev(tmp_path / "dev", GOQUEUE_WORKER_CONCURRENCY="many") as dev:
        assert dev.wait(LIMIT) == 1
        assert "GOQUEUE_WORKER_CONCURRENCY" in dev.output
        assert "Traceback" not in dev.output
    assert processes_of(tmp_path / "dev") == {}


def test_a_taken_port_is_told_in_one_line_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with Dev(tmp_path / "dev", GOQUEUE_API_PORT=port) as dev:
            assert dev.wait(LIMIT) == 1
    assert re.fullmatch(
        rf"goqueue: port {port} of 127.0.0.1 cannot be had .*; GOQUEUE_API_PORT chooses another\n", dev.output
    )
    assert not (tmp_path / "dev").exists()


@pytest.mark.timeout(120)
def test_once_ends_with_the_first_jobs(tmp_path: Path) -> None:
    with Dev(tmp_path / "dev", "--once") as dev:
        assert dev.wait(LIMIT) == 0, dev.output
        assert dev.output.count(": completed (") == 3
    assert processes_of(tmp_path / "dev") == {}


@pytest.mark.timeout(120)
async def test_killed_it_takes_all_its_processes_with_it_and_the_next_run_recovers(tmp_path: Path) -> None:
    folder = tmp_path / "dev"
    with Dev(folder) as dev:
        await dev.up()
        dev.kill()

    async def gone() -> bool:
        return processes_of(folder) == {}

    await eventually(gone, seconds=LIMIT)
    with Dev(folder, "--once") as again:
        assert again.wait(LIMIT) == 0, again.output
