"""Jobs per second while a backlog is worked off, and what each job costs."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.bench import Bench, Run
from benchmarks.children import Child, DriverFailed, cpu_seconds, memory_bytes
from benchmarks.counting import Stores
from benchmarks.systems import System

WARM_UP = 0.5
"""Seconds after the first completion (or until a tenth is done) before the clock starts."""


@dataclass
class Window:
    """What happened between the two looks that bound a measurement."""

    jobs: int
    seconds: float
    worker_cpu: float
    postgres_cpu: float
    valkey_cpu: float
    wal: int

    @property
    def rate(self) -> float:
        """Completions a second."""
        return self.jobs / self.seconds


Look = tuple[float, int, float, float, float, int]


def _look(bench: Bench, run: Run, stores: Stores, workers: list[Child]) -> Look:
    now = time.monotonic()
    done = run.counter.exactly(stores)
    cpu = sum(cpu_seconds(worker.process.pid) for worker in workers)
    return now, done, cpu, *bench.servers.cpu(), bench.servers.wal_bytes()


def watch(bench: Bench, run: Run, stores: Stores, workers: list[Child], total: int) -> Window:
    """Follow a drain from outside until all is done or the window's time is over."""
    pause = 0.005 if total <= 20_000 else 0.02
    longest = time.monotonic() + 60 + bench.options.seconds
    while (done := run.counter.roughly(stores)) == 0:
        _still_going(workers, longest)
        time.sleep(pause)
    warm = time.monotonic() + WARM_UP
    while done < total / 10 and time.monotonic() < warm:
        time.sleep(pause)
        done = run.counter.roughly(stores)
    first = _look(bench, run, stores, workers)
    until = first[0] + bench.options.seconds
    ended = time.monotonic()
    while run.counter.roughly(stores) < total and ended < until:
        _still_going(workers, longest)
        time.sleep(pause)
        ended = time.monotonic()
    last = _look(bench, run, stores, workers)
    # All done: the look that saw it ended the clock. Time over: the exact count did.
    seconds = (ended if last[1] == total and ended < until else last[0]) - first[0]
    return Window(last[1] - first[1], seconds, *(b - a for a, b in zip(first[2:], last[2:], strict=True)))  # type: ignore[arg-type]


def _still_going(workers: list[Child], longest: float) -> None:
    for worker in workers:
        worker.alive()
    if time.monotonic() > longest:
        raise DriverFailed("no completion was seen in time")


def drain(
    bench: Bench,
    system: System,
    processes: int,
    jobs: int,
    concurrency: int | None = None,
    prepare: Callable[[Run], None] = lambda run: None,
    **env: str,
) -> Window:
    """Seed, start the workers, watch."""
    total = min(jobs, system.most)
    slots = concurrency or bench.options.concurrency
    with bench.run(system, **env) as run:
        run.seed(total)
        prepare(run)
        run.settle(total)
        with run.stores() as stores, run.workers(processes, slots) as workers:
            return watch(bench, run, stores, workers, total)


def plain(bench: Bench, system: System) -> dict[str, float]:
    """Measure 1: no-op jobs, one and two worker processes."""
    figures = {}
    for processes in (1, 2):
        window = drain(bench, system, processes, bench.options.jobs)
        figures[f"drain, {processes} process{'es' if processes > 1 else ''}"] = window.rate
        if processes == 1:
            bench.rates.setdefault(system.name, []).append(window.rate)
    return figures


def depths(bench: Bench, system: System) -> dict[str, float]:
    """Measure 5: the same with 10k, 100k and 1M waiting.

    By one process: 10,000 jobs are gone before the start of a second one would be over.
    """
    sizes = [size for size in (10_000, 100_000, 1_000_000) if size <= system.most]
    return {f"drain, {size:,} waiting": drain(bench, system, 1, size).rate for size in sizes}


def realistic(bench: Bench, system: System) -> dict[str, float]:
    """Measure 8: jobs that await 5 ms, against the ideal of slots / 5 ms."""
    slots = bench.options.realistic_concurrency
    window = drain(bench, system, 1, min(bench.options.jobs, 100_000), slots, BENCH_AWAIT_MS="5")
    return {"5 ms job": window.rate, "5 ms job, part of ideal": window.rate / (slots / 0.005)}


def cost(bench: Bench, system: System) -> dict[str, float]:
    """Measure 9: CPU and WAL for each job in a drain; memory of a worker that has nothing to do."""
    window = drain(bench, system, 1, bench.options.jobs)
    jobs = max(1, window.jobs)
    with bench.run(system) as run, run.workers(1, bench.options.concurrency) as workers:
        time.sleep(4)
        workers[0].alive()
        memory = memory_bytes(workers[0].process.pid)
    return {
        "worker CPU per job": window.worker_cpu / jobs * 1e6,
        "PostgreSQL CPU per job": window.postgres_cpu / jobs * 1e6,
        "Valkey CPU per job": window.valkey_cpu / jobs * 1e6,
        "WAL per job": window.wal / jobs,
        "idle worker memory": memory / 2**20,
    }
