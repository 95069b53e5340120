"""The engine and the console command as fixtures: real stores, emptied for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.console import MODULE, Console
from tests.integration.engine import Engine, opened
from tests.servers.stores import FreshDatabase, FreshRedis


@pytest.fixture
async def engine(database: FreshDatabase, ready_queues: FreshRedis) -> AsyncIterator[Engine]:
    """An engine with empty stores."""
    async with opened(database, ready_queues) as engine:
        yield engine


@pytest.fixture
async def goqueue(engine: Engine, database: FreshDatabase, ready_queues: FreshRedis, tmp_path: Path) -> Console:
    """The command on empty stores, in which the first job's id is 1."""
    await engine.rows("SELECT setval(pg_get_serial_sequence('jobs', 'id'), 1, false)")
    (tmp_path / "own_jobs.py").write_text(MODULE)
    own = {"GOQUEUE_JOBS": "own_jobs", "PYTHONPATH": str(tmp_path)}
    return Console(tmp_path, {**database.environment, **ready_queues.environment, **own})
