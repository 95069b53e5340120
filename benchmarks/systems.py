"""The systems that are compared: where each keeps its jobs, how its driver is started and configured."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis

from benchmarks.counting import Counter, Keys, Rows

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
        return cache() / f"{self.name}-{self.version}"

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
    return f"SELECT {sent}::bigint, pg_xact_commit_timestamp(xmin) FROM {table} WHERE {where}"  # noqa: S608


ALL: tuple[System, ...] = (
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
        how="GoQueue's SQL and Redis commands from a bare loop that runs no handler",
    ),
    System(
        "river",
        "Go",
        POSTGRES,
        lambda: Rows("river_job", "state = 'completed'"),
        how="as its own `river bench`: FetchCooldown 2 ms, FetchPollInterval 20 ms; bulk: InsertManyFast",
        version="0.51.1",
        finish_time=_commit_time("river_job", "args->>'sent'", "state = 'completed'"),
    ),
)

BY_NAME = {system.name: system for system in ALL}
