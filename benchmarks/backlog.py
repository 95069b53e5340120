"""What a backlog costs the others: `python -m benchmarks.backlog [READY [SECONDS]]`.

With a million ready jobs in a queue without workers, real processes serve another queue: how late scheduled jobs and
retries begin there while the backlog is reconciled again and again, and how long after a SIGKILL a worker's job begins
elsewhere. Then jobs of one moment, in growing numbers, without a window: how long until all of them are in Redis.
"""

import os
import signal
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import psycopg

from benchmarks.servers import Servers
from goqueue.store import migrate

READY: Final = 1_000_000
SECONDS: Final = 60
EVERY: Final = 0.1
"""Seconds between two scheduled jobs; a retry is made as often."""
RECONCILE: Final = 15.0
LEASE: Final = 3.0
KILLS: Final = 5
SIZES: Final = (250_000, 500_000, 1_000_000)

_FILL: Final = """
INSERT INTO jobs (queue, type, payload, available_at, dispatch_at)
SELECT %(queue)s, 'once', '{}', %(due)s, CASE WHEN %(scheduled)s THEN %(due)s::timestamptz END
FROM generate_series(1, %(count)s)
"""

_LATE: Final = """
SELECT extract(epoch FROM started_at - available_at)::float FROM jobs
WHERE queue = 'default' AND type = %s AND status = 'completed' AND id > %s
"""


class Run:
    """The servers and GoQueue's processes on them."""

    def __init__(self, stack: ExitStack, **settings: str) -> None:
        self._stack = stack
        self.servers = stack.enter_context(Servers())
        self.servers.fresh("backlog")
        migrate.upgrade(self.servers.postgres_url)
        self.environment = {
            **os.environ,
            **self.servers.environment,
            "GOQUEUE_JOBS": "benchmarks.backlog_jobs",
            "GOQUEUE_QUEUES": "backlog,victim",
            "GOQUEUE_LEASE_SECONDS": str(LEASE),
            "GOQUEUE_HEARTBEAT_SECONDS": "0.5",
            "GOQUEUE_SCHEDULER_RECONCILE_SECONDS": str(RECONCILE),
            "GOQUEUE_SCHEDULER_HEALTH_PORT": "0",
            "GOQUEUE_WORKER_HEALTH_PORT": "0",
            "GOQUEUE_WORKER_QUEUES": "default",
            **settings,
        }
        self.db = stack.enter_context(self.servers.connect())

    def start(self, part: str, **more: str) -> "subprocess.Popen[bytes]":
        """Start a scheduler or a worker; it ends with the run."""
        log = self._stack.enter_context((Path(self.servers.folder) / f"{part}.log").open("ab"))
        command = [str(Path(sys.executable).with_name("goqueue")), part]
        process = subprocess.Popen(command, env={**self.environment, **more}, stdout=log, stderr=log)
        self._stack.callback(_end, process)
        return process

    def fill(self, queue: str, count: int, due: str = "now()", *, scheduled: bool = False) -> None:
        """Insert jobs as a program would that pushes none."""
        [[at]] = self.ask(f"SELECT {due}")
        values = {"queue": queue, "count": count, "due": at, "scheduled": scheduled}
        self.db.execute(_FILL, values)
        self.db.execute("VACUUM ANALYZE jobs")

    def ask(self, query: Any, *parameters: Any) -> list[Any]:
        """Rows of a query."""
        return self.db.execute(query, parameters or None).fetchall()

    def until(self, query: Any, *parameters: Any, seconds: float = 120.0) -> Any:
        """Ask until the first row's first column is true; that."""
        limit = time.monotonic() + seconds
        while not (rows := self.ask(query, *parameters)) or not rows[0][0]:
            if time.monotonic() > limit:
                raise TimeoutError(query)
            time.sleep(0.02)
        return rows[0][0]


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _percentiles(values: list[float]) -> str:
    ordered = sorted(values)
    return (
        f"p50 {statistics.median(ordered):5.2f} s   p99 {ordered[int(len(ordered) * 0.99)]:5.2f} s   "
        f"max {ordered[-1]:5.2f} s   ({len(ordered)} jobs)"
    )


def _insert(db: psycopg.Connection[Any], type: str, seconds: float) -> int:
    row = db.execute(
        "INSERT INTO jobs (queue, type, payload, available_at, dispatch_at)"
        " SELECT 'default', %s, '{}', due, due FROM (SELECT now() + make_interval(secs => %s) AS due) AS one"
        " RETURNING id",
        (type, seconds),
    ).fetchone()
    assert row is not None
    return int(row[0])


def beside_a_backlog(ready: int, seconds: float) -> None:
    """Lateness and rescue in one queue while another one is full."""
    with ExitStack() as stack:
        run = Run(stack)
        run.fill("backlog", ready)
        run.start("scheduler")
        run.start("worker")
        first = _insert(run.db, "once", 0.0)
        run.until("SELECT status = 'completed' FROM jobs WHERE id = %s", first)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            _insert(run.db, "once", 1.0)
            _insert(run.db, "again", 0.0)
            time.sleep(EVERY)
        time.sleep(4.0)
        for title, type in (("scheduled jobs", "once"), ("retries", "again")):
            late = [row[0] for row in run.ask(_LATE, type, first)]
            print(f"{ready:>9,} ready elsewhere: {title:15} {_percentiles(late)}", flush=True)
        _rescue(run, ready)


def _rescue(run: Run, ready: int) -> None:
    took = []
    for number in range(KILLS):
        victim = run.start("worker", GOQUEUE_WORKER_CONCURRENCY="1", GOQUEUE_WORKER_QUEUES="victim")
        [[held]] = run.ask(
            "INSERT INTO jobs (queue, type, payload, dispatch_at) VALUES ('victim', 'hold', '{}', now()) RETURNING id"
        )
        run.until("SELECT status = 'processing' FROM jobs WHERE id = %s", held)
        time.sleep(1.0 + number / KILLS)
        [[killed]] = run.ask("SELECT clock_timestamp()")
        os.kill(victim.pid, signal.SIGKILL)
        run.until("SELECT status = 'pending' FROM jobs WHERE id = %s", held)
        [[seconds]] = run.ask("SELECT extract(epoch FROM updated_at - %s)::float FROM jobs WHERE id = %s", killed, held)
        took.append(seconds)
        run.ask(
            "UPDATE jobs SET status = 'cancelled', finished_at = now(), dispatch_at = NULL WHERE id = %s RETURNING 1",
            held,
        )
    print(f"{ready:>9,} ready elsewhere: rescued after a kill {_percentiles(took)} (lease {LEASE:g} s)", flush=True)


def of_one_moment(count: int) -> None:
    """Many jobs that are due at once."""
    with ExitStack() as stack:
        run = Run(stack, GOQUEUE_REDIS_WINDOW=str(10 * count), GOQUEUE_SCHEDULER_RECONCILE_SECONDS="600")
        lead = 10 + count // 25_000
        run.fill("backlog", count, f"now() + interval '{lead} s'", scheduled=True)
        run.start("scheduler")
        [[wait]] = run.ask("SELECT extract(epoch FROM min(available_at) - clock_timestamp())::float FROM jobs")
        if wait < 3:
            raise RuntimeError("the machine is too slow for this size")
        time.sleep(wait)
        began = time.monotonic()
        with run.servers.redis() as redis:
            while (there := redis.zcard("{goqueue}:ready:backlog")) < count:
                if time.monotonic() - began > 300:
                    raise TimeoutError(f"{there} of {count}")
                time.sleep(0.02)
        print(f"{count:>9,} of one moment: all in Redis after {time.monotonic() - began:5.1f} s", flush=True)


def main() -> None:
    """Both measurements."""
    ready = int(sys.argv[1]) if len(sys.argv) > 1 else READY
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else SECONDS
    for size in (0, ready):
        beside_a_backlog(size, seconds)
    for size in SIZES:
        if size <= max(ready, SIZES[0]):
            of_one_moment(size)


if __name__ == "__main__":
    main()
