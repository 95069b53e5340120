"""What large pages and bodies take of a real API process: its peak, as the kernel counts it."""

import asyncio
import os
from collections import Counter
from pathlib import Path

import httpx
import orjson
import psycopg
import pytest

from goqueue_cli.embedded import free_port
from tests.servers.process import GOQUEUE, Process
from tests.servers.stores import FreshDatabase, FreshRedis

JOBS, SIZE, CALLERS = 300, 1_000_000, 8
MOST = 96.0
"""MiB above idle."""

FILL = """
INSERT INTO jobs (queue, type, payload)
SELECT 'default', 'noop', jsonb_build_object('pad', CASE WHEN n %% 3 = 0 THEN repeat('x', %s) ELSE %s || n END)
FROM generate_series(1, %s) AS n
"""


def memory(process: Process, what: str) -> float:
    """MiB by a line of the process's status."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{what}:"))


def forget_peak(process: Process) -> None:
    """Let the peak begin anew at what the process holds now."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")


async def until_answered(client: httpx.AsyncClient, method: str, address: str, seen: Counter[int], body: bytes) -> str:
    """Ask until the answer is not 503, without keeping it; the address of the next page, if there is one."""
    while True:
        async with client.stream(method, address, content=body) as answer:
            async for _ in answer.aiter_raw():
                pass
        seen[answer.status_code] += 1
        if answer.status_code != 503:
            return str(answer.url.join(answer.links["next"]["url"])) if "next" in answer.links else ""
        await asyncio.sleep(float(answer.headers["Retry-After"]))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs the proc file system of Linux")
@pytest.mark.timeout(300)
async def test_pages_and_bodies_of_any_size_take_a_bounded_part_of_the_memory(
    database: FreshDatabase, ready_queues: FreshRedis, tmp_path: Path
) -> None:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("TRUNCATE jobs")
        connection.execute(FILL, (SIZE, os.urandom(SIZE // 2).hex(), JOBS))
    port = free_port()
    more = {
        "GOQUEUE_API_PORT": str(port),
        "GOQUEUE_API_HEALTH_PORT": "0",
        "GOQUEUE_API_PROCESSES": "1",
        "GOQUEUE_API_REQUEST_TIMEOUT": "30",  # of a machine that does other work as well
    }
    order = {"queue": "email", "payload": {"to": "ada@example.org", "subject": "Hi", "body": "b" * 1000}}
    bulk = orjson.dumps([order] * 9_000)
    environment = {**database.environment, **ready_queues.environment, **more}
    with Process([GOQUEUE, "api"], log=tmp_path / "log", environment=environment) as process:
        process.wait_for_port(port)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            assert (await client.get("/health/db")).status_code == 200
            idle = memory(process, "VmRSS")

            async def peak_of(method: str, address: str, turns: int, body: bytes = b"") -> tuple[float, Counter[int]]:
                forget_peak(process)
                seen: Counter[int] = Counter()

                async def one(address: str) -> None:
                    for _ in range(turns):
                        address = await until_answered(client, method, address, seen, body) or address

                await asyncio.gather(*(one(address) for _ in range(CALLERS)))
                return memory(process, "VmHWM") - idle, seen

            peak, seen = await peak_of("GET", "/jobs?queue=default&limit=1000", 3)
            print(f"pages: {peak:.0f} MiB above idle, {seen}")
            assert peak <= MOST
            assert seen[200] == 3 * CALLERS
            assert set(seen) <= {200, 503}

            peak, seen = await peak_of("POST", "/jobs/bulk", 1, bulk)
            print(f"bodies: {peak:.0f} MiB above idle, {seen}")
            assert peak <= 1.5 * MOST  # of one body, and what was left of the pages
            assert seen[201] == CALLERS
            assert set(seen) <= {201, 503}
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("TRUNCATE jobs")
