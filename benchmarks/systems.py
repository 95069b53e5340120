"""The systems that are compared: where each keeps its jobs, how its driver is started and configured."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis

from benchmarks.counting import Counter, Keys, Results, Rows

HERE = Path(__file__).resolve().parent
POSTGRES, VALKEY, BOTH = "PostgreSQL", "Valkey (no persistence)", "PostgreSQL + Valkey"


def cache() -> Path:
    """Where drivers are built: outside the checkout, kept between runs."""
    chosen = os.environ.get("GOQUEUE_CACHE_DIR")
    if chosen:
        return Path(chosen) / "bench"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "goqueue" / "bench"


@dataclass(frozen=True)
class System:
    """One system under test."""

    name: str
    language: str
    keeps: str
    """Where its jobs, and so their completions, are."""
    counter: Callable[[], Counter]
    how: str
    """How it is configured, in one line for the report; the driver's docstring says why."""
    version: str = ""
    driver: str = ""
    """Module below `benchmarks.peers` where it is not the name."""
    most: int = 10_000_000
    """Jobs seeded at most: a slow system's window is closed by time, and seeding it costs as much again."""
    finish_time: str = ""
    """SQL for the commit time of each job's end and its payload's `sent`, where PostgreSQL knows it."""
    env: Mapping[str, str] = field(default_factory=dict)
    alongside: tuple[str, ...] = ()
    """A further command of its driver that runs beside the workers, as in a real deployment."""

    @property
    def peer(self) -> bool:
        """Whether it comes from outside and has to be fetched."""
        return bool(self.version)

    @property
    def home(self) -> Path:
        """Its driver's program (Go) or virtual environment (Python)."""
        return cache() / f"{self.driver or self.name}-{self.version}"

    def command(self, *arguments: str) -> list[str]:
        """The driver's command line."""
        if self.language == "Go":
            return [str(self.home), *arguments]
        python = str(self.home / "bin" / "python") if self.peer else sys.executable
        return [python, "-m", f"benchmarks.peers.{self.driver or self.name}_driver", *arguments]


def _left(*commands: str) -> Callable[[], Counter]:
    """Jobs that Redis still holds: the sum of what these commands answer, asked in one transaction."""

    def left(redis: Redis) -> int:
        with redis.pipeline(transaction=True) as pipe:
            for command in commands:
                pipe.execute_command(*command.split())  # type: ignore[no-untyped-call]
            return sum(int(reply) for reply in pipe.execute())

    return lambda: Keys(left)


def _commit_time(table: str, sent: str, where: str) -> str:
    return f"SELECT ({sent})::bigint, pg_xact_commit_timestamp(xmin) FROM {table} WHERE {where}"  # noqa: S608 - constants of the benchmarks


def _stream_left(redis: Redis) -> int:
    """Messages of taskiq's stream that nobody has acknowledged."""
    length = int(redis.xlen("taskiq"))
    for group in redis.xinfo_groups("taskiq") if length else []:
        return length - int(group["entries-read"] or 0) + int(group["pending"])
    return length


SLOW = 20_000
"""Jobs seeded for systems that drain some thousands in a window, and enqueue one job a call."""

OURS: tuple[System, ...] = (
    System(
        "goqueue",
        "Python",
        BOTH,
        lambda: Rows("jobs", "finished_at IS NOT NULL"),
        how="as shipped; a scheduler beside the workers, its CPU counted",
        finish_time=_commit_time("jobs", "payload->>'sent'", "status = 'completed'"),
        alongside=("schedule",),
    ),
    System(
        "floor",
        "Python",
        BOTH,
        lambda: Rows("jobs", "finished_at IS NOT NULL"),
        how="GoQueue's SQL and Redis commands from a bare loop; no-op jobs are not run, the others by bare tasks",
    ),
)

GO: tuple[System, ...] = (
    System(
        "river",
        "Go",
        POSTGRES,
        lambda: Rows("river_job", "state = 'completed'"),
        how="as its own `river bench`: FetchCooldown 2 ms, FetchPollInterval 20 ms; bulk: InsertManyFast",
        version="0.51.1",
        finish_time=_commit_time("river_job", "args->>'sent'", "state = 'completed'"),
    ),
    System(
        "asynq",
        "Go",
        VALKEY,
        _left("LLEN asynq:{default}:pending", "LLEN asynq:{default}:active", "ZCARD asynq:{default}:retry"),
        how="no retention, TaskCheckInterval 10 ms; bulk: 50 callers",
        version="0.26.0",
    ),
)

PYTHON: tuple[System, ...] = (
    System(
        "pgqueuer",
        "Python",
        POSTGRES,
        lambda: Rows("pgqueuer", None),
        how="asyncpg, uvloop, batches of half the slots; bulk: list form of enqueue",
        version="1.6.0",
    ),
    System(
        "procrastinate",
        "Python",
        POSTGRES,
        lambda: Rows("procrastinate_jobs", "status = 'succeeded'"),
        how="psycopg pool of 20, uvloop, async tasks; bulk: batch_defer",
        version="3.10.0",
        finish_time=_commit_time("procrastinate_jobs", "args->>'sent'", "status = 'succeeded'"),
    ),
    System(
        "celery",
        "Python",
        VALKEY,
        _left("LLEN celery", "HLEN unacked"),
        how="results ignored, prefetch 128, solo pool in each process (threads for the 5 ms job)",
        version="5.7.0",
        most=SLOW,
    ),
    System(
        "celery-postgres",
        "Python",
        "Valkey, results in PostgreSQL",
        lambda: Results("celery_taskmeta", "status = 'SUCCESS'", _left("LLEN celery", "HLEN unacked")()),
        how="as celery, each result stored in PostgreSQL; done when the result is",
        version="5.7.0",
        driver="celery",
        most=SLOW,
        env={"BENCH_CELERY_RESULTS": "1"},
    ),
    System(
        "dramatiq",
        "Python",
        VALKEY,
        _left("HLEN dramatiq:default.msgs"),
        how="8 threads a process (its default); as many as slots for the 5 ms job",
        version="2.2.1",
        most=SLOW,
    ),
    System(
        "rq",
        "Python",
        VALKEY,
        _left("LLEN rq:queue:default", "LLEN rq:queue:default:intermediate", "ZCARD rq:wip:default"),
        how="SimpleWorker, one job at a time in each process, results not kept; bulk: enqueue_many",
        version="3.0.0",
        most=SLOW,
    ),
    System(
        "arq",
        "Python",
        VALKEY,
        _left("ZCARD arq:queue"),
        how="results not kept, uvloop, polled every 10 ms; bulk: 50 callers",
        version="0.28.0",
        most=SLOW,
    ),
    System(
        "saq",
        "Python",
        VALKEY,
        _left("ZCARD saq:default:incomplete"),
        how="Redis queue, results not kept, uvloop; bulk: 50 callers",
        version="0.26.4",
        most=SLOW,
    ),
    System(
        "taskiq",
        "Python",
        VALKEY,
        lambda: Keys(_stream_left),
        how="stream broker (acknowledges), no results, uvloop; bulk: 50 callers",
        version="0.13.0",
        most=SLOW,
    ),
)

ALL = OURS + GO + PYTHON

BY_NAME = {system.name: system for system in ALL}
