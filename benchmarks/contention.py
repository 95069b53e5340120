"""How long an enqueue takes beside one that PostgreSQL holds up or refuses: `python -m benchmarks.contention [OTHER]`.

Callers enqueue plain jobs through one API process and, in this process, through the library's `AsyncClient`. In turns
one more caller beside them posts, up to 200 times a second,

- a plain job, too: what the others are compared with,
- a unique key that an open transaction holds,
- an idempotency key that an open transaction holds (through the API only: the library has none),
- a job with a `timeout` that PostgreSQL's `real` cannot hold.

Printed are the medians over all turns of the plain enqueues' p50 and p99, and of the ratio of the p99 to that of the
plain turn before, with what the other caller was answered. With another checkout its API takes the place of this one.
"""

import asyncio
import contextlib
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import httpx
import psycopg
from pydantic import SecretStr

import goqueue.builtin  # noqa: F401 - registers send_email
from benchmarks.idempotency import api
from benchmarks.idempotency import request as plain_request
from benchmarks.stores import stores
from goqueue.client import AsyncClient
from goqueue.errors import GoQueueError
from goqueue.idempotency import request_key
from goqueue.orders import accept
from goqueue.registry import REGISTRY
from goqueue.settings import RedisSettings

CALLERS: Final = 16
TURNS: Final = 9
SECONDS: Final = 2.0
MAIL: Final = {"to": "ada@example.org", "subject": "Hello", "body": "Hello, Ada."}
HELD: Final = {"queue": "email", "payload": MAIL, "unique_key": "held"}
WITH_KEY: Final = {"queue": "email", "payload": MAIL}

HOLD: Final = """
INSERT INTO jobs (queue, type, payload, unique_key, active_key) VALUES ('email', 'send_email', '{}', 'held', 'held')
"""
HOLD_REQUEST: Final = """
INSERT INTO idempotency_keys (digest, fingerprint, job_id, look_at) VALUES (%s, %s, 0, now())
"""

PACE: Final = 0.005
"""Seconds between two requests of the caller beside."""

Beside = Callable[[], Awaitable[str]]


async def through_api(port: int, until: float) -> list[float]:
    """Seconds of each request of one caller."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    spent = []
    while time.monotonic() < until:
        began = time.perf_counter()
        writer.write(plain_request())
        head = await reader.readuntil(b"\r\n\r\n")
        if head[9:12] == b"408":  # it took five seconds, and the connection ends
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        elif head[9:12] == b"201":
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        else:
            raise SystemExit(f"not a job: {head.decode()}")
        spent.append(time.perf_counter() - began)
    writer.close()
    return spent


async def through_library(client: AsyncClient, until: float) -> list[float]:
    """Seconds of each enqueue of one caller."""
    spent = []
    while time.monotonic() < until:
        began = time.perf_counter()
        await client.enqueue("send_email", MAIL)
        spent.append(time.perf_counter() - began)
    return spent


@contextlib.asynccontextmanager
async def repeating(beside: Beside) -> AsyncIterator[Counter[str]]:
    """What another caller is answered, who asks over and over meanwhile."""
    seen: Counter[str] = Counter()

    async def repeat() -> None:
        while True:
            seen[await beside()] += 1
            await asyncio.sleep(PACE)

    task = asyncio.create_task(repeat())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.wait([task])


def posting(client: httpx.AsyncClient, body: dict[str, Any], **headers: str) -> Beside:
    """One request of the caller beside, through the API."""

    async def post() -> str:
        return str((await client.post("/jobs/create", json=body, headers=headers)).status_code)

    return post


def enqueueing(client: AsyncClient, **options: Any) -> Beside:
    """One enqueue of the caller beside, through the library."""

    async def enqueue() -> str:
        try:
            await client.enqueue("send_email", MAIL, **options)
        except GoQueueError as error:
            return type(error).__name__
        return "made"

    return enqueue


def refused() -> dict[str, Any]:
    """An order whose timeout PostgreSQL cannot hold."""
    return {**WITH_KEY, "timeout": 1e-300}


async def measure(name: str, asks: Callable[[float], Awaitable[list[float]]], kinds: dict[str, Beside]) -> None:
    """All kinds in turns, and their medians."""
    p50: dict[str, list[float]] = {kind: [] for kind in kinds}
    p99: dict[str, list[float]] = {kind: [] for kind in kinds}
    answers: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    for turn in range(TURNS + 1):
        for kind, beside in kinds.items():
            async with repeating(beside) as seen:
                until = time.monotonic() + SECONDS
                spent = await asyncio.gather(*(asks(until) for _ in range(CALLERS)))
            if not turn:
                continue  # it warms up
            found = statistics.quantiles([one for some in spent for one in some], n=100)
            p50[kind].append(found[49])
            p99[kind].append(found[98])
            answers[kind] += seen
    plain = next(iter(kinds))
    for kind in kinds:
        ratio = statistics.median(one / other for one, other in zip(p99[kind], p99[plain], strict=True))
        median, late = statistics.median(p50[kind]) * 1e3, statistics.median(p99[kind]) * 1e3
        told = ", ".join(f"{count} × {answer}" for answer, count in answers[kind].most_common())
        print(f"{name:<8}{kind:<30}{median:>9.1f}{late:>9.1f} ms{ratio:>8.2f}   {told}", flush=True)


async def _measure_all(port: int, dsn: str, redis: str) -> None:
    order = accept(WITH_KEY, REGISTRY, ["email"])
    key = request_key("held", "anybody", order)
    print(f"{'':<38}{'p50':>9}{'p99':>9}   ratio   answers")
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http,
        await psycopg.AsyncConnection.connect(dsn) as holder,
        AsyncClient(dsn, RedisSettings(url=SecretStr(redis))) as client,
    ):
        await holder.execute(HOLD)
        await holder.execute(HOLD_REQUEST, (key.digest, key.fingerprint))
        await measure(
            "API",
            lambda until: through_api(port, until),
            {
                "a plain job": posting(http, WITH_KEY),
                "a held unique key": posting(http, HELD),
                "a held idempotency key": posting(http, WITH_KEY, **{"Idempotency-Key": "held"}),
                "a refused value": posting(http, refused()),
            },
        )
        await measure(
            "library",
            lambda until: through_library(client, until),
            {
                "a plain job": enqueueing(client),
                "a held unique key": enqueueing(client, unique_key="held"),
                "a refused value": enqueueing(client, timeout=1e-300),
            },
        )
        await holder.rollback()


def main() -> None:
    """Start everything and measure."""
    other = sys.argv[1] if len(sys.argv) > 1 else None
    with contextlib.ExitStack() as stack:
        dsn, environment = stack.enter_context(stores())
        environment["GOQUEUE_API_PROCESSES"] = "1"
        port, _ = stack.enter_context(api(environment, other))
        asyncio.run(_measure_all(port, dsn, environment["GOQUEUE_REDIS_URL"]))


if __name__ == "__main__":
    main()
