"""What the watch does not show, and writes that do not arrive: nothing lives on that is gone, nothing is forgotten."""

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from goqueue.tasks import end_all
from goqueue_operator.access import from_kubeconfig
from goqueue_operator.deployment import Defaults
from goqueue_operator.jobs import Jobs
from goqueue_operator.kube import JOBS, POOLS, Kube, KubeError, KubeUnavailable
from goqueue_operator.pools import Pools
from tests.integration.engine import Engine, eventually
from tests.integration.operator.apiserver import ApiServer, api_server
from tests.integration.operator.conftest import World, a_world
from tests.integration.operator.test_pools import deployment, pool
from tests.integration.operator.test_schedules import look, one, schedule, statuses

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def bare_kubernetes() -> Iterator[ApiServer]:
    """A Kubernetes API that does not know our kinds yet."""
    with api_server() as server:
        yield server


async def test_kinds_that_come_after_the_operator_are_served(bare_kubernetes: ApiServer, engine: Engine) -> None:
    async with a_world(bare_kubernetes, engine) as world, world.operator():

        async def leads() -> bool:
            return "goqueue-operator" in await world.kubectl("get", "leases", "-o", "name")

        await eventually(leads)
        bare_kubernetes.install_definitions()
        await pool(world)
        assert (await deployment(world))["spec"]["replicas"] == 0


async def test_a_pool_whose_deletion_nobody_saw_is_not_made_again(world: World) -> None:
    kube = Kube(from_kubeconfig(world.kubernetes.kubeconfig))
    queues = world.engine.settings.queues
    pools = Pools(kube, world.engine.service, queues, Defaults("goqueue:1"), 0.1, namespace=world.namespace)
    await pool(world)
    pools.on_event("ADDED", await world.get("gqp", "pool"))
    running = asyncio.create_task(pools.run())
    await deployment(world)
    await world.kubectl("delete", "gqp", "pool")

    async def forgotten() -> bool:
        return not pools.pools

    await eventually(forgotten)

    async def gone() -> bool:
        return "pool" not in await world.kubectl("get", "deployments", "-o", "name")

    await eventually(gone)
    await end_all([running])
    await kube.close()


async def test_a_schedule_whose_deletion_nobody_saw_fires_no_more(world: World) -> None:
    schedules = one(world, await schedule(world))
    await world.kubectl("delete", "gqs", "each")
    now = datetime.now(UTC)
    for minutes in (1, 2, 3):
        if schedules.schedules:
            with contextlib.suppress(KubeError):
                await look(schedules, now + timedelta(minutes=minutes, seconds=1))
    assert not schedules.schedules
    assert len(await statuses(world)) <= 1
    await schedules._kube.close()


async def test_forbid_holds_where_the_note_of_the_earlier_job_did_not_arrive(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedules = one(world, await schedule(world, concurrencyPolicy="Forbid"))
    soon = datetime.now(UTC) + timedelta(seconds=61)
    put_status = schedules._kube.put_status

    async def away(*_: Any, **__: Any) -> Any:
        raise KubeUnavailable("away")

    monkeypatch.setattr(schedules._kube, "put_status", away)
    with pytest.raises(KubeUnavailable):
        await look(schedules, soon)
    monkeypatch.setattr(schedules._kube, "put_status", put_status)
    known = await look(schedules, soon + timedelta(seconds=60))
    assert await statuses(world) == ["pending"]
    assert known.status["lastJobID"]
    await schedules._kube.close()


async def test_a_job_that_an_earlier_leader_accepted_is_followed_by_the_next_one(world: World) -> None:
    async with world.operator():
        await world.job("one")
        await world.state("one", "pending")
    async with world.operator() as operator:

        async def known() -> bool:
            return operator.jobs is not None and len(operator.jobs.entries) == 1

        await eventually(known)
        async with world.engine.worker():
            await world.state("one", "completed")


async def test_a_status_that_somebody_else_wrote_over_an_end_is_written_again(world: World) -> None:
    async with world.operator(), world.engine.worker():
        await world.job("one")
        await world.state("one", "completed")
        stale = {"status": {"state": "processing", "conditions": []}}
        kube = Kube(from_kubeconfig(world.kubernetes.kubeconfig))
        await kube.patch(JOBS, world.namespace, "one", stale, "status")
        await kube.close()
        await world.state("one", "completed")
        await world.kubectl("wait", "--for=condition=Succeeded", "gqj/one", "--timeout=60s")


async def test_a_status_is_never_written_to_another_pool_of_the_same_name(world: World) -> None:
    kube = Kube(from_kubeconfig(world.kubernetes.kubeconfig))
    pools = Pools(kube, world.engine.service, world.engine.settings.queues, Defaults("goqueue:1"))
    await pool(world)
    pools.on_event("ADDED", await world.get("gqp", "pool"))
    former = next(iter(pools.pools.values()))
    await world.kubectl("delete", "gqp", "pool")
    await pool(world)
    with pytest.raises(KubeError) as raised:
        await kube.put_status(POOLS, world.namespace, "pool", former.uid, {"replicas": 7})
    assert raised.value.code == 409
    assert "status" not in await world.get("gqp", "pool")
    assert not await pools._is_there(former)
    await kube.close()


async def test_a_pool_that_a_finalizer_of_others_holds_is_no_longer_there(world: World) -> None:
    kube = Kube(from_kubeconfig(world.kubernetes.kubeconfig))
    pools = Pools(kube, world.engine.service, world.engine.settings.queues, Defaults("goqueue:1"))
    await pool(world)
    pools.on_event("ADDED", await world.get("gqp", "pool"))
    async with world.held("gqp", "pool"):
        assert not await pools._is_there(next(iter(pools.pools.values())))
    await kube.close()


async def test_a_job_that_a_finalizer_of_others_holds_is_cancelled_by_a_leader_that_saw_no_deletion(
    world: World,
) -> None:
    async with world.operator():
        await world.job("one", availableAt="2099-01-01T00:00:00Z")
        job_id = (await world.state("one", "pending"))["jobID"]
    async with world.held("gqj", "one"), world.operator():
        await world.engine.until(job_id, "cancelled")


async def test_a_deletion_that_the_watch_did_not_show_cancels_a_job_that_a_finalizer_of_others_holds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_event = Jobs.on_event

    def hears_no_deletion(self: Jobs, kind: str | None, resource: dict[str, Any]) -> None:
        if "deletionTimestamp" not in resource["metadata"]:
            on_event(self, kind, resource)

    monkeypatch.setattr(Jobs, "on_event", hears_no_deletion)
    async with world.operator():
        await world.job("one", availableAt="2099-01-01T00:00:00Z")
        job_id = (await world.state("one", "pending"))["jobID"]
        async with world.held("gqj", "one"):
            await world.engine.until(job_id, "cancelled")
