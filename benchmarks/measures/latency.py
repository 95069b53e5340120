"""How long a job waits: stamped by the caller and the handler on one clock, sent to the runner by datagram.

The stamps are made by our drivers, not by the systems; where PostgreSQL keeps the job, the time of its end is
the commit time that PostgreSQL noted.
"""

import contextlib
import socket
import statistics
import threading
import time
from collections.abc import Iterator

from benchmarks.bench import Bench, Run
from benchmarks.children import Child, DriverFailed
from benchmarks.measures.drain import drain
from benchmarks.systems import System

IDLE_RATE = 50
"""Jobs a second on an idle system: each finds the worker asleep."""

LOAD_SECONDS = 6

COMMON_RATE = 4_000
"""Jobs a second at which systems are compared whose half load is more: half of its own rate is much more for one system
than for another."""


class Probe:
    """Receives `sent started ended` (ns) of every job."""

    def __init__(self) -> None:
        self.stamps: list[tuple[int, int, int]] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.2)
        self.port: int = self._socket.getsockname()[1]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                sent, started, ended = self._socket.recv(128).split()
                self.stamps.append((int(sent), int(started), int(ended)))

    def close(self) -> None:
        """Stop receiving."""
        self._over.set()
        self._thread.join()
        self._socket.close()


@contextlib.contextmanager
def probing() -> Iterator[Probe]:
    """A probe for the time of a run."""
    probe = Probe()
    try:
        yield probe
    finally:
        probe.close()


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _awake(run: Run, probe: Probe, workers: list[Child]) -> None:
    """Wait until a first job went through: from then on it is the system that is measured, not its start."""
    run.seed(1)
    until = time.monotonic() + 30
    while not probe.stamps:
        for worker in workers:
            worker.alive()
        if time.monotonic() > until:
            raise DriverFailed("no job went through in 30 s")
        time.sleep(0.05)
    time.sleep(0.5)
    probe.stamps.clear()


def _paced(run: Run, probe: Probe, count: int, rate: int, warm: int) -> list[tuple[int, int, int]]:
    """Enqueue at a steady rate; the stamps of all jobs but the first `warm`."""
    with run.enqueuer("paced", count, rate) as enqueuer:
        enqueuer.go()
        enqueuer.expect("done", count / rate * 3 + 30)
    until = time.monotonic() + 10
    while len(probe.stamps) < count and time.monotonic() < until:
        time.sleep(0.05)
    return sorted(probe.stamps)[warm:]


def idle(bench: Bench, system: System) -> dict[str, float]:
    """Measure 3: enqueue → start on an idle system."""
    with probing() as probe:
        slots = bench.options.concurrency
        with bench.run(system, BENCH_PROBE=str(probe.port)) as run, run.workers(1, slots) as workers:
            _awake(run, probe, workers)
            stamps = _paced(run, probe, 550, IDLE_RATE, warm=50)
    waits = [(started - sent) / 1e6 for sent, started, _ in stamps]
    bench.samples.setdefault(system.name, []).extend(waits)
    return {
        "idle wait p50": statistics.median(waits),
        "idle wait p90": percentile(waits, 0.9),
        "idle wait p99": percentile(waits, 0.99),
    }


def half_load(bench: Bench, system: System) -> dict[str, float]:
    """Measure 4: enqueue → end at half of the rate at which it drained with one process, and at one rate for all."""
    if system.name not in bench.rates:
        bench.rates[system.name] = [drain(bench, system, 1, bench.options.jobs).rate]
    rate = max(1, int(statistics.median(bench.rates[system.name]) / 2))
    figures = {"half load, jobs/s": float(rate), **_loaded(bench, system, rate, "half load")}
    if rate >= COMMON_RATE:
        figures |= _loaded(bench, system, COMMON_RATE, f"{COMMON_RATE:,} jobs/s")
    return figures


def _loaded(bench: Bench, system: System, rate: int, name: str) -> dict[str, float]:
    with probing() as probe:
        slots = bench.options.concurrency
        with bench.run(system, BENCH_PROBE=str(probe.port)) as run, run.workers(1, slots) as workers:
            _awake(run, probe, workers)
            stamps = _paced(run, probe, rate * LOAD_SECONDS, rate, warm=rate)
            time.sleep(0.5)
            committed = _committed(run) if system.finish_time else []
    ends = [(ended - sent) / 1e6 for sent, _, ended in stamps]
    figures = {
        f"{name}, handler ended p50": statistics.median(ends),
        f"{name}, handler ended p99": percentile(ends, 0.99),
    }
    if committed:
        figures[f"{name}, end persisted p50"] = statistics.median(committed)
        figures[f"{name}, end persisted p99"] = percentile(committed, 0.99)
    return figures


def _committed(run: Run) -> list[float]:
    with run.stores() as stores:
        waits = stores.postgres.execute(
            "SELECT (extract(epoch FROM ended) * 1e9)::bigint - sent FROM ("  # noqa: S608 - constants of the benchmarks
            + run.system.finish_time
            + ") AS ends (sent, ended) ORDER BY sent"
        ).fetchall()
    # The first second is warm-up here too.
    return [wait / 1e6 for (wait,) in waits[len(waits) // LOAD_SECONDS :]]
