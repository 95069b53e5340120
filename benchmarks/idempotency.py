"""What an `Idempotency-Key` costs: `python -m benchmarks.idempotency [OTHER CHECKOUT]`.

One API process on a PostgreSQL with fsync, `CONNECTIONS` clients that keep their connections. Plain requests, requests
with a new key each and requests with a key that is known are sent in turns of a second, so that what else the
machine does falls on all alike. With another checkout its API runs on the same stores and takes its turns of plain
requests. Printed are medians over all turns: requests a second, the API's CPU time a request, and how both compare with
the plain requests of the same turn.
"""

import asyncio
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.children import cpu_seconds
from benchmarks.stores import stores
from goqueue_cli.embedded import free_port

CONNECTIONS, TURNS, SECONDS = 64, 40, 1.0
BODY = b'{"queue":"email","max_retries":5,"payload":{"to":"ada@example.org","subject":"Hello","body":"Hello, Ada."}}'
PLAIN = "no key"
PARTS = ("", "api", "cli", "migrations", "operator", "scheduler", "worker")

Request = Callable[[], bytes]


def request(key: str = "") -> bytes:
    """A request for a job, as bytes."""
    header = f"Idempotency-Key: {key}\r\n" if key else ""
    head = f"POST /jobs/create HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n{header}\r\n"
    return head.encode() + BODY


async def client(port: int, make: Request, until: float) -> int:
    """Send one request after the other; how many were answered by a job."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    done = 0
    while time.monotonic() < until:
        writer.write(make())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        if head[9:12] not in (b"200", b"201"):
            raise SystemExit(f"not a job: {head.decode()}")
        done += 1
    writer.close()
    return done


async def turn(port: int, make: Request) -> tuple[int, float]:
    """Requests answered in one turn, and how long it took."""
    began = time.monotonic()
    counts = await asyncio.gather(*(client(port, make, began + SECONDS) for _ in range(CONNECTIONS)))
    return sum(counts), time.monotonic() - began


@contextlib.contextmanager
def api(environment: dict[str, str], checkout: str | None = None) -> Iterator[tuple[int, int]]:
    """An API process, of another checkout where one is named: its port and process id."""
    port = free_port()
    more = {"GOQUEUE_API_PORT": str(port), "GOQUEUE_API_HEALTH_PORT": "0", "GOQUEUE_API_AUTH": "off"}
    if checkout is not None:
        more["PYTHONPATH"] = ":".join(str(Path(checkout) / part) for part in PARTS)
    command = [str(Path(sys.executable).parent / "goqueue"), "api"]
    with subprocess.Popen(command, env={**os.environ, **environment, **more}, stderr=subprocess.DEVNULL) as process:
        try:
            asyncio.run(_listening(port))
            yield port, process.pid
        finally:
            process.terminate()


async def _listening(port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return


def measure(kinds: dict[str, tuple[int, int, Request]]) -> None:
    """All kinds in turns, and their medians."""
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    costs: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(TURNS + 1):
        for name in sorted(kinds, reverse=bool(number % 2)):
            port, pid, make = kinds[name]
            before = cpu_seconds(pid)
            count, seconds = asyncio.run(turn(port, make))
            if number:  # the first turn warms up
                rates[name].append(count / seconds)
                costs[name].append((cpu_seconds(pid) - before) / count * 1e6)
    for name in kinds:
        rate, cost = statistics.median(rates[name]), statistics.median(costs[name])
        rated = statistics.median(one / plain for one, plain in zip(rates[name], rates[PLAIN], strict=True))
        costed = statistics.median(one / plain for one, plain in zip(costs[name], costs[PLAIN], strict=True))
        print(f"{name:<24}{rate:>8.0f} requests/s ({rated:.2f}){cost:>8.0f} µs CPU of the API a request ({costed:.2f})")


def main() -> None:
    """Start everything and measure."""
    other = sys.argv[1] if len(sys.argv) > 1 else None
    numbers = itertools.count()
    with contextlib.ExitStack() as stack:
        _, environment = stack.enter_context(stores())
        port, pid = stack.enter_context(api(environment))
        kinds: dict[str, tuple[int, int, Request]] = {
            PLAIN: (port, pid, request),
            "a new key each": (port, pid, lambda: request(f"order-{next(numbers)}")),
            "a key that is known": (port, pid, lambda: request(f"known-{next(numbers) % 100}")),
        }
        if other is not None:
            kinds[f"{PLAIN}, other checkout"] = (*stack.enter_context(api(environment, other)), request)
        measure(kinds)


if __name__ == "__main__":
    main()
