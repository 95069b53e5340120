"""One installation serves a namespace: a second one leaves its resources alone, says so, and takes up what is free."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from goqueue import instruments, metrics
from goqueue_operator import claims, rows
from goqueue_operator.operator import Operator
from tests.integration.engine import QUEUES, Engine, eventually, opened
from tests.integration.operator.conftest import World, another_namespace, compared
from tests.integration.operator.test_pools import deployment, pool, replicas
from tests.integration.operator.test_schedules import schedule
from tests.integration.scraping import Scraped
from tests.servers.stores import FreshDatabase, FreshRedis

pytestmark = pytest.mark.asyncio

FAR = "2099-01-01T00:00:00Z"


@pytest.fixture
async def second(own_database: FreshDatabase, own_ready_queues: FreshRedis) -> AsyncIterator[Engine]:
    """The stores of a second release."""
    async with opened(own_database, own_ready_queues) as engine:

        async def echo(payload: Any, _: Any) -> Any:
            return payload.model_dump()

        engine.handle("echo", echo)
        yield engine


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims that another installation may take after a second."""
    for name, value in (("SHORTEST", 1), ("PER_NAMESPACE", 0), ("LOOK", 0.2)):
        monkeypatch.setattr(claims, name, value)


@contextlib.asynccontextmanager
async def releases(world: World, second: Engine, **more: Any) -> AsyncIterator[tuple[Operator, Operator]]:
    """Two releases, the first of which has the claim of the namespace."""
    other = World(world.kubernetes, second, world.namespace)
    async with world.operator(lease_name="one", image="one:1", scale_seconds=0.3) as first:
        await held_by(world, f"{world.namespace}/one")
        async with other.operator(lease_name="two", image="two:1", scale_seconds=0.3, **more) as other_operator:
            yield first, other_operator


async def claim(world: World) -> dict[str, Any]:
    """The spec of the namespace's claim."""
    found: dict[str, Any] = (await world.get("lease", claims.NAME))["spec"]
    return found


async def held_by(world: World, holder: str) -> None:
    async def so() -> bool:
        names = await world.kubectl("get", "leases", "-o", "name")
        return claims.NAME in names and (await claim(world))["holderIdentity"] == holder

    await eventually(so)


async def told(world: World, kind: str) -> str:
    """Wait for the event that says that resources of this kind are left alone; its note."""

    async def there() -> str:
        found = json.loads(await world.kubectl("get", "events", "-o", "json"))["items"]
        notes = [
            item["message"]
            for item in found
            if item["reason"] == "NamespaceClaimed" and item["involvedObject"]["kind"] == kind
        ]
        return notes[0] if notes else ""

    note: str = await eventually(there)
    return note


async def test_a_job_of_two_releases_runs_once(world: World, second: Engine) -> None:
    async with releases(world, second) as (_, other), world.engine.worker(), second.worker():
        await world.job("pay", payload={"amount": 1})
        assert (await world.state("pay", "completed"))["result"] == {"amount": 1}
        note = await told(world, "GoQueueJob")
        assert f"installation {world.namespace}/one serves it" in note
        await compared(other)
        assert other.jobs is not None
        assert len(other.jobs.entries) == 0
    assert await second.rows("SELECT id FROM jobs") == []


async def test_a_job_of_a_cluster_wide_and_a_namespaced_release_runs_once(world: World, second: Engine) -> None:
    async with releases(world, second, cluster_wide=True) as (_, other), world.engine.worker(), second.worker():
        await world.job("pay")
        await world.state("pay", "completed")
        await told(world, "GoQueueJob")
        async with another_namespace(world.kubernetes, second) as elsewhere:
            await elsewhere.job("pay")
            await elsewhere.state("pay", "completed")
        await compared(other)
    assert await world.engine.rows("SELECT count(*) FROM jobs") == [(1,)]
    assert await second.rows("SELECT count(*) FROM jobs") == [(1,)]


async def test_two_releases_do_not_fight_for_a_pool(world: World, second: Engine) -> None:
    async with releases(world, second) as (_, other):
        await pool(world, minReplicas=1)
        await replicas(world, 1)
        await told(world, "GoQueueWorkerPool")
        assert other.pools is not None
        assert other.pools.pools == {}
        assert (await deployment(world))["spec"]["template"]["spec"]["containers"][0]["image"] == "one:1"


async def test_a_schedule_of_two_releases_is_served_by_one(world: World, second: Engine) -> None:
    async with releases(world, second):
        await schedule(world)
        assert "goqueue.io" in await told(world, "GoQueueSchedule")


async def test_a_release_that_is_refused_shows_it_in_its_metrics(world: World, second: Engine) -> None:
    registry = CollectorRegistry()
    metrics.begin("operator", QUEUES, ["echo"], registry)
    try:
        await world.kubectl("create", "-f", "-", stdin=lease_of("somebody/else", world.namespace))
        async with world.operator():

            async def shown() -> bool:
                return Scraped(generate_latest(registry).decode())("goqueue_operator_unserved_namespaces") == 1

            await eventually(shown)
    finally:
        instruments.end()


def lease_of(holder: str, namespace: str, seconds: int = 3600) -> dict[str, Any]:
    """A claim of another installation, as that would write it."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": claims.NAME, "namespace": namespace},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": "2026-01-01T00:00:00.000000Z"},
    }


async def test_a_claim_that_ran_out_is_taken_and_what_was_left_alone_is_taken_up(world: World, quick: None) -> None:
    await world.kubectl("create", "-f", "-", stdin=lease_of("somebody/else", world.namespace, 2))
    async with world.operator(scale_seconds=0.3), world.engine.worker():
        await world.job("one")
        await pool(world, minReplicas=1)
        await told(world, "GoQueueJob")
        await world.state("one", "completed")
        await replicas(world, 1)
    assert (await claim(world))["leaseTransitions"] == 1


async def test_jobs_that_were_there_before_the_operator_are_refused_loudly_and_taken_up_when_the_claim_is_free(
    world: World, quick: None
) -> None:
    await world.kubectl("create", "-f", "-", stdin=lease_of("somebody/else", world.namespace))
    await world.job("one", availableAt=FAR)
    async with world.operator(compare_seconds=3600):
        await told(world, "GoQueueJob")
        await world.kubectl("delete", "lease", claims.NAME)
        await world.state("one", "pending")


async def test_a_claim_that_was_deleted_is_free(world: World, quick: None) -> None:
    await world.kubectl("create", "-f", "-", stdin=lease_of("somebody/else", world.namespace))
    async with world.operator():
        await world.job("one")
        await told(world, "GoQueueJob")
        await world.kubectl("delete", "lease", claims.NAME)
        await world.state("one", "pending")


async def test_a_release_that_follows_another_does_the_jobs_that_were_left_open(
    world: World, second: Engine, quick: None
) -> None:
    async with world.operator(lease_name="one"):
        await world.job("one", availableAt=FAR)
        await world.state("one", "pending")
    other = World(world.kubernetes, second, world.namespace)
    async with other.operator(lease_name="two"):

        async def made() -> bool:
            return bool(await second.rows("SELECT id FROM jobs"))

        await eventually(made)
        await held_by(world, f"{world.namespace}/two")


async def test_the_next_leader_of_the_same_release_serves_at_once(world: World) -> None:
    async with world.engine.worker():
        async with world.operator():
            await world.job("one")
            await world.state("one", "completed")
            before = await claim(world)
        async with world.operator():  # the claim holds for a minute yet
            await world.job("two")
            await world.state("two", "completed")
    after = await claim(world)
    assert (after["leaseTransitions"], after["acquireTime"]) == (0, before["acquireTime"])
    assert after["renewTime"] > before["renewTime"]


async def test_a_claim_is_renewed(world: World, quick: None) -> None:
    async with world.operator():
        await world.job("one")
        await world.state("one", "pending")
        before = await claim(world)

        async def renewed() -> bool:
            return bool((await claim(world))["renewTime"] != before["renewTime"])

        await eventually(renewed)


async def test_a_claim_that_somebody_took_ends_the_work_in_that_namespace(world: World, quick: None) -> None:
    async with world.operator() as operator:
        await world.job("one", availableAt=FAR)
        job_id = (await world.state("one", "pending"))["jobID"]
        stolen = json.dumps({"spec": {"holderIdentity": "somebody/else", "leaseDurationSeconds": 3600}})
        await world.kubectl("patch", "lease", claims.NAME, "--type=merge", "-p", stolen)
        await told(world, "GoQueueJob")
        await compared(operator)
        await world.kubectl("delete", "gqj", "one")
        await compared(operator)
        assert (await world.engine.service.get(job_id)).status == "pending"


async def test_orphans_of_a_namespace_that_another_installation_serves_are_left_alone(world: World) -> None:
    uid = (await world.get("namespace", world.namespace))["metadata"]["uid"]
    job_id = await world.engine.enqueue("echo", source_key=rows.key_of("gone", world.namespace, uid))
    await world.engine.execute("UPDATE jobs SET source = 'kubernetes'")
    await world.kubectl("create", "-f", "-", stdin=lease_of("somebody/else", world.namespace))
    for everywhere in (False, True):
        async with world.operator(cluster_wide=everywhere) as operator:
            await compared(operator)
            assert (await world.engine.service.get(job_id)).status == "pending"


async def test_a_namespace_that_is_deleted_takes_its_jobs_with_it(world: World) -> None:
    async with another_namespace(world.kubernetes, world.engine) as elsewhere, world.operator(cluster_wide=True):
        await elsewhere.job("one", availableAt=FAR)
        job_id = (await elsewhere.state("one", "pending"))["jobID"]
        await asyncio.to_thread(world.kubernetes, "delete", "namespace", elsewhere.namespace, "--timeout=60s")
        await world.engine.until(job_id, "cancelled")
        await asyncio.to_thread(world.kubernetes, "create", "namespace", elsewhere.namespace)


async def test_jobs_of_a_namespace_that_went_while_no_operator_ran_are_cancelled(world: World) -> None:
    async with another_namespace(world.kubernetes, world.engine) as elsewhere:
        async with world.operator(cluster_wide=True):
            await elsewhere.job("one", availableAt=FAR)
            job_id = (await elsewhere.state("one", "pending"))["jobID"]
        await asyncio.to_thread(world.kubernetes, "delete", "namespace", elsewhere.namespace, "--timeout=60s")
        async with world.operator(cluster_wide=True):
            await world.engine.until(job_id, "cancelled")
        await asyncio.to_thread(world.kubernetes, "create", "namespace", elsewhere.namespace)


async def test_two_hundred_namespaces_cost_two_requests_a_second() -> None:
    for namespaces in (1, 20, 100):
        assert namespaces / (claims.duration(namespaces) / 3) <= 1
    assert 200 / (claims.duration(200) / 3) <= 2
