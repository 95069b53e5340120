"""The runner: `python -m benchmarks` sets GoQueue beside River in ten minutes, `--all` beside everything."""

import argparse
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from benchmarks import machine, plot, report
from benchmarks.bench import Bench, Options
from benchmarks.children import DriverFailed
from benchmarks.install import install
from benchmarks.measures.catalogue import BY_NUMBER, Measure
from benchmarks.servers import Servers
from benchmarks.systems import BY_NAME, System

QUICK_MEASURES, QUICK_PEERS, QUICK_ROUNDS = (1, 3, 7), ("goqueue", "floor", "river"), 3

BARS = {
    "drain, 1 process": "no-op jobs a second, 1 worker process",
    "drain, 2 processes": "no-op jobs a second, 2 worker processes",
    "enqueue, bulk": "jobs enqueued a second, in bulk",
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--all", action="store_true", help="every peer and every measure; takes hours")
    parser.add_argument("--measures", help=f"numbers, e.g. 1,3 (of {', '.join(map(str, BY_NUMBER))})")
    parser.add_argument("--peers", help=f"names, e.g. goqueue,river (of {', '.join(BY_NAME)})")
    parser.add_argument("--jobs", type=int, default=Options.jobs, help="jobs in a drain (%(default)s)")
    parser.add_argument("--rounds", type=int, help=f"interleaved rounds ({QUICK_ROUNDS}; with --all {Options.rounds})")
    parser.add_argument("--concurrency", type=int, default=Options.concurrency, help="jobs at once, in all")
    parser.add_argument("--seconds", type=float, default=Options.seconds, help="longest window of one drain")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results here")
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="write the tables here")
    parser.add_argument("--svg", type=Path, metavar="PATH", help="write the plot here")
    return parser.parse_args()


def _chosen(arguments: argparse.Namespace) -> tuple[list[Measure], list[System]]:
    try:
        numbers = [int(item) for item in arguments.measures.split(",")] if arguments.measures else None
        names = arguments.peers.split(",") if arguments.peers else None
        if arguments.all:
            numbers, names = numbers or list(BY_NUMBER), names or list(BY_NAME)
        return (
            [BY_NUMBER[number] for number in numbers or QUICK_MEASURES],
            [BY_NAME[name] for name in names or QUICK_PEERS],
        )
    except (KeyError, ValueError) as error:
        sys.exit(f"no such measure or peer: {error}; see --help")


def _installed(systems: list[System], results: report.Results) -> list[System]:
    ready = []
    for system in systems:
        try:
            install(system)
            ready.append(system)
        except (DriverFailed, OSError) as error:
            results.failures.append(f"{system.name}: not installed: {error}")
            print(f"{system.name} is left out: {error}", file=sys.stderr)
    return ready


def _one(bench: Bench, measure: Measure, system: System, results: report.Results, number: int) -> None:
    begin = time.monotonic()
    try:
        figures = measure.run(bench, system)
    except Exception as error:
        # Whatever it was: the hours before and after it are worth having.
        results.failures.append(f"{measure.heading}, {system.name}, round {number}: {error!r}")
        print(f"{measure.number} {system.name} round {number} failed: {error!r}", file=sys.stderr)
        return
    results.add(measure.heading, system.name, figures)
    shown = ", ".join(f"{name} {report.number(value)}" for name, value in figures.items())
    spent = f"[{time.monotonic() - begin:.0f} s]"
    print(f"{measure.number} {system.name} round {number}: {shown}  {spent}", file=sys.stderr, flush=True)


def _how(systems: list[System]) -> str:
    return "How each is configured:\n" + "\n".join(f"- {system.name}: {system.how}" for system in systems)


def _publish(
    arguments: argparse.Namespace, results: report.Results, chosen: list[Measure], ready: list[System]
) -> None:
    measures = {measure.heading: measure.units for measure in chosen}
    text = report.document(results, ready, measures, _how(ready))
    print(text)
    if arguments.json:
        results.write(arguments.json)
    if arguments.markdown:
        arguments.markdown.write_text(text)
    if arguments.svg:
        arguments.svg.write_text(plot.svg(results, BARS))


def _stop(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main() -> int:
    """Run what was asked for; 1 if anything failed."""
    # An end from outside takes the same way as Ctrl-C: through every `with`, so that nothing is left running.
    signal.signal(signal.SIGTERM, _stop)
    arguments = _arguments()
    chosen, systems = _chosen(arguments)
    options = Options(
        jobs=arguments.jobs,
        rounds=arguments.rounds or (Options.rounds if arguments.all else QUICK_ROUNDS),
        concurrency=arguments.concurrency,
        seconds=arguments.seconds,
    )
    with Servers() as servers:
        results = report.Results(machine.describe(servers), machine.versions(systems), vars(options))
        bench = Bench(servers, options, _installed(systems, results))
        results.waits_ms = bench.samples
        try:
            for measure in chosen:
                for number in range(1, options.rounds + 1):
                    for system in filter(measure.applies, bench.systems):
                        _one(bench, measure, system, results, number)
        finally:
            # After Ctrl-C too: what was measured until then is worth having.
            _publish(arguments, results, chosen, bench.systems)
    return 1 if results.failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
