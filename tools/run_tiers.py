"""Run the checks and the tiers of tests, two at a time, and close with one line that counts them all.

    tools/run_tiers.py lint unit integration fuzz chaos chart e2e

One tier alone prints as it goes. Of several, each prints its closing line when it ends, and the whole output
of those that failed follows at the end. Logs and JUnit reports stay in .build/test/.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / ".build" / "test"
AT_ONCE = 2

LIMITS = {"lint": 600, "unit": 600, "integration": 2700, "fuzz": 600, "chaos": 900, "chart": 900, "e2e": 3600}
"""Tier → seconds after which it is ended and counts as failed. Each test has its own limit far below."""

FIRST = ["e2e", "lint", "integration", "chaos", "chart", "fuzz", "unit"]
"""Order of the starts: what takes longest (the end-to-end tier builds a Kubernetes) goes first."""

NO_TESTS = 5  # pytest's exit code for a run that found none


@dataclass
class Result:
    """How one tier went."""

    tier: str
    ok: bool
    counts: dict[str, int] = field(default_factory=dict)
    summary: str = ""


_running: set[subprocess.Popen[bytes]] = set()


def command_of(tier: str) -> list[str] | None:
    """The command that runs a tier; None where it has no tests."""
    if tier == "lint":
        return ["make", "--no-print-directory", "lint"]
    if not any((ROOT / "tests" / tier).rglob("test_*.py")):
        return None
    report = OUTPUT / f"{tier}.xml"
    report.unlink(missing_ok=True)
    return [
        sys.executable,
        "-m",
        "pytest",
        f"tests/{tier}",
        f"--junitxml={report}",
        "-o",
        "junit_family=xunit1",
    ]


def run(tier: str, *, alone: bool) -> Result:
    """Run one tier to its end."""
    command = command_of(tier)
    if command is None:
        return Result(tier, ok=True, summary="no tests")
    # A `make` above must not make the `make lint` below look for its job server.
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS")}
    began = time.monotonic()
    with open(OUTPUT / f"{tier}.log", "wb") as log:
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
            code = process.wait(LIMITS[tier])
        except subprocess.TimeoutExpired:
            end(process)
            code = process.wait()
            log.write(f"\nended after {LIMITS[tier]} s\n".encode())
        _running.discard(process)
    seconds = time.monotonic() - began
    if tier == "lint":
        return Result(tier, ok=code == 0, summary=f"{'passed' if code == 0 else 'FAILED'} in {seconds:.1f}s")
    counts = read_report(OUTPUT / f"{tier}.xml")
    summary = describe(counts, seconds)
    if code not in (0, 1, NO_TESTS):
        summary += f" (exit code {code})"
    return Result(tier, ok=code in (0, NO_TESTS), counts=counts, summary=summary)


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
        ordered = sorted(tiers, key=FIRST.index)
        for future in as_completed([pool.submit(run, tier, alone=len(tiers) == 1) for tier in ordered]):
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
        print(f"{result.tier}: {result.summary}", flush=True)
        results.append(result)
    failed = [result for result in results if not result.ok]
    total: dict[str, int] = {}
    for result in failed:
        if len(tiers) > 1:
            print(f"\n######## {result.tier} ########\n", flush=True)
            sys.stdout.buffer.write((OUTPUT / f"{result.tier}.log").read_bytes())
            sys.stdout.flush()
    for result in sorted(results, key=lambda result: result.ok):
        print(f"{'ok    ' if result.ok else 'FAILED'} {result.tier}: {result.summary}")
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
