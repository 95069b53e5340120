"""Each chaos test gets a cluster of its own; the counts of all runs are printed at the end."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.cluster import Cluster, Tally, running
from tests.servers.stores import FreshDatabase, FreshRedis

TALLIES: list[Tally] = []


@pytest.fixture
async def cluster(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    own_database: FreshDatabase,
    own_ready_queues: FreshRedis,
) -> AsyncIterator[Cluster]:
    """A GoQueue to be broken, on stores of its own."""
    async with running(request.node.name, tmp_path, own_database, own_ready_queues, TALLIES) as cluster:
        yield cluster


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what became of every accepted job."""
    if TALLIES:
        terminalreporter.section("what became of the jobs")
        for tally in TALLIES:
            terminalreporter.line(str(tally))
