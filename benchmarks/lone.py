"""Where the time of a lone job goes: `python -m benchmarks.lone`.

One process enqueues and works, so that its calls can be counted: between the places that a job passes on its way from
the caller to its handler it prints the median time, and how many functions were called. The counts are the same on any
machine and say what a change of the path is worth; the times hold the waits for commits, Redis and the other tasks, and
the cost of counting.
"""

import asyncio
import contextlib
import itertools
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import wraps
from typing import Any
from unittest import mock

import uvloop
from pydantic import BaseModel

from benchmarks.servers import Servers
from goqueue.broker import Broker
from goqueue.client import AsyncClient
from goqueue.registry import JobContext, JobType, Registry
from goqueue.settings import DatabaseSettings, EngineSettings, PostgresSettings, RedisSettings, WorkerSettings, load
from goqueue.store import attempts, enqueue, migrate
from goqueue.store.connect import Database, dsn
from goqueue_worker.worker import Worker

JOBS, WARM, PAUSE = 200, 20, 0.02

PLACES = (
    "enqueue called",
    "INSERT begins",
    "INSERT is back",
    "push begins",
    "fetch is back",
    "claim begins",
    "claim is back",
    "handler called",
)


class Track:
    """When a job passed each place, and how many calls had been made by then."""

    def __init__(self) -> None:
        self.calls = 0
        self.passed: dict[str, tuple[int, int]] = {}
        self.reached = asyncio.Event()

    def mark(self, place: str) -> None:
        """The job is here; only the first time counts."""
        self.passed.setdefault(place, (time.perf_counter_ns(), self.calls))

    def count(self, _frame: Any, event: str, _argument: Any) -> None:
        """What `sys.setprofile` calls."""
        if event in ("call", "c_call"):
            self.calls += 1

    def around(self, work: Callable[..., Awaitable[Any]], before: str | None, after: str | None) -> Any:
        """`work` with marks before and after it; after an empty answer there is none."""

        @wraps(work)
        async def marked(*arguments: Any, **named: Any) -> Any:
            if before:
                self.mark(before)
            result = await work(*arguments, **named)
            if after and result:
                self.mark(after)
            return result

        return marked


class Payload(BaseModel):
    """About 150 bytes."""

    pad: str


@contextlib.contextmanager
def _watched(track: Track) -> Iterator[None]:
    """Marks around what a job passes, for the time of the measurement."""
    with contextlib.ExitStack() as patches:
        for owner, name, before, after in (
            (enqueue, "insert", "INSERT begins", "INSERT is back"),
            (Broker, "push", "push begins", None),
            (Broker, "fetch", None, "fetch is back"),
            (attempts, "claim", "claim begins", "claim is back"),
        ):
            patches.enter_context(mock.patch.object(owner, name, track.around(getattr(owner, name), before, after)))
        yield


async def _measure() -> list[dict[str, tuple[int, int]]]:
    track = Track()

    async def handler(payload: Payload, job: JobContext) -> None:
        track.mark("handler called")
        track.reached.set()

    registry = Registry([JobType("lone", Payload, handler=handler)])
    settings = load(DatabaseSettings)
    where = dsn(load(PostgresSettings), settings)
    runs = []
    with _watched(track):
        database = Database(where, settings)
        await database.open(settings)
        worker = Worker(
            database, Broker(load(RedisSettings)), where, load(WorkerSettings), load(EngineSettings), registry
        )
        working = asyncio.create_task(worker.run())
        async with AsyncClient(where, load(RedisSettings), registry=registry) as client:
            for number in range(JOBS + WARM):
                track.passed.clear()
                track.reached.clear()
                sys.setprofile(track.count)
                track.mark("enqueue called")
                await client.enqueue("lone", {"pad": "x" * 150})
                await track.reached.wait()
                sys.setprofile(None)
                await asyncio.sleep(PAUSE)  # the system shall be idle when the next one comes
                if number >= WARM:
                    runs.append(dict(track.passed))
        worker.stop()
        await working
        await database.close()
    return runs


def main() -> None:
    """Print the table."""
    with Servers() as servers:
        servers.fresh("lone")
        migrate.upgrade(servers.postgres_url)
        os.environ.update(servers.environment)
        runs = uvloop.run(_measure())
    print(f"{'from':>16}    {'to':<16} {'median, us':>10} {'calls':>6}")
    for begin, end in itertools.pairwise(PLACES):
        microseconds = statistics.median((run[end][0] - run[begin][0]) / 1e3 for run in runs)
        calls = statistics.median(run[end][1] - run[begin][1] for run in runs)
        print(f"{begin:>16} -> {end:<16} {microseconds:>10,.0f} {calls:>6.0f}")
    whole = sorted((run[PLACES[-1]][0] - run[PLACES[0]][0]) / 1e3 for run in runs)
    print(f"the whole way: median {statistics.median(whole):,.0f} us, {len(runs)} jobs")


if __name__ == "__main__":
    main()
