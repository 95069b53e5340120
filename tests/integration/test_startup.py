"""How processes begin and end: SIGTERM while they import, and work that cannot go on."""

import signal
import time
from pathlib import Path

import psycopg
import pytest

from tests.servers.process import GOQUEUE, Process
from tests.servers.stores import FreshDatabase, FreshRedis

MODULE = """
import pathlib
import time

pathlib.Path("importing").touch()
time.sleep(60)
"""


@pytest.mark.parametrize("part", ["worker", "scheduler"])
def test_sigterm_during_the_imports_ends_the_process_by_a_handler_and_not_by_the_default_that_process_1_lacks(
    part: str, database: FreshDatabase, ready_queues: FreshRedis, tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(MODULE)
    environment = {
        **database.environment,
        **ready_queues.environment,
        "PYTHONPATH": str(tmp_path),
        "GOQUEUE_JOBS": "slow",
        f"GOQUEUE_{part.upper()}_HEALTH_PORT": "0",
    }
    with Process([GOQUEUE, part], environment=environment, cwd=tmp_path, log=tmp_path / "log") as process:
        until = time.monotonic() + 60
        while not (tmp_path / "importing").exists():
            assert time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.02)  # a file gives no sign
        process.send(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM


def test_a_scheduler_whose_work_breaks_says_why_and_ends_with_an_error(
    database: FreshDatabase, ready_queues: FreshRedis, tmp_path: Path
) -> None:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("DROP TABLE leaders")
    environment = {**database.environment, **ready_queues.environment, "GOQUEUE_SCHEDULER_HEALTH_PORT": "0"}
    log = tmp_path / "log"
    with Process([GOQUEUE, "scheduler"], environment=environment, cwd=tmp_path, log=log) as process:
        assert process.wait(60) == 1
    assert "leaders" in log.read_text()
