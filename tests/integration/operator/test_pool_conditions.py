"""What is wrong with a pool, its Deployment or its pods is said of the pool, and its events tell what was done."""

import asyncio
import json
from typing import Any

import pytest

from goqueue.scaling import Decision, History, Load
from goqueue_operator import deployment as building
from goqueue_operator import payloads
from goqueue_operator.access import from_kubeconfig
from goqueue_operator.deployment import Defaults
from goqueue_operator.kube import Kube, KubeError
from goqueue_operator.pool import Pool
from goqueue_operator.pools import Pools
from goqueue_operator.scheduleplan import Schedule
from tests.integration.engine import WITHIN, eventually
from tests.integration.operator.conftest import World
from tests.integration.operator.test_pools import deployment, one_pod, pool, replicas

pytestmark = pytest.mark.asyncio


async def says(world: World, kind: str, status: str, reason: str, words: str = "", name: str = "pool") -> None:
    """Wait until the pool has this condition; what it has instead is shown."""
    seen: list[dict[str, Any]] = []

    async def there() -> bool:
        seen[:] = ((await world.get("gqp", name)).get("status") or {}).get("conditions") or []
        found = [item for item in seen if item["type"] == kind]
        return any((item["status"], item["reason"]) == (status, reason) and words in item["message"] for item in found)

    try:
        await eventually(there, WITHIN)
    except pytest.fail.Exception:
        raise AssertionError(f"no {kind}={status} {reason} {words!r} in {seen}") from None


async def told(world: World, *words: str) -> None:
    """Wait for an event with these words."""

    async def there() -> bool:
        events = json.loads(await world.kubectl("get", "events", "-o", "json"))["items"]
        return any(all(word in f"{item['reason']}: {item.get('message')}" for word in words) for item in events)

    await eventually(there)


async def condition_types(world: World) -> set[str]:
    return {
        item["type"] for item in (await world.get("gqp", "pool"))["status"]["conditions"] if item["status"] == "True"
    }


async def test_what_keeps_the_pods_from_running_is_said_of_the_pool(world: World) -> None:
    async def pod_says(**status: Any) -> None:
        body = json.dumps({"status": status})
        await world.kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", body)

    def container(**more: Any) -> dict[str, Any]:
        fixed = {"name": "worker", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
        return fixed | more

    async with world.operator(scale_seconds=0.2):
        await pool(world, minReplicas=1)
        await replicas(world, 1)
        name = (await eventually(one_pod(world)))["metadata"]["name"]
        await says(world, "Ready", "False", "PodsNotReady")
        place = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
        await pod_says(conditions=[place])
        await says(world, "Available", "False", "Unschedulable", "0/3 nodes")
        waiting = {"reason": "ErrImagePull", "message": "no such image"}
        await pod_says(containerStatuses=[container(state={"waiting": waiting})])
        await says(world, "Available", "False", "ErrImagePull", "no such image")
        await says(world, "Ready", "False", "ErrImagePull", f"pod {name}, container worker")
        ended = {"exitCode": 2, "reason": "Error", "message": "GOQUEUE_REDIS_URL is no URL\n"}
        waiting = {"reason": "CrashLoopBackOff", "message": "back-off 10s"}
        await pod_says(containerStatuses=[container(state={"waiting": waiting}, lastState={"terminated": ended})])
        await says(world, "Available", "False", "CrashLoopBackOff", "exit code 2 (Error): GOQUEUE_REDIS_URL is no URL")
        running = container(ready=True, state={"running": {}})
        await pod_says(phase="Running", conditions=[{"type": "Ready", "status": "True"}], containerStatuses=[running])
        await says(world, "Available", "True", "AsDeclared")
        await says(world, "Ready", "True", "AsDeclared")
        await world.kubectl("wait", "gqp/pool", "--for=condition=Ready", "--timeout=30s")


async def test_a_quota_that_lets_no_pod_in_is_said_of_the_pool(world: World) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}}
    await world.kubectl("create", "-f", "-", stdin=quota)
    counted = json.dumps({"status": {"hard": {"pods": "0"}, "used": {"pods": "0"}}})
    await world.kubectl("patch", "resourcequota", "q", "--subresource=status", "--type=merge", "-p", counted)
    async with world.operator(scale_seconds=0.2):
        await pool(world, minReplicas=1)
        await says(world, "Available", "False", "FailedCreate", "quota: q")
        await says(world, "Ready", "False", "FailedCreate", "quota: q")


async def test_a_queue_that_no_worker_knows_is_refused_by_name(world: World) -> None:
    async with world.operator():
        await pool(world, queues=["default", "nowhere:3"])
        await says(world, "Ready", "False", "UnknownQueue", "GOQUEUE_QUEUES does not name nowhere")
        await says(world, "Stalled", "True", "UnknownQueue")
        await told(world, "UnknownQueue", "nowhere")
        assert "pool" not in await world.kubectl("get", "deployments", "-o", "name")
        await world.kubectl("patch", "gqp", "pool", "--type=merge", "-p", '{"spec":{"queues":["default"]}}')
        await says(world, "Ready", "True", "AsDeclared")
        assert "Stalled" not in await condition_types(world)


async def test_a_queue_that_the_pools_own_image_may_bring_is_not_judged(world: World) -> None:
    async with world.operator():
        await pool(world, queues=["nowhere"], image="own:1")
        assert await deployment(world)


async def test_scaling_is_told_and_its_bounds_are_conditions(world: World) -> None:
    async with world.operator(scale_seconds=0.2):
        await pool(world, maxReplicas=2, concurrency=1)
        await says(world, "ScalingLimited", "False", "DesiredWithinRange")
        await says(world, "ScalingActive", "True", "LoadKnown")
        for _ in range(6):
            await world.engine.enqueue("echo")
        await replicas(world, 2)
        await says(world, "ScalingLimited", "True", "TooManyReplicas")
        await told(world, "SuccessfulRescale", "from 0 to")
        await world.kubectl("scale", "gqp/pool", "--replicas=0")
        await says(world, "ScalingActive", "False", "Pinned", "spec.replicas")
        await replicas(world, 0)
        await world.kubectl("patch", "gqp", "pool", "--type=merge", "-p", '{"spec":{"replicas":null,"minReplicas":2}}')
        await world.engine.execute("UPDATE jobs SET status = 'cancelled', finished_at = now()")
        await replicas(world, 2)


async def test_what_the_api_server_warns_of_is_an_event(world: World) -> None:
    async with world.operator():
        affinity = {"nodeAffinity": {"requiredByAll": {"x": 1}}}  # no version of Kubernetes has such a field
        await pool(world, podTemplate={"spec": {"affinity": affinity}})
        await told(world, "DeploymentWarning", 'unknown field "spec.template.spec.affinity.nodeAffinity.requiredByAll"')
        await says(world, "Ready", "True", "AsDeclared")


async def test_a_name_that_is_no_label_is_refused_at_apply_and_said_where_it_is_there(world: World) -> None:
    long = "x" * 64
    body = {
        "apiVersion": "goqueue.io/v1alpha1",
        "kind": "GoQueueWorkerPool",
        "metadata": {"name": long, "namespace": world.namespace},
        "spec": {"queues": ["default"]},
    }
    refusal = await asyncio.to_thread(world.kubernetes.refusal, body)
    assert "metadata.name" in refusal
    assert "63" in refusal
    path = "/spec/versions/0/schema/openAPIV3Schema/properties/metadata"
    crd = ("patch", "crd", "goqueueworkerpools.goqueue.io", "--type=json", "-p")
    definition = await world.get("crd", "goqueueworkerpools.goqueue.io")
    bound = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["metadata"]
    await world.kubectl(*crd, json.dumps([{"op": "replace", "path": path, "value": {"type": "object"}}]))

    async def accepted() -> bool:
        done = await asyncio.to_thread(world.kubernetes.run, "apply", "-f", "-", stdin=body)
        return done.returncode == 0

    async def refused_again() -> bool:
        other = body | {"metadata": {"name": "y" * 64, "namespace": world.namespace}}
        done = await asyncio.to_thread(world.kubernetes.run, "apply", "--dry-run=server", "-f", "-", stdin=other)
        return done.returncode != 0

    try:
        await eventually(accepted)
    finally:
        await world.kubectl(*crd, json.dumps([{"op": "replace", "path": path, "value": bound}]))
    await eventually(refused_again)
    async with world.operator():
        await says(world, "Ready", "False", "Refused", "at most 63 characters", name=long)
        await told(world, "Refused", "63 characters")


async def test_what_fails_for_one_pool_is_said_of_it_and_the_others_live(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = building.build

    def broken(pool: Any, *arguments: Any) -> Any:
        if pool["metadata"]["name"] == "broken":
            raise ZeroDivisionError
        return build(pool, *arguments)

    monkeypatch.setattr(building, "build", broken)
    async with world.operator(scale_seconds=0.2):
        await world.make("GoQueueWorkerPool", "broken", {"queues": ["default"]})
        await says(world, "Ready", "False", "InternalError", "ZeroDivisionError", name="broken")
        await pool(world, minReplicas=1)
        await replicas(world, 1)
        await told(world, "InternalError")


async def test_what_fails_for_one_schedule_or_job_keeps_no_other_from_its_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = payloads.body

    def broken(spec: Any, payload: Any) -> Any:
        if payload == {"broken": True}:
            raise ZeroDivisionError
        return body(spec, payload)

    due = Schedule.due

    def broken_due(schedule: Schedule, *arguments: Any) -> Any:
        if schedule.resource["metadata"]["name"] == "broken":
            raise ZeroDivisionError
        return due(schedule, *arguments)

    monkeypatch.setattr(payloads, "body", broken)
    monkeypatch.setattr(Schedule, "due", broken_due)
    template = {"spec": {"queue": "default", "type": "echo", "payload": {}}}
    async with world.operator(), world.engine.worker():
        await world.job("broken", payload={"broken": True})
        await world.make("GoQueueSchedule", "broken", {"cron": "* * * * *", "jobTemplate": template})
        await told(world, "InternalError", "ZeroDivisionError")
        await world.job("fine")
        await world.state("fine", "completed")
        await world.make("GoQueueSchedule", "fine", {"cron": "* * * * *", "jobTemplate": template})
        await world.kubectl("wait", "gqs/fine", "--for=condition=Ready", "--timeout=60s")
        conditions = (await world.get("gqj", "broken"))["status"]["conditions"]
        assert [item["reason"] for item in conditions if item["type"] == "Accepted"] == ["InternalError"]


async def test_a_status_is_not_written_to_a_pool_of_the_same_name(world: World) -> None:
    kube = Kube(from_kubeconfig(world.kubernetes.kubeconfig))
    pools = Pools(kube, world.engine.service, ["default"], Defaults("goqueue:1"), namespace=world.namespace)
    await pool(world)
    former = await world.get("gqp", "pool")
    former["metadata"]["uid"] = "11111111-1111-1111-1111-111111111111"
    with pytest.raises(KubeError):
        await pools._write(Pool(former, {}), Decision(0, "nothing to do", History()), Load(0, 0))
    assert "status" not in await world.get("gqp", "pool")
    await kube.close()
