"""Two builds of GoQueue in turns on one machine: `python -m benchmarks.builds CHECKOUT`.

CHECKOUT is another checkout, with a `.venv` of its own. Each round measures both, so that what else the machine does
meets both; the ratios are those of the same rounds, by their median. Above 1: this build is better.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Final

from benchmarks.bench import Bench, Options
from benchmarks.children import ROOT
from benchmarks.measures import drain, enqueue, latency
from benchmarks.servers import Servers
from benchmarks.systems import BY_NAME, System

MEASURES: Final = (drain.plain, enqueue.enqueue, latency.idle)


class Build(System):
    """GoQueue from a checkout."""

    def command(self, *arguments: str) -> list[str]:
        """Its driver, by its own Python."""
        python = f"{self.version}/.venv/bin/python"
        return ["env", "-C", self.version, python, "-m", "benchmarks.peers.goqueue_driver", *arguments]


def build(name: str, folder: Path) -> Build:
    """The build in that folder, under that name."""
    ours = BY_NAME["goqueue"]
    return Build(name, ours.language, ours.keeps, ours.counter, ours.how, str(folder), alongside=ours.alongside)


def ratio(values: list[float], others: list[float]) -> str:
    """The median of the ratios of the same rounds."""
    return f"{statistics.median(a / b for a, b in zip(values, others, strict=False)):.2f}"


def _print(found: dict[str, tuple[list[float], list[float]]]) -> None:
    print(f"{'':<24}{'now':>12}{'before':>12}{'ratio':>8}")
    for name, (now, before) in found.items():
        waits = "wait" in name  # the less the better
        text = ratio(before, now) if waits else ratio(now, before)
        print(f"{name:<24}{statistics.median(now):>12,.2f}{statistics.median(before):>12,.2f}{text:>8}")


def main() -> None:
    """Print the table, after each round."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.builds", description=__doc__)
    parser.add_argument("checkout", type=Path, help="the other build")
    parser.add_argument("--jobs", type=int, default=40_000, help="jobs in a drain (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (%(default)s)")
    arguments = parser.parse_args()
    builds = (build("now", ROOT), build("before", arguments.checkout.resolve()))
    found: dict[str, tuple[list[float], list[float]]] = {}
    with Servers() as servers:
        bench = Bench(servers, Options(jobs=arguments.jobs, seconds=60), list(builds))
        for number in range(arguments.rounds):
            for measure in MEASURES:
                order = (0, 1) if number % 2 == 0 else (1, 0)
                for which in order:
                    for name, value in measure(bench, builds[which]).items():
                        found.setdefault(name, ([], []))[which].append(value)
                print(f"round {number}: {measure.__module__.rpartition('.')[2]}", file=sys.stderr, flush=True)
            _print(found)


if __name__ == "__main__":
    main()
