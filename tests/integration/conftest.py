"""The engine as a fixture: real stores, emptied for each test."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.engine import Engine, opened
from tests.servers.stores import FreshDatabase, FreshRedis


@pytest.fixture
async def engine(database: FreshDatabase, ready_queues: FreshRedis) -> AsyncIterator[Engine]:
    """An engine with empty stores."""
    async with opened(database, ready_queues) as engine:
        yield engine
