"""One run of one system: fresh stores, its driver's processes, the runner's clock."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.children import Child, DriverFailed
from benchmarks.counting import Counter, Stores
from benchmarks.servers import Servers
from benchmarks.systems import System


@dataclass
class Options:
    """What the command line chose."""

    jobs: int = 200_000
    rounds: int = 5
    concurrency: int = 1000
    """Jobs that run at once, in all worker processes together."""
    seconds: float = 10.0
    """Longest window of one drain."""
    realistic_concurrency: int = 50


@dataclass
class Bench:
    """What all measures share."""

    servers: Servers
    options: Options
    systems: list[System]
    rates: dict[str, list[float]] = field(default_factory=dict)
    """Drain rates with one worker process seen so far, from which half load is taken."""
    samples: dict[str, list[float]] = field(default_factory=dict)
    """Every idle wait in ms, for the plot."""

    @contextlib.contextmanager
    def run(self, system: System, **env: str) -> "Iterator[Run]":
        """A run on fresh stores, with what the system needs beside its workers already there."""
        fresh = Run(self, system, env)
        if not self.servers.fresh(system.name):
            fresh.complete("setup", seconds=60)
            self.servers.keep(system.name)
        with contextlib.ExitStack() as stack:
            if system.alongside:
                fresh.beside.append(stack.enter_context(fresh.start(*system.alongside)))
                self._await_mark(fresh.beside[0])
            yield fresh

    def _await_mark(self, child: Child) -> None:
        """Wait until a process that serves all others has written to the empty Valkey: then it is at work."""
        with self.servers.redis() as redis:
            until = time.monotonic() + 30
            while not redis.dbsize() and time.monotonic() < until:
                child.alive()
                time.sleep(0.02)


class Run:
    """One system on fresh stores."""

    def __init__(self, bench: Bench, system: System, env: dict[str, str]) -> None:
        self._bench = bench
        self.system = system
        self._log = bench.servers.folder / f"{system.name}.log"
        self._env = {
            **os.environ,
            **system.env,
            "PYTHONUNBUFFERED": "1",
            "BENCH_POSTGRES_URL": bench.servers.postgres_url,
            "BENCH_REDIS_URL": bench.servers.valkey.url,
            **bench.servers.environment,
            **env,
        }
        self.counter: Counter = system.counter()
        self.beside: list[Child] = []
        """What runs beside the workers."""

    @contextlib.contextmanager
    def stores(self) -> Iterator[Stores]:
        """The runner's own eyes on the stores."""
        with self._bench.servers.connect() as postgres, self._bench.servers.redis() as redis:
            yield Stores(postgres, redis)

    def start(self, *arguments: str, **env: str) -> Child:
        """Start one process of the driver."""
        return Child(self.system.command(*arguments), {**self._env, **env}, self._log)

    def complete(self, *arguments: str, seconds: float) -> None:
        """Run one command of the driver to its end."""
        with self.start(*arguments) as child:
            child.wait(seconds)

    @contextlib.contextmanager
    def enqueuer(self, mode: str, count: int, parameter: int = 0) -> Iterator[Child]:
        """An enqueuing process, connected and waiting for `go`."""
        with self.start("enqueue", mode, str(count), str(parameter)) as child:
            child.expect("ready", 60)
            yield child

    def seed(self, count: int) -> float:
        """Put `count` jobs in, by the system's fastest way; the seconds it took."""
        with self.enqueuer("bulk", count) as child:
            begin = time.monotonic()
            child.go()
            child.expect("done", 600)
            return time.monotonic() - begin

    def settle(self, count: int) -> None:
        """After seeding: check that the jobs are there and let the stores come to rest."""
        with self.stores() as stores:
            if (stored := self.counter.stored(stores)) != count:
                raise DriverFailed(f"{self.system.name}: {stored} jobs are stored, {count} were enqueued")
            self._bench.servers.settle()
            self.counter.begin(stores, count)

    @contextlib.contextmanager
    def workers(self, processes: int, concurrency: int, **env: str) -> Iterator[list[Child]]:
        """`processes` workers that share `concurrency` slots; with them comes what runs beside them."""
        share = {"BENCH_CONCURRENCY": str(max(1, concurrency // processes)), **env}
        with contextlib.ExitStack() as stack:
            yield [*(stack.enter_context(self.start("work", **share)) for _ in range(processes)), *self.beside]
