"""What `goqueue dev` says of a process that ended: the cause first."""

from pathlib import Path

import pytest

from goqueue_cli.dev.stack import _obituary

TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1, in f\n    g()\nRuntimeError: broken\n'


@pytest.mark.parametrize(
    ("log", "first"),
    [
        ("starting\ngoqueue: GOQUEUE_JOBS: cannot import 'x'\n", "GOQUEUE_JOBS: cannot import 'x'"),
        ("goqueue: an earlier one\ngoqueue: the last one\n", "the last one"),
        (f"starting\n{TRACEBACK}", "RuntimeError: broken"),
        (TRACEBACK + '{"event": "stopped"}\n', "RuntimeError: broken"),
        ('{"event": "stopped"}\n', "the worker ended with exit code 1; the end of LOG:"),
        ("", "the worker ended with exit code 1; the end of LOG:"),
    ],
)
def test_the_first_line_is_the_cause_where_the_log_has_one(tmp_path: Path, log: str, first: str) -> None:
    path = tmp_path / "worker.log"
    path.write_text(log)
    lines = _obituary("worker", 1, path).replace(str(path), "LOG").splitlines()
    assert lines[0] == first
    assert "the worker ended with exit code 1; the end of LOG:" in lines[:2]
    assert [line.removeprefix("  ") for line in lines if line.startswith("  ")] == log.splitlines()
