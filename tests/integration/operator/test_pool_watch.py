"""Deployments and pods of pools come by watch: no request while nothing changes, and no pool waits for another one."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from goqueue.tasks import end_all
from goqueue_operator.access import from_kubeconfig
from goqueue_operator.informer import Informer
from goqueue_operator.kube import DEPLOYMENTS, Kube
from tests.integration.engine import eventually
from tests.integration.operator.conftest import World
from tests.integration.operator.test_pools import deployment, pool, replicas
from tests.servers.tcp import listen

pytestmark = pytest.mark.asyncio


async def settled(world: World, *names: str) -> None:
    """Wait until the status of each pool says that it is as declared."""

    async def there() -> bool:
        items = json.loads(await world.kubectl("get", "gqp", "-o", "json"))["items"]
        ready = {
            item["metadata"]["name"]
            for item in items
            for condition in (item.get("status") or {}).get("conditions") or ()
            if condition["type"] == "Ready" and condition["status"] == "True"
        }
        return ready >= set(names)

    await eventually(there)


async def test_idle_pools_cost_no_request(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"pool-{number}" for number in range(20)]
    for name in names:
        await world.make("GoQueueWorkerPool", name, {"queues": ["default"]})
    asked: list[tuple[str, str]] = []
    request = Kube.request

    async def counted(self: Kube, method: str, path: str, *arguments: Any, **more: Any) -> Any:
        asked.append((method, path))
        return await request(self, method, path, *arguments, **more)

    monkeypatch.setattr(Kube, "request", counted)
    async with world.operator(scale_seconds=0.2, compare_seconds=3600) as operator:
        await settled(world, *names)
        pools = operator.pools
        assert pools is not None
        looks = 0
        look, enough = pools._look, asyncio.Event()

        async def looked() -> None:
            nonlocal looks
            await look()
            looks += 1
            if looks == 3:
                asked.clear()
            if looks == 13:
                enough.set()

        monkeypatch.setattr(pools, "_look", looked)
        async with asyncio.timeout(60):
            await enough.wait()
        assert [path for _, path in asked if "leases" not in path] == []


async def test_a_change_of_a_deployment_is_taken_back_without_a_look_that_is_due(world: World) -> None:
    async with world.operator(scale_seconds=3600):
        await pool(world, minReplicas=1)
        await replicas(world, 1)
        await world.kubectl("scale", "deployment/pool", "--replicas=4")
        await replicas(world, 1)
        await world.kubectl("label", "deployment", "pool", "goqueue.io/pool-")

        async def labelled() -> bool:
            return bool((await deployment(world))["metadata"]["labels"].get("goqueue.io/pool") == "pool")

        await eventually(labelled)
        former = (await deployment(world))["metadata"]["uid"]
        await world.kubectl("delete", "deployment", "pool")

        async def made_again() -> bool:
            return bool((await deployment(world))["metadata"]["uid"] != former)

        await eventually(made_again)


@contextlib.asynccontextmanager
async def silent_webhook(world: World, name: str) -> AsyncIterator[asyncio.Event]:
    """An admission webhook for the Deployment of that name that never answers; the event: the API server asks it."""
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        asked.set()
        while await reader.read(65536):
            pass

    async with listen(silent) as port:
        body = webhook(world.namespace, name, port)
        await world.kubectl("create", "-f", "-", stdin=body)
        try:
            yield asked
        finally:
            await world.kubectl("delete", "validatingwebhookconfiguration", world.namespace)


def webhook(namespace: str, deployment: str, port: int) -> dict[str, object]:
    """A ValidatingWebhookConfiguration for the Deployment, served at a port of this machine."""
    hook = {
        "name": "silent.goqueue.io",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "timeoutSeconds": 15,
        "failurePolicy": "Fail",
        "clientConfig": {"url": f"https://127.0.0.1:{port}/"},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "matchConditions": [{"name": "name", "expression": f"object.metadata.name == '{deployment}'"}],
        "rules": [
            {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["deployments"]},
        ],
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": namespace},
        "webhooks": [hook],
    }


async def test_a_pool_that_a_webhook_holds_up_delays_no_other_and_says_why(world: World) -> None:
    async def says(word: str) -> bool:
        return word in str((await world.get("gqp", "slow")).get("status"))

    async with silent_webhook(world, "slow") as asked, world.operator():
        held = 0
        while not asked.is_set():  # the API server needs a moment to know the webhook
            await world.make("GoQueueWorkerPool", "slow", {"queues": ["default"]})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await asked.wait()
            if not asked.is_set():
                held += 1
                assert held < 10
                await world.kubectl("delete", "gqp", "slow")
        await pool(world)
        assert await deployment(world)
        await replicas(world, 0)
        assert not await says("Refused"), "the webhook's time has not run out"
        await eventually(lambda: says("failed calling webhook"))
        assert await says("KubernetesUnavailable")


async def test_the_copy_forgets_what_went_while_nobody_watched(world: World) -> None:
    kube = Kube(from_kubeconfig(world.kubernetes.kubeconfig))
    changes: list[tuple[bool, bool]] = []
    informer = Informer(
        kube, DEPLOYMENTS, world.namespace, "app", dict, lambda old, new: changes.append((old is None, new is None))
    )
    for name in ("one", "two"):
        await world.kubectl("create", "deployment", name, "--image=none", "--replicas=0")
    running = asyncio.create_task(informer.run())
    await informer.synced.wait()
    assert [item["metadata"]["name"] for item in informer.labelled(world.namespace, "one")] == ["one"]
    await end_all([running])
    await world.kubectl("delete", "deployment", "one")
    running = asyncio.create_task(informer.run())

    async def forgotten() -> bool:
        return informer.get(world.namespace, "one") is None

    await eventually(forgotten)
    assert (False, True) in changes
    assert informer.labelled(world.namespace, "one") == []
    await world.kubectl("label", "deployment", "two", "--overwrite", "app=three")

    async def moved() -> bool:
        return bool(informer.labelled(world.namespace, "three")) and not informer.labelled(world.namespace, "two")

    await eventually(moved)
    await end_all([running])
    await kube.close()


async def test_an_answer_of_a_write_is_not_undone_by_the_state_before_it(world: World) -> None:
    kube = Kube(from_kubeconfig(world.kubernetes.kubeconfig))
    informer = Informer(kube, DEPLOYMENTS, world.namespace, "app", dict, lambda *_: None)
    await world.kubectl("create", "deployment", "one", "--image=none", "--replicas=0")
    before = await world.get("deployment", "one")
    made = await kube.patch(DEPLOYMENTS, world.namespace, "one", {"spec": {"replicas": 3}})
    informer.put(made)
    informer._take({"type": "MODIFIED", "object": before})
    known = informer.get(world.namespace, "one")
    assert known is not None
    assert known["spec"]["replicas"] == 3
    await kube.close()
