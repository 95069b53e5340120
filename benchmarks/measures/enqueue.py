"""How fast jobs are accepted: the clock runs from the runner's word until every call has returned."""

import time

from benchmarks.bench import Bench
from benchmarks.children import DriverFailed
from benchmarks.systems import System

SINGLE_SECONDS = 3.0
"""About how long a measurement of single calls takes: a short one first tells how many jobs that are."""


def _accepted(bench: Bench, system: System, mode: str, count: int, parameter: int) -> float:
    with bench.run(system) as run, run.stores() as stores:
        with run.enqueuer(mode, count, parameter) as child:
            begin = time.monotonic()
            child.go()
            child.expect("done", 300)
            seconds = time.monotonic() - begin
        if (stored := run.counter.stored(stores)) != count:
            raise DriverFailed(f"{system.name}: {stored} jobs are stored, {count} were enqueued")
    return count / seconds


def enqueue(bench: Bench, system: System) -> dict[str, float]:
    """Measure 2: one call at a time, 50 at once, and in bulk."""
    figures = {}
    for callers in (1, 50):
        trial = _accepted(bench, system, "single", 100 + 4 * callers, callers)
        count = max(200, min(bench.options.jobs, int(trial * SINGLE_SECONDS)))
        figures[f"enqueue, {callers} caller{'s' if callers > 1 else ''}"] = _accepted(
            bench, system, "single", count, callers
        )
    figures["enqueue, bulk"] = _accepted(bench, system, "bulk", min(bench.options.jobs, system.most), 0)
    return figures
