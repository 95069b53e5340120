"""With the rights that the chart gives it, the operator can do all its work; what it needs no longer is seen here."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.chart import CHART, run_helm
from tests.integration.operator.conftest import World
from tests.integration.operator.test_pools import pool, replicas
from tests.integration.operator.test_schedules import schedule

pytestmark = pytest.mark.asyncio


async def bound(world: World, *, everywhere: bool, folder: Path) -> Path:
    """A kubeconfig of an account with the chart's rights."""
    settings = {"settings": {"operator": {"clusterWide": everywhere}}}
    text = await asyncio.to_thread(run_helm, "template", "goqueue", str(CHART), "-n", world.namespace, values=settings)
    kinds = {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "ServiceAccount"}
    objects = [item for item in yaml.safe_load_all(text) if item and item["kind"] in kinds]
    account = next(
        subject["name"]
        for item in objects
        if item["kind"].endswith("Binding") and "operator" in item["metadata"]["name"]
        for subject in item["subjects"]
    )
    for item in objects:
        if "namespace" not in item["metadata"] and not item["kind"].startswith("Cluster"):
            item["metadata"]["namespace"] = world.namespace
    await world.kubectl("apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": objects})
    token = (await world.kubectl("create", "token", account)).strip()
    config: dict[str, Any] = yaml.safe_load(world.kubernetes.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    authority = world.kubernetes.folder / config["clusters"][0]["cluster"]["certificate-authority"]
    config["clusters"][0]["cluster"]["certificate-authority"] = str(authority)
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.parametrize("everywhere", [False, True])
async def test_the_charts_rights_are_enough(world: World, tmp_path: Path, everywhere: bool) -> None:
    path = await bound(world, everywhere=everywhere, folder=tmp_path)
    async with world.operator(kubeconfig=path, cluster_wide=everywhere), world.engine.worker():
        await world.job("one")
        await world.state("one", "completed")
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s", "labels": {"goqueue.io/payload": "true"}},
            "stringData": {"payload": "{}"},
        }
        await world.kubectl("create", "-f", "-", stdin=secret)
        reference = {"secretKeyRef": {"name": "s", "key": "payload"}}
        body = {"queue": "default", "type": "echo", "payloadFrom": reference, "ttlSecondsAfterFinished": 0}
        await world.make("GoQueueJob", "two", body)
        await pool(world, minReplicas=2)
        await replicas(world, 2)
        await world.kubectl("patch", "gqp", "pool", "--type=merge", "-p", '{"spec":{"minReplicas":0}}')
        await replicas(world, 0)
        await schedule(world, timeZone="Mars/Olympus")
        await asyncio.sleep(1)
        assert "CannotFire" in await world.kubectl("get", "events")
        assert "two" not in await world.kubectl("get", "gqj", "-o", "name")
