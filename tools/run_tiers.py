"""Run the checks and the tiers of tests, some at a time, and close with one line that counts them all.

    tools/run_tiers.py lint unit simulation integration oldest fuzz chaos chart e2e

One tier alone prints as it goes. Of several, each prints its closing line when it ends, and the whole output
of those that failed follows at the end. Logs and JUnit reports stay in .build/test/.

The integration tier waits more than it computes. Beside others it therefore runs as several processes, each with
stores of its own. The tier `oldest` is what drives the engine once more, on the oldest Python that this machine has.
"""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / ".build" / "test"
AT_ONCE = 3

SHARES = 5
"""Processes of the integration tier. The files of a folder stay together if they can: they share what starts slowly."""

SLOW = {"operator": 3}
"""Folder → how many times longer its tests take than others of the same size: a real API server takes its time."""

ENGINE = (
    "tests/unit",
    *(
        f"tests/integration/test_{subject}.py"
        for subject in (
            "accidents",
            "client",
            "completer",
            "forks",
            "handler_forms",
            "hearing",
            "lookahead",
            "redis_outages",
            "scheduler",
            "worker",
        )
    ),
)
"""What the tier `oldest` runs: whatever depends on how asyncio, threads and processes behave."""

LIMITS = {
    "lint": 600,
    "unit": 600,
    "simulation": 1200,
    "integration": 2700,
    "oldest": 1800,
    "fuzz": 600,
    "chaos": 900,
    "chart": 2400,
    "e2e": 3600,
}
"""Tier → seconds after which it is ended and counts as failed. Each test has its own limit far below. `chart` and `e2e`
build Helm and Kubernetes from source on a machine that has not done so yet."""

FIRST = ["e2e", "lint", "integration", "oldest", "simulation", "chaos", "chart", "fuzz", "unit"]
"""Order of the starts: what takes longest (the end-to-end tier builds a Kubernetes) goes first."""

NO_TESTS = 5  # pytest's exit code for a run that found none


@dataclass
class Result:
    """How one run went."""

    name: str
    ok: bool
    counts: dict[str, int] = field(default_factory=dict)
    summary: str = ""


_running: set[subprocess.Popen[bytes]] = set()


@dataclass(frozen=True)
class Run:
    """One process of a tier: the files that it runs, or all of the tier's where it has no share of them."""

    tier: str
    name: str
    paths: tuple[str, ...] = ()


def runs_of(tier: str, *, alone: bool) -> list[Run]:
    """The processes that a tier runs as."""
    if tier == "oldest":
        return [Run(tier, tier, ENGINE)]
    if tier != "integration" or alone:
        return [Run(tier, tier)]
    return [Run(tier, f"{tier}-{number}", paths) for number, paths in enumerate(shares_of(ROOT / "tests" / tier), 1)]


def shares_of(folder: Path) -> list[tuple[str, ...]]:
    """The files of a tier in `SHARES` parts of about the same size.

    The files of a folder stay together, unless they are more than a part: then in as few parts as that takes.
    """
    folders: dict[Path, dict[str, int]] = {}
    for path in sorted(folder.rglob("test_*.py")):
        top = folder / path.relative_to(folder).parts[0]
        folders.setdefault(top, {})[str(path.relative_to(ROOT))] = path.stat().st_size * SLOW.get(top.name, 1)
    most = sum(sum(files.values()) for files in folders.values()) / SHARES
    pieces: list[dict[str, int]] = []
    for files in folders.values():
        pieces += spread(({path: size} for path, size in files.items()), math.ceil(sum(files.values()) / most))
    return [tuple(sorted(share)) for share in spread(pieces, SHARES)]


def spread(pieces: Iterable[Mapping[str, int]], parts: int) -> list[dict[str, int]]:
    """Put pieces (path → size) into so many parts, the largest first, each into the part that has least.

    Parts without any are left out.
    """
    made: list[dict[str, int]] = [{} for _ in range(parts)]
    for piece in sorted(pieces, key=lambda piece: (-sum(piece.values()), min(piece))):
        min(made, key=lambda part: sum(part.values())).update(piece)
    return [part for part in made if part]


def command_of(run: Run) -> list[str] | None:
    """The command of a run; None where it has no tests."""
    if run.tier == "lint":
        return ["make", "--no-print-directory", "lint"]
    if not run.paths and not any((ROOT / "tests" / run.tier).rglob("test_*.py")):
        return None
    report = OUTPUT / f"{run.name}.xml"
    report.unlink(missing_ok=True)
    return [
        *(["tools/oldest.sh"] if run.tier == "oldest" else [sys.executable, "-m", "pytest"]),
        *(run.paths or (f"tests/{run.tier}",)),
        f"--junitxml={report}",
        "-o",
        "junit_family=xunit1",
    ]


def carry_out(run: Run, *, alone: bool) -> Result:
    """Carry a run out to its end."""
    command = command_of(run)
    if command is None:
        return Result(run.name, ok=True, summary="no tests")
    # A `make` above must not make the `make lint` below look for its job server.
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS")}
    began = time.monotonic()
    with open(OUTPUT / f"{run.name}.log", "wb") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=None if alone else log,
            stderr=None if alone else subprocess.STDOUT,
            start_new_session=True,
        )
        _running.add(process)
        try:
            code = process.wait(LIMITS[run.tier])
        except subprocess.TimeoutExpired:
            end(process)
            code = process.wait()
            log.write(f"\nended after {LIMITS[run.tier]} s\n".encode())
        _running.discard(process)
    seconds = time.monotonic() - began
    if run.tier == "lint":
        return Result(run.name, ok=code == 0, summary=f"{'passed' if code == 0 else 'FAILED'} in {seconds:.1f}s")
    counts = read_report(OUTPUT / f"{run.name}.xml")
    summary = describe(counts, seconds)
    if code not in (0, 1, NO_TESTS):
        summary += f" (exit code {code})"
    return Result(run.name, ok=code in (0, NO_TESTS), counts=counts, summary=summary)


def read_report(report: Path) -> dict[str, int]:
    """Passed, failed, errors and skipped of a JUnit report; empty if the run wrote none."""
    if not report.exists():
        return {}
    suites = ET.parse(report).getroot().iter("testsuite")  # noqa: S314 - pytest wrote it a moment ago
    total = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    for suite in suites:
        for name in total:
            total[name] += int(suite.get(name, "0"))
    bad = total["failures"] + total["errors"] + total["skipped"]
    return {
        "failed": total["failures"],
        "passed": total["tests"] - bad,
        "skipped": total["skipped"],
        "errors": total["errors"],
    }


def describe(counts: dict[str, int], seconds: float) -> str:
    """`3 failed, 120 passed, 1 skipped in 34.10s`, as pytest says it."""
    named = ", ".join(f"{number} {name}" for name, number in counts.items() if number) or "no tests ran"
    return f"{named} in {seconds:.2f}s"


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a tier with all that it started in its own process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def interrupted(number: int, _frame: object) -> None:
    """Ctrl-C or SIGTERM: the tiers have process groups of their own and must be told."""
    for process in list(_running):
        end(process)
    os._exit(128 + number)


def results_of(tiers: Sequence[str]) -> Iterator[Result]:
    """Run the tiers; yield each as it ends."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        alone = len(tiers) == 1
        runs = [run for tier in sorted(tiers, key=FIRST.index) for run in runs_of(tier, alone=alone)]
        for future in as_completed([pool.submit(carry_out, run, alone=alone) for run in runs]):
            yield future.result()


def main(tiers: Sequence[str]) -> int:
    """Run the tiers; 0 if all went well and any test ran."""
    if not tiers or not set(tiers) <= set(LIMITS):
        print(f"usage: run_tiers.py [{'] ['.join(LIMITS)}]", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    results = []
    for result in results_of(tiers):
        print(f"{result.name}: {result.summary}", flush=True)
        results.append(result)
    failed = [result for result in results if not result.ok]
    total: dict[str, int] = {}
    for result in failed:
        if len(tiers) > 1:
            print(f"\n######## {result.name} ########\n", flush=True)
            sys.stdout.buffer.write((OUTPUT / f"{result.name}.log").read_bytes())
            sys.stdout.flush()
    for result in sorted(results, key=lambda result: result.ok):
        print(f"{'ok    ' if result.ok else 'FAILED'} {result.name}: {result.summary}")
        # A tier that failed without a failing test (lint, a crash of the run itself) counts as one failure.
        counts = result.counts
        if not result.ok and not counts.get("failed") and not counts.get("errors"):
            counts = {**counts, "failed": 1}
        for name in ("failed", "passed", "skipped", "errors"):
            total[name] = total.get(name, 0) + counts.get(name, 0)
    print(f" {describe(total, time.monotonic() - began)} ".center(100, "="))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
