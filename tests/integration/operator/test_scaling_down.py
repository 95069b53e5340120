"""Scaling down on a real API server with real workers, for which the test stands in with pods that no node runs."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from goqueue import JobContext
from goqueue.pace import SHORTEST
from goqueue.store import dispatch
from tests.integration.engine import connected, eventually
from tests.integration.operator.conftest import World

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(240)]

SLOTS = 5


@dataclass
class Fleet:
    """The pods of the pool, each with a worker of its own; jobs that end when they are told."""

    world: World
    gates: dict[int, asyncio.Event] = field(default_factory=dict)
    _workers: dict[str, contextlib.AsyncExitStack] = field(default_factory=dict)

    async def run(self, payload: Any, job: JobContext) -> None:
        await self.gates.setdefault(job.job_id, asyncio.Event()).wait()

    async def pods(self) -> set[str]:
        names = (await self.world.kubectl("get", "pods", "-o", "name")).split()
        return {name.removeprefix("pod/") for name in names}

    async def start(self, pods: int) -> None:
        """Wait for that many pods, and start a worker in each that has none."""

        async def there() -> set[str] | None:
            names = await self.pods()
            return names if len(names) == pods else None

        for name in await eventually(there):
            if name not in self._workers:
                stack = self._workers[name] = contextlib.AsyncExitStack()
                own = await stack.enter_async_context(connected(self.world.engine.dsn, self.world.engine.redis))
                own.registry, own.settings = self.world.engine.registry, self.world.engine.settings
                await stack.enter_async_context(own.worker(f"{name}-1", concurrency=SLOTS, grace_seconds=0.1))

    async def stop(self, name: str) -> None:
        """End a worker as the kubelet does when its pod is deleted: without patience here."""
        await self._workers.pop(name).aclose()

    async def busy(self) -> dict[str, list[int]]:
        """Pod → the jobs that its worker runs."""
        rows = await self.world.engine.rows(
            "SELECT workers.name, jobs.id FROM jobs JOIN workers ON workers.id = worker_id WHERE status = 'processing'"
        )
        found: dict[str, list[int]] = {}
        for name, id in rows:
            found.setdefault(name.rpartition("-")[0], []).append(id)
        return found

    async def draining(self) -> set[str]:
        """Pods whose workers say that they fetch no more."""
        async with self.world.engine.database.connection() as connection:
            rows = await dispatch.workers(connection)
        return {row.name.rpartition("-")[0] for row in rows if row.draining}

    async def one_job_each(self, pods: int) -> dict[str, int]:
        """Make jobs until each pod runs one; what a pod gets beside its one ends at once. Pod → job."""
        found: dict[str, int] = {}
        while len(found) < pods:
            id = await self.world.engine.enqueue("gated")
            await self.world.engine.until(id, "processing")
            (pod,) = [pod for pod, jobs in (await self.busy()).items() if id in jobs]
            if found.setdefault(pod, id) != id:
                self.end(id)
                await self.world.engine.until(id, "completed")
        return found

    def end(self, id: int) -> None:
        """Let a job end."""
        self.gates.setdefault(id, asyncio.Event()).set()

    async def close(self) -> None:
        for gate in self.gates.values():
            gate.set()
        for name in list(self._workers):
            await self.stop(name)


@pytest.fixture
async def fleet(world: World) -> AsyncIterator[Fleet]:
    fleet = Fleet(world)
    world.engine.settings.lease_seconds, world.engine.settings.heartbeat_seconds = 30.0, 0.5
    world.engine.handle("gated", fleet.run, timeout=300)
    async with world.engine.scheduler():  # it dispatches again what a draining worker hands back
        try:
            yield fleet
        finally:
            await fleet.close()


async def pool(world: World, pods: int) -> None:
    spec = {"queues": ["default"], "concurrency": SLOTS, "minReplicas": pods, "maxReplicas": 10}
    await world.make("GoQueueWorkerPool", "pool", spec | {"scaling": {"scaleDownWindowSeconds": 1}})


async def change(world: World, **spec: Any) -> None:
    await world.kubectl("patch", "gqp", "pool", "--type=merge", "-p", json.dumps({"spec": spec}))


async def ordered(world: World) -> int:
    return int((await world.get("deployment", "pool"))["spec"]["replicas"])


async def test_pods_with_a_job_each_drain_and_only_those_go_that_have_become_idle(world: World, fleet: Fleet) -> None:
    async with world.operator(scale_seconds=0.3):
        await pool(world, 3)
        await fleet.start(3)
        jobs = await fleet.one_job_each(3)
        await change(world, minReplicas=0)

        async def two_drain() -> set[str] | None:
            names = await fleet.draining()
            return names if len(names) == 2 else None

        first, second = sorted(await eventually(two_drain))
        assert await ordered(world) == 3

        async def told() -> bool:
            return bool((await world.get("gqp", "pool"))["status"].get("draining") == 2)

        await eventually(told)

        fleet.end(jobs[first])

        async def first_went() -> bool:
            return await ordered(world) == 2 and await fleet.pods() == set(jobs) - {first}

        await eventually(first_went)
        await fleet.stop(first)
        fleet.end(jobs[second])

        async def second_went() -> bool:
            return await ordered(world) == 1 and await fleet.pods() == set(jobs) - {first, second}

        await eventually(second_went)
        await fleet.stop(second)
        (last,) = set(jobs) - {first, second}
        fleet.end(jobs[last])

        async def all_went() -> bool:
            return await ordered(world) == 0

        await eventually(all_went)
    assert await world.engine.rows("SELECT outcome FROM job_attempts WHERE outcome <> 'completed'") == []
    assert await world.engine.rows("SELECT DISTINCT status FROM jobs") == [("completed",)]
    assert await world.engine.rows("SELECT max(attempts) FROM jobs") == [(1,)]


async def two_pods_of_which_one_drains(world: World, fleet: Fleet) -> None:
    """A pool of two pods with a job each, of which one is asked to drain."""
    await pool(world, 2)
    await fleet.start(2)
    await fleet.one_job_each(2)
    await change(world, minReplicas=0)

    async def one_drains() -> bool:
        return len(await fleet.draining()) == 1

    await eventually(one_drains)


async def test_when_the_load_rises_pods_that_drain_are_released_and_no_new_ones_are_made(
    world: World, fleet: Fleet
) -> None:
    async with world.operator(scale_seconds=0.3):
        await two_pods_of_which_one_drains(world, fleet)
        for _ in range(2 * SLOTS - 2):
            await world.engine.enqueue("gated")

        async def all_run() -> bool:
            return sum(map(len, (await fleet.busy()).values())) == 2 * SLOTS

        await eventually(all_run)
        assert await ordered(world) == 2
        assert len(await fleet.pods()) == 2


async def test_without_an_operator_the_workers_of_a_pool_fetch_again(
    world: World, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("goqueue_operator.consolidation.DRAIN_SECONDS", 6.0)
    async with world.operator(scale_seconds=0.3):
        await two_pods_of_which_one_drains(world, fleet)

    async def none_drains() -> bool:
        return not await fleet.draining()

    await eventually(none_drains)


async def test_the_pace_of_a_pool_outlives_its_operator(world: World, fleet: Fleet) -> None:
    async def known() -> Any:
        status = (await world.get("gqp", "pool")).get("status") or {}
        return status.get("pace")

    async with world.operator(scale_seconds=0.3):
        await pool(world, 1)
        await fleet.start(1)
        for _ in range(3):
            await world.engine.until(await world.engine.enqueue("echo"), "completed")
        (before,) = await eventually(known)
        assert (before["queue"], before["type"]) == ("default", "echo")
    async with world.operator(scale_seconds=0.3) as operator:

        async def taken_over() -> Any:
            return operator.pools and [one for one in operator.pools.pools.values() if one.replicas is not None]

        (one,) = await eventually(taken_over)
        assert one.pace.rate(SLOTS) == pytest.approx(SLOTS / max(before["seconds"], SHORTEST), rel=0.2)


async def test_two_pools_of_one_queue_share_what_waits(world: World) -> None:
    async with world.operator():
        for name in ("one", "two"):
            await world.make("GoQueueWorkerPool", name, {"queues": ["default"], "concurrency": 10, "maxReplicas": 20})

        async def both_there() -> bool:
            return len((await world.kubectl("get", "deployments", "-o", "name")).split()) == 2

        await eventually(both_there)
        for _ in range(100):
            await world.engine.enqueue("echo")

        async def enough() -> bool:
            counts = [(await world.get("deployment", name))["spec"]["replicas"] for name in ("one", "two")]
            return bool(sum(counts) == 10)

        await eventually(enough)

        async def looked_again() -> bool:
            pools = [(await world.get("gqp", name)).get("status") or {} for name in ("one", "two")]
            return bool(sum(status.get("desiredReplicas", 0) for status in pools) == 10)

        await eventually(looked_again)
