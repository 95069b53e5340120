"""A pool's pods are replaced when what their environment comes from changes, and the annotation says nothing of it."""

import json
from typing import Any

import pytest

from goqueue_operator.deployment import REVISION
from tests.integration.engine import eventually
from tests.integration.operator.conftest import World
from tests.integration.operator.test_pools import deployment, pool

pytestmark = pytest.mark.asyncio


async def template(world: World) -> dict[str, Any]:
    found: dict[str, Any] = (await deployment(world))["spec"]["template"]
    return found


async def revision(world: World) -> str:
    return str(((await template(world))["metadata"].get("annotations") or {}).get(REVISION, ""))


async def another(world: World, former: str) -> str:
    """Wait for another revision."""

    async def there() -> str | None:
        now = await revision(world)
        return now if now != former else None

    return str(await eventually(there))


async def secret(world: World, name: str, value: str) -> None:
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"KEY": value}}
    await world.kubectl("apply", "-f", "-", stdin=body)


async def config(world: World, name: str, **data: str) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
    await world.kubectl("apply", "-f", "-", stdin=body)


async def test_new_settings_and_rotated_secrets_replace_the_pods(world: World) -> None:
    await config(world, "settings", LOG="info")
    await secret(world, "password", "one")
    await secret(world, "own", "one")
    await secret(world, "of-key", "one")
    variable = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "of-key", "key": "KEY"}}}
    defaults = ["configmap/settings", "secret/password", "secret/not-there"]
    async with world.operator(compare_seconds=0.2, scale_seconds=0.2, worker_env_from=defaults) as operator:
        await pool(world, envFrom=[{"secretRef": {"name": "own"}}], env=[variable])
        known = await revision(world)
        assert known
        assert operator.pools is not None
        read = operator.pools._deployments._revisions._read
        kinds = {(kind, item["kind"]) for (kind, *_), (_, item) in read.items() if isinstance(item, dict)}
        assert kinds == {("ConfigMap", "ConfigMap"), ("Secret", "PartialObjectMetadata")}, "content of a Secret is read"
        for name in ("password", "own", "of-key"):
            await secret(world, name, "two")
            known = await another(world, known)
        await config(world, "settings", LOG="debug")
        known = await another(world, known)
        await secret(world, "not-there", "one")
        known = await another(world, known)
        generation = (await deployment(world))["metadata"]["generation"]
        await world.kubectl("label", "configmap", "settings", "helm.sh/chart=goqueue-2")
        await secret(world, "own", "two")  # as it is
        await pool_is_looked_at(world)
        assert await revision(world) == known
    async with world.operator(compare_seconds=0.2, scale_seconds=0.2, worker_env_from=defaults):  # the next leader
        await pool_is_looked_at(world)
        assert await revision(world) == known
        assert (await deployment(world))["metadata"]["generation"] == generation


async def pool_is_looked_at(world: World) -> None:
    """Wait until the pool has been looked at with its settings read: another change of it has arrived."""
    number = (await world.get("gqp", "pool"))["spec"].get("maxReplicas", 10) + 1
    await world.kubectl("patch", "gqp", "pool", "--type=merge", "-p", json.dumps({"spec": {"maxReplicas": number}}))

    async def seen() -> bool:
        item = await world.get("gqp", "pool")
        return bool((item.get("status") or {}).get("observedGeneration") == item["metadata"]["generation"])

    await eventually(seen)


async def test_the_grace_period_of_a_config_map_is_the_pods(world: World) -> None:
    await config(world, "slow", GOQUEUE_WORKER_GRACE_SECONDS="300")
    async with world.operator(compare_seconds=0.2, scale_seconds=0.2):
        await pool(world, envFrom=[{"configMapRef": {"name": "slow"}}])
        assert (await template(world))["spec"]["terminationGracePeriodSeconds"] == 310
        await config(world, "slow", GOQUEUE_WORKER_GRACE_SECONDS="600")

        async def longer() -> bool:
            return bool((await template(world))["spec"]["terminationGracePeriodSeconds"] == 610)

        await eventually(longer)


async def test_labels_and_annotations_of_the_pool_are_those_of_its_deployment(world: World) -> None:
    async with world.operator(scale_seconds=0.2):
        await pool(world, strategy={"maxUnavailable": 1, "maxSurge": 0}, minReadySeconds=7)
        spec = (await deployment(world))["spec"]
        assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}
        assert spec["minReadySeconds"] == 7
        await world.kubectl("annotate", "deployment", "pool", "foreign=kept")
        for what, pair in (("label", "team=mail"), ("annotate", "owner=mail"), ("annotate", "helm.sh/x=y")):
            await world.kubectl(what, "gqp", "pool", pair)

        async def copied() -> bool:
            metadata = (await deployment(world))["metadata"]
            return (metadata["labels"].get("team"), metadata["annotations"].get("owner")) == ("mail", "mail")

        async def withdrawn() -> bool:
            return "owner" not in (await deployment(world))["metadata"]["annotations"]

        await eventually(copied)
        assert "helm.sh/x" not in (await deployment(world))["metadata"]["annotations"]
        await world.kubectl("annotate", "gqp", "pool", "owner-")
        await eventually(withdrawn)
        assert (await deployment(world))["metadata"]["annotations"]["foreign"] == "kept"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"queues": ["email", "email:3"]}, "a queue is named twice"),
        ({"strategy": {"maxSurge": 0}}, "cannot both be 0"),
        ({"strategy": {"maxSurge": "0%", "maxUnavailable": 0}}, "cannot both be 0"),
        ({"strategy": {"maxUnavailable": "101%"}}, "strategy.maxUnavailable"),
        ({"strategy": {"maxSurge": -1}}, "strategy.maxSurge"),
        ({"minReadySeconds": -1}, "minReadySeconds"),
    ],
)
async def test_what_no_deployment_can_be_is_refused_at_apply(world: World, spec: dict[str, Any], words: str) -> None:
    body = {"apiVersion": "goqueue.io/v1alpha1", "kind": "GoQueueWorkerPool", "metadata": {"name": "p"}, "spec": spec}
    assert words in world.kubernetes.refusal(body)
