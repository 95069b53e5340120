"""What a namespace may use: queues that are not granted are refused for jobs, schedules and pools alike."""

from typing import Any

import pytest

from tests.integration.engine import eventually
from tests.integration.operator.conftest import World
from tests.integration.operator.test_jobs import rows

pytestmark = pytest.mark.asyncio

POOL = {"queues": ["email"], "minReplicas": 1}
SCHEDULE = {"cron": "* * * * *", "jobTemplate": {"spec": {"queue": "email", "type": "echo", "payload": {}}}}


async def reason(world: World, kind: str, name: str) -> dict[str, Any]:
    """The condition Ready, once it is False."""

    async def there() -> dict[str, Any] | None:
        conditions = ((await world.get(kind, name)).get("status") or {}).get("conditions") or ()
        return next((item for item in conditions if (item["type"], item["status"]) == ("Ready", "False")), None)

    found: dict[str, Any] = await eventually(there)
    return found


async def test_a_queue_that_is_not_granted_is_refused_to_jobs_schedules_and_pools(world: World) -> None:
    grants = [f"{world.namespace}/default", "elsewhere/email"]
    async with world.operator(namespace_queues=grants, scale_seconds=0.3):
        await world.job("refused", queue="email")
        await world.job("granted")
        await world.make("GoQueueSchedule", "each", SCHEDULE)
        await world.make("GoQueueWorkerPool", "pool", POOL)
        status = await world.state("refused", "failed")
        words = f"namespace {world.namespace} may not use email, only default"
        assert words in status["error"]
        assert status["conditions"][0]["reason"] == "QueueNotAllowed"
        for kind, name in (("gqs", "each"), ("gqp", "pool")):
            condition = await reason(world, kind, name)
            assert condition["reason"] == "QueueNotAllowed"
            assert words in condition["message"]
        await world.state("granted", "pending")
        assert "pool" not in await world.kubectl("get", "deployments", "-o", "name")
    assert len(await rows(world)) == 1


@pytest.mark.parametrize("grant", ["{}/*", "*/email", "*/*"])
async def test_a_star_grants_all_queues_or_to_all_namespaces(world: World, grant: str) -> None:
    async with world.operator(namespace_queues=[grant.format(world.namespace), "elsewhere/default"]):
        await world.job("one", queue="email")
        await world.state("one", "pending")


async def test_jobs_of_a_namespace_are_its_tenants(world: World) -> None:
    async with world.operator(namespace_tenants=[f"{world.namespace}=acme"]):
        await world.job("one")
        await world.state("one", "pending")
    assert await world.engine.rows("SELECT tenant FROM jobs") == [("acme",)]
