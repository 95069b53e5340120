"""What traces cost a drain (decision 14): `python -m benchmarks.tracing`.

One worker drains no-op jobs, in turns untraced and with each way to trace; the collector is `benchmarks.sink`, a
process that keeps what comes. Each job has a trace context, as a job has that a traced caller enqueued; two spans of it
are recorded, its wait and its attempt. `root`: jobs without a context, whose traces begin with the attempt, one span a
job. `--before` names another checkout, with a `.venv` of its own, that is measured in the same rounds.
"""

import argparse
import os
import statistics
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Final, LiteralString

from psycopg import sql

from benchmarks.bench import Bench, Options, Run
from benchmarks.builds import build, ratio
from benchmarks.children import ROOT
from benchmarks.measures.drain import drain
from benchmarks.servers import Servers
from benchmarks.systems import System

CONTEXTS: Final[LiteralString] = """
UPDATE jobs SET trace_context = format(
    '00-%%s-%%s-%%s', md5(id::text), left(md5('span' || id), 16), CASE WHEN id %% {} = 0 THEN '01' ELSE '00' END
)
"""


@dataclass(frozen=True)
class Way:
    """One way to trace. `every`: of so many jobs one has a recorded context; 0: none has any."""

    name: str
    every: int
    protocol: str = ""
    sampler: str = "parentbased_always_on"
    share: str = "1"


WAYS: Final = (
    Way("off", 1),
    Way("all, http", 1, "http/protobuf"),
    Way("all, grpc", 1, "grpc"),
    Way("1 %, http", 100, "http/protobuf", "parentbased_traceidratio", "0.01"),
    Way("1 %, root", 0, "http/protobuf", "parentbased_traceidratio", "0.01"),
    Way("all, root", 0, "http/protobuf"),
)


class Sink:
    """The collector."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sink"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self._http, self._grpc = (int(self._process.stdout.readline()) for _ in range(2))

    def environment(self, way: Way) -> dict[str, str]:
        """What makes a process send its spans here."""
        if not way.protocol:
            return {}
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._grpc if way.protocol == 'grpc' else self._http}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": way.protocol,
            "OTEL_TRACES_SAMPLER": way.sampler,
            "OTEL_TRACES_SAMPLER_ARG": way.share,
        }

    def spans(self) -> int:
        """How many came since the last time."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._http}/spans") as answer:
            return int(answer.read())

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


@dataclass
class Figures:
    """Of one build and way, a value for each round."""

    rates: list[float]
    cpu: list[float]
    """Microseconds of the worker's CPU time a job."""
    spans: list[float]
    """Spans a job that reached the collector."""


def _prepare(bench: Bench, way: Way) -> None:
    with bench.servers.connect() as connection:
        if way.every:
            connection.execute(sql.SQL(CONTEXTS.replace("%%", "%")).format(way.every))
        connection.execute("VACUUM jobs")


def _measure(bench: Bench, sink: Sink, system: System, way: Way, jobs: int) -> tuple[float, float, float]:
    def prepare(_: Run) -> None:
        _prepare(bench, way)

    window = drain(bench, system, 1, jobs, prepare=prepare, **sink.environment(way))  # type: ignore[arg-type]
    return window.rate, window.worker_cpu / window.jobs * 1e6, sink.spans() / jobs


def _print(results: dict[tuple[str, str], Figures]) -> None:
    head = ("jobs/s", "of off", "of before", "CPU us/job", "of off", "spans/job")
    print(f"{'build':<8}{'way':<12}", *(f"{title:>11}" for title in head))
    for (name, way), found in results.items():
        off, before = results[name, "off"], results.get(("before", way))
        figures = (
            f"{statistics.median(found.rates):,.0f}",
            ratio(found.rates, off.rates),
            ratio(found.rates, before.rates) if before else "",
            f"{statistics.median(found.cpu):.1f}",
            ratio(found.cpu, off.cpu),
            f"{statistics.median(found.spans):.3f}",
        )
        print(f"{name:<8}{way:<12}", *(f"{figure:>11}" for figure in figures))


def main() -> None:
    """Print the table, after each round."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracing", description=__doc__)
    parser.add_argument("--before", type=Path, help="another checkout, measured in turns with this one")
    parser.add_argument("--jobs", type=int, default=40_000, help="jobs in a drain (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (%(default)s)")
    parser.add_argument("--ways", default=",".join(str(number) for number in range(len(WAYS))), help="e.g. 0,1")
    arguments = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        del os.environ[name]
    builds = [build("now", ROOT)]
    if arguments.before:
        builds.append(build("before", arguments.before.resolve()))
    ways = [WAYS[int(number)] for number in arguments.ways.split(",")]
    results = {(one.name, way.name): Figures([], [], []) for one in builds for way in ways}
    sink = Sink()
    try:
        with Servers() as servers:
            bench = Bench(servers, Options(jobs=arguments.jobs, seconds=60), list(builds))
            for number in range(arguments.rounds):
                for way in ways:
                    for one in builds:
                        rate, cpu, spans = _measure(bench, sink, one, way, arguments.jobs)
                        found = results[one.name, way.name]
                        found.rates.append(rate)
                        found.cpu.append(cpu)
                        found.spans.append(spans)
                        print(f"{number} {one.name} {way.name}: {rate:,.0f} jobs/s", file=sys.stderr, flush=True)
                _print(results)
    finally:
        sink.close()


if __name__ == "__main__":
    main()
