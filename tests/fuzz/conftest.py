"""At the end of a run: how many inputs were tried, and how they ended."""

import pytest

from tests.fuzz.inputs import SLOWEST, TRIED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each test, and one for all."""
    if not TRIED:
        return
    terminalreporter.section("inputs tried")
    for name, slowest in sorted(SLOWEST.items()):
        ends = {outcome: count for (test, outcome), count in sorted(TRIED.items()) if test == name}
        told = ", ".join(f"{count} {outcome}" for outcome, count in ends.items())
        terminalreporter.line(f"{name}: {told}; slowest {slowest * 1000:.0f} ms")
    terminalreporter.line(f"{TRIED.total()} inputs in all")
