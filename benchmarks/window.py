"""`python -m benchmarks.window [jobs] [--quiet SECONDS]`: many waiting jobs in one queue, and what others notice of it.

One queue, which no worker serves, gets 10,000,000 waiting jobs (or as many as named) by SQL; a scheduler and a worker
of another queue run meanwhile. Printed: Redis' memory, the scheduler's, the lateness of the other queue's scheduled
jobs in each phase, and how fast the ready set is refilled while its jobs are taken out. docs/capacity.md has the table.
"""

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.servers import DATABASE, Servers
from goqueue.store import migrate

BACKLOG, OTHER = "backlog", "default"
CHUNK: Final = 500_000
"""Jobs of one INSERT."""

PROBE_SECONDS: Final = 0.2
"""Seconds between two scheduled jobs of the other queue; each is scheduled for one second later."""

READY: Final = "{goqueue}:ready:" + BACKLOG

INSERT: Final = """
INSERT INTO jobs (queue, type, payload)
SELECT %s, 'bench', jsonb_build_object('sent', number, 'pad', repeat('x', 150)) FROM generate_series(1, %s) number
"""

PROBE: Final = """
INSERT INTO jobs (queue, type, payload, available_at, dispatch_at)
VALUES (%s, 'bench', '{"sent": 0, "pad": ""}', now() + interval '1 s', now() + interval '1 s')
"""

LATE: Final = """
SELECT coalesce(extract(epoch FROM started_at - available_at), extract(epoch FROM now() - available_at))::float
FROM jobs WHERE queue = %s AND available_at BETWEEN to_timestamp(%s) AND least(to_timestamp(%s), now())
"""


@dataclass
class Run:
    """The servers and processes of one run, and what was seen of them."""

    servers: Servers
    scheduler: "subprocess.Popen[bytes]"
    stop: threading.Event = field(default_factory=threading.Event)
    redis_peak: int = 0
    rss_peak: int = 0

    def watch(self) -> None:
        """Note the peaks until stopped."""
        with self.servers.redis() as redis:
            while not self.stop.wait(0.1):
                info: Any = redis.info("memory")
                self.redis_peak = max(self.redis_peak, int(info["used_memory"]))
                self.rss_peak = max(self.rss_peak, rss(self.scheduler.pid))

    def probe(self) -> None:
        """Schedule jobs of the other queue until stopped."""
        with self.servers.connect() as connection:
            while not self.stop.wait(PROBE_SECONDS):
                connection.execute(PROBE, (OTHER,))

    def lateness(self, start: float, end: float) -> tuple[float, float]:
        """Median and largest lateness (s) of what was due between two times."""
        with self.servers.connect() as connection:
            late = [float(row[0]) for row in connection.execute(LATE, (OTHER, start, end)).fetchall()]
        return (statistics.median(late), max(late)) if late else (float("nan"), float("nan"))


def rss(pid: int) -> int:
    """Resident bytes of a process."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def running(servers: Servers) -> Iterator[Run]:
    """A scheduler, a worker of the other queue, and who watches them."""
    environment = {
        **os.environ,
        **servers.environment,
        "GOQUEUE_JOBS": "benchmarks.goqueue_jobs",
        "GOQUEUE_QUEUES": BACKLOG,
        "GOQUEUE_WORKER_QUEUES": OTHER,
        "GOQUEUE_LOG_LEVEL": "warning",
        "GOQUEUE_WORKER_HEALTH_PORT": "0",
        "GOQUEUE_SCHEDULER_HEALTH_PORT": "0",
    }
    parts = [
        subprocess.Popen([sys.executable, "-m", "goqueue_cli", part], env=environment)
        for part in ("scheduler", "worker")
    ]
    run = Run(servers, parts[0])
    threads = [threading.Thread(target=work) for work in (run.watch, run.probe)]
    try:
        for thread in threads:
            thread.start()
        time.sleep(5)
        yield run
    finally:
        run.stop.set()
        for thread in threads:
            thread.join()
        for part in parts:
            part.terminate()
            part.wait()


def fill(servers: Servers, jobs: int) -> None:
    """The backlog, as another program's SQL makes it."""
    with servers.connect() as connection:
        for start in range(0, jobs, CHUNK):
            connection.execute(INSERT, (BACKLOG, min(CHUNK, jobs - start)))


def depth(servers: Servers) -> tuple[int, int]:
    """The backlog's jobs in Redis, and beyond it."""
    with servers.redis() as redis:
        beyond: Any = redis.hget("{goqueue}:beyond", BACKLOG)
        members: Any = redis.zcard(READY)
        return int(members), int(beyond or 0)


def drain(servers: Servers, rate: float | None, seconds: float) -> tuple[float, float, int]:
    """Take jobs out as fast as possible, or at most so many a second.

    Returns:
        Jobs a second, the part of the fetches that found nothing, and the lowest length of the set.
    """
    taken = fetches = empty = 0
    lowest = 1 << 60
    began = time.monotonic()
    with servers.redis() as redis:
        while (passed := time.monotonic() - began) < seconds:
            if rate is not None and taken > rate * passed:
                time.sleep(0.002)
                continue
            got: Any = redis.zpopmin(READY, 500)
            fetches += 1
            empty += not got
            taken += len(got)
            members: Any = redis.zcard(READY)
            lowest = min(lowest, int(members))
            if not got:
                time.sleep(0.01)
    return taken / (time.monotonic() - began), empty / fetches, lowest


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.window", description=__doc__)
    parser.add_argument("jobs", type=int, nargs="?", default=10_000_000)
    parser.add_argument("--quiet", type=float, default=90.0, help="seconds to watch while nothing is added or taken")
    arguments = parser.parse_args()
    with Servers() as servers:
        with servers.connect("postgres") as admin:
            admin.execute(f"CREATE DATABASE {DATABASE}")
        migrate.upgrade(servers.postgres_url)
        with running(servers) as run, servers.redis() as redis:
            info: Any = redis.info("memory")
            base, base_rss, run.redis_peak = int(info["used_memory"]), rss(run.scheduler.pid), 0
            times = [time.time()]
            fill(servers, arguments.jobs)
            times.append(time.time())
            wait_for_all(servers, arguments.jobs)
            times.append(time.time())
            members, beyond = depth(servers)
            time.sleep(arguments.quiet)
            times.append(time.time())
            print(f"| {arguments.jobs:,} waiting jobs in one queue | |\n|---|---|")
            print(f"| inserted in | {times[1] - times[0]:.0f} s |")
            print(f"| all seen by the leader after another | {times[2] - times[1]:.0f} s |")
            print(f"| in Redis / beyond | {members:,} / {beyond:,} |")
            print(f"| Redis memory for them: peak | {(run.redis_peak - base) / 2**20:.1f} MiB |")
            print(f"| scheduler RSS: before / peak | {base_rss / 2**20:.0f} / {run.rss_peak / 2**20:.0f} MiB |")
            names = ("being inserted", "being swept", "waiting")
            for name, start, end in zip(names, times[:-1], times[1:], strict=True):
                show_lateness(run, name, start, end)
            for rate in (20_000, 50_000, None):
                start = time.time()
                speed, empty, lowest = drain(servers, rate, 15)
                wanted = "as fast as possible" if rate is None else f"{rate:,}/s"
                print(
                    f"| taken out, {wanted} | {speed:,.0f} jobs/s, {empty:.1%} of fetches empty, lowest {lowest:,} |",
                    flush=True,
                )
                show_lateness(run, "being taken out", start, time.time())
                time.sleep(5)


def wait_for_all(servers: Servers, jobs: int) -> None:
    """Until the depth is right."""
    for _ in range(6000):
        if abs(sum(depth(servers)) - jobs) <= jobs // 1000:
            return
        time.sleep(0.1)
    raise RuntimeError(f"depth is {depth(servers)} after ten minutes")


def show_lateness(run: Run, name: str, start: float, end: float) -> None:
    """A row of the table."""
    middle, worst = run.lateness(start, end)
    print(
        f"| lateness of the other queue while they are {name}: median / max | {middle:.2f} / {worst:.2f} s |",
        flush=True,
    )


if __name__ == "__main__":
    main()
