"""The broker without a Redis."""

from typing import Any

import pytest
from pydantic import SecretStr

from goqueue.broker import Broker
from goqueue.errors import BrokerUnavailable
from goqueue.settings import RedisSettings
from goqueue_api.throttle import RedisCounter
from goqueue_cli.embedded import free_port

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("cluster", [False, True])
async def test_a_redis_that_is_away_is_unavailable_and_counts_nothing(cluster: bool) -> None:
    nowhere = RedisSettings(url=SecretStr(f"redis://127.0.0.1:{free_port()}/0"), cluster=cluster)
    broker = Broker(nowhere)
    calls: list[Any] = [broker.ping, broker.arrived, broker.epoch]
    for call in calls:
        with pytest.raises(BrokerUnavailable):
            await call()
    assert await RedisCounter(broker.client, broker.prefix).add("caller", 1, 60) is None
    await broker.close()
