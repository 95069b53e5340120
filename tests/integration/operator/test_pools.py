"""GoQueueWorkerPools on a real API server: the Deployment, kept as declared; replicas that follow the queues."""

import json
from typing import Any

import pytest

from goqueue.scaling import Policy
from goqueue_operator.consolidation import COST
from goqueue_operator.pool import policy
from tests.integration.engine import eventually
from tests.integration.operator.conftest import World

pytestmark = pytest.mark.asyncio


async def pool(world: World, **spec: Any) -> None:
    whole = {"queues": ["default"], "concurrency": 2, "scaling": {"scaleDownWindowSeconds": 1}, **spec}
    await world.make("GoQueueWorkerPool", "pool", whole)


async def deployment(world: World) -> dict[str, Any]:
    async def there() -> dict[str, Any] | None:
        if "pool" not in await world.kubectl("get", "deployments", "-o", "name"):
            return None
        return await world.get("deployment", "pool")

    found: dict[str, Any] = await eventually(there)
    return found


async def replicas(world: World, number: int) -> None:
    async def there() -> bool:
        return bool((await deployment(world))["spec"]["replicas"] == number)

    await eventually(there)


async def test_a_pool_has_a_deployment_and_none_is_left_when_it_goes(world: World) -> None:
    async with world.operator():
        await pool(world)
        assert (await deployment(world))["spec"]["replicas"] == 0
        await world.kubectl("delete", "gqp", "pool")

        async def gone() -> bool:
            return "pool" not in await world.kubectl("get", "deployments", "-o", "name")

        await eventually(gone)


async def test_the_first_job_wakes_the_pool_at_once_and_many_jobs_make_it_large(world: World) -> None:
    async with world.operator(scale_seconds=3600):  # so that only arrivals make it look
        await pool(world, maxReplicas=5)
        await replicas(world, 0)
        await world.engine.enqueue("echo")
        await replicas(world, 1)
        for _ in range(20):
            await world.engine.enqueue("echo")
        await replicas(world, 5)
    async with world.operator(), world.engine.worker():
        await replicas(world, 0)

        async def said() -> bool:  # after the Deployment has changed
            return bool((await world.get("gqp", "pool"))["status"]["desiredReplicas"] == 0)

        await eventually(said)


async def test_a_pool_whose_deployment_kubernetes_refuses_says_so_and_is_still_scaled(world: World) -> None:
    async def told(kind: str, word: str) -> bool:
        return word in await world.kubectl("get", kind, "-o", "yaml")

    async def reason() -> str:
        conditions = ((await world.get("gqp", "pool")).get("status") or {}).get("conditions") or ()
        return next((str(item["reason"]) for item in conditions if item["type"] == "Available"), "")

    async def is_refused() -> bool:
        return await reason() == "RefusedByKubernetes"

    async def is_as_declared() -> bool:
        return await reason() in ("AsDeclared", "PodsNotReady")

    # Limits below requests: our definitions do not compare them, Kubernetes does.
    wrong = {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}
    async with world.operator():
        await pool(world, maxReplicas=3)
        await replicas(world, 0)
        await world.kubectl("patch", "gqp", "pool", "--type=merge", "-p", json.dumps({"spec": {"resources": wrong}}))
        await eventually(is_refused)
        await eventually(lambda: told("events", "Kubernetes refuses the Deployment"))
        for _ in range(6):
            await world.engine.enqueue("echo")
        await replicas(world, 3)
        assert await is_refused()
        await world.kubectl("patch", "gqp", "pool", "--type=merge", "-p", '{"spec":{"resources":null}}')
        await eventually(is_as_declared)
        await world.kubectl("delete", "gqp", "pool")
        await world.make("GoQueueWorkerPool", "new", {"queues": ["default"], "resources": wrong})

        async def new_one_says_so() -> bool:
            return "Refused" in str((await world.get("gqp", "new")).get("status"))

        await eventually(new_one_says_so)


async def test_what_others_change_is_as_declared_again(world: World) -> None:
    async with world.operator(scale_seconds=0.3):
        await pool(world, minReplicas=1)
        await replicas(world, 1)
        foreign = '{"spec":{"replicas":4,"template":{"spec":{"hostNetwork":true}}}}'
        await world.kubectl("patch", "deployment", "pool", "--type=merge", "-p", foreign)

        async def reverted() -> bool:
            spec = (await deployment(world))["spec"]
            return spec["replicas"] == 1 and "hostNetwork" not in spec["template"]["spec"]

        await eventually(reverted)


async def test_kubectl_scale_pins_the_number_until_it_is_taken_back(world: World) -> None:
    async with world.operator():
        await pool(world, maxReplicas=2)
        await replicas(world, 0)
        await world.kubectl("scale", "gqp/pool", "--replicas=3")
        await replicas(world, 3)
        await world.kubectl("patch", "gqp", "pool", "--type=merge", "-p", '{"spec":{"replicas":null}}')
        await replicas(world, 0)


async def test_busy_pods_cost_more_to_delete(world: World) -> None:
    async with world.operator():
        await pool(world, minReplicas=2)
        await replicas(world, 2)

        async def pods() -> list[str] | None:
            names = (await world.kubectl("get", "pods", "-o", "name")).split()
            return names if len(names) == 2 else None

        names = [name.removeprefix("pod/") for name in await eventually(pods)]
        await world.engine.execute(
            "INSERT INTO workers (name, queues, concurrency, busy) VALUES (%s, '{default}', 2, 2)", f"{names[0]}-1"
        )
        await world.kubectl("patch", "gqp", "pool", "--type=merge", "-p", '{"spec":{"minReplicas":1}}')
        await replicas(world, 1)
        left = (await eventually(one_pod(world)))["metadata"]
        assert left["name"] == names[0]
        assert left["annotations"][COST] == "2"


async def test_a_job_that_has_just_begun_keeps_its_pod(world: World) -> None:
    async with world.operator():
        await pool(world, minReplicas=1)
        await replicas(world, 1)
        name = (await eventually(one_pod(world)))["metadata"]["name"]
        # As between a claim and the worker's next heartbeat.
        await world.engine.execute(
            "INSERT INTO workers (name, queues, concurrency, busy) VALUES (%s, '{default}', 2, 0)", f"{name}-1"
        )
        await world.engine.execute(
            "INSERT INTO jobs (queue, type, payload, status, worker_id, lease, attempts) "
            "SELECT 'default', 'echo', '{}', 'processing', max(id), 1, 1 FROM workers"
        )
        await world.kubectl("patch", "gqp", "pool", "--type=merge", "-p", '{"spec":{"minReplicas":0}}')

        async def known() -> bool:
            return bool((await world.get("gqp", "pool"))["status"].get("busy") == 1)

        await eventually(known)
        assert (await deployment(world))["spec"]["replicas"] == 1
        await world.engine.execute("UPDATE jobs SET status = 'completed', finished_at = now()")
        await replicas(world, 0)


def one_pod(world: World) -> Any:
    async def there() -> Any:
        names = (await world.kubectl("get", "pods", "-o", "name")).split()
        return await world.get("pod", names[0].removeprefix("pod/")) if len(names) == 1 else None

    return there


async def test_a_pool_that_asks_for_the_node_gets_no_deployment_and_an_event(world: World) -> None:
    async with world.operator():
        volumes = [{"name": "root", "hostPath": {"path": "/"}}]
        await pool(world, podTemplate={"spec": {"volumes": volumes}})

        async def refused() -> bool:
            status = (await world.get("gqp", "pool")).get("status") or {}
            return "hostPath is not allowed" in status.get("reason", "")

        await eventually(refused)
        assert "hostPath" in await world.kubectl("get", "events")
        assert "pool" not in await world.kubectl("get", "deployments", "-o", "name")


async def test_a_foreign_deployment_by_the_same_name_is_left_alone(world: World) -> None:
    await world.kubectl("create", "deployment", "pool", "--image=foreign")
    async with world.operator():
        await pool(world)

        async def refused() -> bool:
            status = (await world.get("gqp", "pool")).get("status") or {}
            return "does not belong" in status.get("reason", "")

        await eventually(refused)
        assert (await deployment(world))["spec"]["template"]["spec"]["containers"][0]["image"] == "foreign"


async def test_the_policy_of_a_pool_is_what_its_spec_says() -> None:
    spec = {
        "concurrency": 7,
        "minReplicas": 1,
        "maxReplicas": 4,
        "scaling": {"targetWaitSeconds": 3, "jobsPerReplica": 9, "scaleDownWindowSeconds": 30, "scaleUpPods": 2},
    }
    assert policy({"spec": spec}) == Policy(1, 4, 7, 9, 3.0, 30.0, 2, None, None)
