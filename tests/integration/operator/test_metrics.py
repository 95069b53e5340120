"""What an operator counts, on a real API server."""

import math
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from goqueue import instruments, metrics
from tests.integration.engine import QUEUES, eventually
from tests.integration.operator.conftest import World
from tests.integration.scraping import Scraped


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    """Where the operators of this process count."""
    registry = CollectorRegistry()
    metrics.begin("operator", QUEUES, ["echo"], registry)
    yield registry
    instruments.end()


async def test_resources_pools_and_decisions_are_counted_and_go_with_the_pool(
    world: World, registry: CollectorRegistry
) -> None:
    def seen() -> Scraped:
        return Scraped(generate_latest(registry).decode())

    def cause() -> set[str]:
        return {
            dict(labels)["cause"]
            for (name, labels), value in seen().samples.items()
            if name == "goqueue_pool_decision" and value
        }

    async with world.operator():
        await world.job("one")
        await world.job("two", queue="nowhere")
        await world.state("one", "pending")
        await world.state("two", "failed")
        spec = {"queues": ["default"], "concurrency": 1, "maxReplicas": 3, "scaling": {"scaleDownWindowSeconds": 1}}
        await world.make("GoQueueWorkerPool", "pool", spec)

        async def scaled() -> bool:
            return seen()("goqueue_pool_desired_replicas", pool="pool", pool_namespace=world.namespace) == 1

        await eventually(scaled)
        assert cause() == {"load"}
        now = seen()
        assert now("goqueue_pool_max_replicas", pool="pool") == 3
        assert now("goqueue_pool_arrival_rate", pool="pool") >= 0
        rates = [value for (name, _), value in now.samples.items() if name == "goqueue_pool_service_rate"]
        assert len(rates) == 1
        assert math.isnan(rates[0]), "no job has ended yet"
        assert now("goqueue_jobs_enqueued_total", queue="default", type="echo", source="kubernetes") == 1
        assert now("goqueue_jobs_enqueued_total") == 1
        assert now("goqueue_leader", process="operator") == 1

        async def both_written() -> bool:  # counted after Kubernetes, which shows them before, has answered
            return seen()("goqueue_operator_status_writes_total") >= 2

        await eventually(both_written)

        async def held() -> tuple[float, float]:
            name = "goqueue_operator_resources"
            return seen()(name, state="open"), seen()(name, state="ended")

        async def counted() -> bool:
            return await held() == (1, 1)

        await eventually(counted)

        async def all_worked() -> bool:
            name = "goqueue_operator_reconcile_duration_seconds_count"
            return seen().labels(name, "work") == {"accept", "read", "compare", "pools", "schedules"}

        await eventually(all_worked)

        async def idle() -> bool:
            return seen().labels("goqueue_operator_backlog", "work") == {"accept", "cancel", "write"} and not seen()(
                "goqueue_operator_backlog"
            )

        await eventually(idle)
        await world.kubectl("patch", "gqp", "pool", "--type=merge", "-p", '{"spec": {"replicas": 2}}')

        async def pinned() -> bool:
            return seen()("goqueue_pool_desired_replicas", pool="pool") == 2 and cause() == {"pinned"}

        await eventually(pinned)
        await world.kubectl("delete", "gqp", "pool")

        async def gone() -> bool:
            return not [name for name, _ in seen().samples if name.startswith("goqueue_pool_")]

        await eventually(gone)
