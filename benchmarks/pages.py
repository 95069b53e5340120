"""How much memory an API process takes for large answers and bodies: `python -m benchmarks.pages [OTHER CHECKOUT]`.

One `goqueue api` with one server process on embedded stores; each line shows its peak above what it held when idle
(`VmHWM` of /proc). The jobs hold 1 MB each, a third of them text that PostgreSQL can compress. A caller who is answered
503 tries again after the second that `Retry-After` names.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import httpx
import orjson
import psycopg

from benchmarks.idempotency import api
from benchmarks.stores import stores

JOBS: Final = 300
SIZE: Final = 1_000_000
ATTEMPTS: Final = 500_000
PAGES: Final = 5
"""Pages that each caller reads."""

FILL: Final = """
INSERT INTO jobs (queue, type, payload)
SELECT 'default', 'noop', jsonb_build_object('pad', CASE WHEN n %% 3 = 0 THEN repeat('x', %s) ELSE %s || n END)
FROM generate_series(1, %s) AS n
"""
FILL_ATTEMPTS: Final = """
INSERT INTO job_attempts (job_id, lease, attempt, outcome, error, worker, started_at, finished_at)
SELECT 1, n, 1, 'snoozed', repeat('e', 60), 'worker', now(), now() + make_interval(secs => n)
FROM generate_series(1, %s) AS n
"""

Ask = Callable[[httpx.AsyncClient], Awaitable[Counter[int]]]


def memory(pid: int, what: str = "VmHWM") -> float:
    """MiB that a process holds (`VmRSS`) or held at most (`VmHWM`)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(what)


def forget_peak(pid: int) -> None:
    """Let the peak begin anew at what the process holds now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


async def follow(client: httpx.AsyncClient, address: str, pages: int = PAGES) -> Counter[int]:
    """The statuses of the first pages of a list."""
    seen: Counter[int] = Counter()
    while pages:
        async with client.stream("GET", address) as answer:
            async for _ in answer.aiter_raw():
                pass
        seen[answer.status_code] += 1
        if answer.status_code == 503:
            await asyncio.sleep(float(answer.headers["Retry-After"]))
            continue
        pages -= 1
        following = answer.links.get("next")
        if following is None:
            break
        address = str(answer.url.join(following["url"]))
    return seen


async def post(client: httpx.AsyncClient, body: bytes) -> Counter[int]:
    """The statuses of the same bulk request until it is no 503."""
    seen: Counter[int] = Counter()
    while True:
        answer = await client.post("/jobs/bulk", content=body, headers={"Content-Type": "application/json"})
        seen[answer.status_code] += 1
        if answer.status_code != 503:
            return seen
        await asyncio.sleep(float(answer.headers["Retry-After"]))


async def measure(port: int, pid: int, title: str, callers: int, ask: Ask) -> None:
    """Let so many callers ask at the same time, and print what it took."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        await client.get("/health/db")
        idle = memory(pid, "VmRSS")
        forget_peak(pid)
        began = time.monotonic()
        seen = sum(await asyncio.gather(*(ask(client) for _ in range(callers))), Counter())
        spent = time.monotonic() - began
    answers = ", ".join(f"{count} × {status}" for status, count in sorted(seen.items()))
    print(f"{title:<44}{callers:>3}{memory(pid) - idle:>10.0f} MiB{spent:>8.1f} s   {answers}", flush=True)


async def _measure_all(port: int, pid: int) -> None:
    numbers = [{"queue": "email", "payload": {"to": "a@example.org", "subject": "s", "body": "b" * 1000}}] * 10_000
    body = orjson.dumps(numbers)
    print(f"{'':<44}callers  peak above idle")
    for callers in (1, 8):
        await measure(port, pid, "GET /jobs?limit=1000, jobs of 1 MB", callers, lambda c: follow(c, LIST))
    for callers in (1, 8):
        await measure(port, pid, "GET /jobs/1/attempts, 500,000 of them", callers, lambda c: follow(c, OF_ONE))
    for callers in (1, 4, 8):
        await measure(port, pid, f"POST /jobs/bulk of {len(body) / 1e6:.0f} MB", callers, lambda c: post(c, body))


LIST: Final = "/jobs?queue=default&limit=1000"
OF_ONE: Final = "/jobs/1/attempts"


def main() -> None:
    """Start everything and measure."""
    other = sys.argv[1] if len(sys.argv) > 1 else None
    with contextlib.ExitStack() as stack:
        dsn, environment = stack.enter_context(stores(fsync=False))
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(FILL, (SIZE, os.urandom(SIZE // 2).hex(), JOBS))
            connection.execute(FILL_ATTEMPTS, (ATTEMPTS,))
            connection.execute("ANALYZE")
        environment["GOQUEUE_API_PROCESSES"] = "1"
        port, pid = stack.enter_context(api(environment, other))
        asyncio.run(_measure_all(port, pid))


if __name__ == "__main__":
    main()
