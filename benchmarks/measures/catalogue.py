"""All measures, by their number."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.bench import Bench
from benchmarks.measures import bloat, drain, enqueue, http, latency
from benchmarks.systems import BOTH, POSTGRES, System


def _any(system: System) -> bool:
    return True


def _not_floor(system: System) -> bool:
    """The floor has no front door to measure."""
    return system.name != "floor"


def _ours(system: System) -> bool:
    return system.name == "goqueue"


def _rows(system: System) -> bool:
    """Its backlog is rows."""
    return system.keeps in (POSTGRES, BOTH) and system.name != "floor"


@dataclass(frozen=True)
class Measure:
    """One line of the bench."""

    number: int
    title: str
    run: Callable[[Bench, System], dict[str, float]]
    units: dict[str, str]
    applies: Callable[[System], bool] = _not_floor

    @property
    def heading(self) -> str:
        """Number and title."""
        return f"{self.number}. {self.title}"


JOBS = "jobs/s"
MS = "ms"

ALL: tuple[Measure, ...] = (
    Measure(
        1,
        "Drain of no-op jobs",
        drain.plain,
        {"drain, 1 process": JOBS, "drain, 2 processes": JOBS},
        _any,
    ),
    Measure(
        2,
        "Enqueue",
        enqueue.enqueue,
        {"enqueue, 1 caller": JOBS, "enqueue, 50 callers": JOBS, "enqueue, bulk": JOBS},
    ),
    Measure(
        3,
        "Enqueue → start on an idle system",
        latency.idle,
        {f"idle wait p{share}": MS for share in (50, 90, 99)},
        _any,
    ),
    Measure(
        4,
        "Enqueue → end under half load",
        latency.half_load,
        {
            "half load, jobs/s": JOBS,
            **{
                f"{load}, {end} p{share}": MS
                for load in ("half load", f"{latency.COMMON_RATE:,} jobs/s")
                for end in ("handler ended", "end persisted")
                for share in (50, 99)
            },
        },
    ),
    Measure(
        5,
        "Drain by depth, 1 process",
        drain.depths,
        {f"drain, {size:,} waiting": JOBS for size in (10_000, 100_000, 1_000_000)},
        _any,
    ),
    Measure(
        6,
        "Drain of a database that is not fresh, 2 processes",
        bloat.bloat,
        {"drain, fresh": JOBS, "drain, old snapshot held": JOBS, "drain, after 1M dead tuples": JOBS},
        _rows,
    ),
    Measure(
        7,
        "REST API, wrk at 50 connections, 2 API processes",
        http.requests,
        {
            "POST /jobs/create": "req/s",
            "POST /jobs/create p99": MS,
            "GET /jobs/{id}": "req/s",
            "GET /jobs/{id} p99": MS,
            "API memory, each process": "MiB",
        },
        _ours,
    ),
    Measure(
        8,
        "Realistic job (5 ms of awaiting), 1 process",
        drain.realistic,
        {"5 ms job": JOBS, "5 ms job, part of ideal": "of 1"},
        _any,
    ),
    Measure(
        9,
        "Cost",
        drain.cost,
        {
            "worker CPU per job": "µs",
            "PostgreSQL CPU per job": "µs",
            "Valkey CPU per job": "µs",
            "WAL per job": "bytes",
            "idle worker memory": "MiB",
        },
        _any,
    ),
    Measure(
        10,
        "POST /jobs/create with a key and rate limits, wrk at 50 connections, 2 API processes",
        http.guarded,
        {"POST, open": "req/s", "POST, with a key": "req/s", "POST, with a key and limits": "req/s"},
        _ours,
    ),
)

BY_NUMBER = {measure.number: measure for measure in ALL}
