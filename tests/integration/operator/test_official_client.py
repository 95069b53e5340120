"""Kubernetes' own Python client makes our resources and reads what the operator writes by its own types."""

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest
from kubernetes import client, config, watch

from tests.integration.engine import eventually
from tests.integration.operator.conftest import World
from tests.integration.operator.test_pools import deployment, pool

pytestmark = pytest.mark.asyncio

PLACE = ("goqueue.io", "v1alpha1")


def ended(api: client.CustomObjectsApi, namespace: str, name: str) -> dict[str, Any]:
    """The status with which a GoQueueJob ends, by the client's own watch."""
    events = watch.Watch()
    for event in events.stream(api.list_namespaced_custom_object, *PLACE, namespace, "goqueuejobs", timeout_seconds=60):
        status: dict[str, Any] = event["object"].get("status") or {}
        if event["object"]["metadata"]["name"] == name and status.get("state") in ("completed", "failed"):
            events.stop()
            return status
    raise AssertionError("it does not end")


async def test_a_program_makes_a_job_and_follows_it_to_its_end(world: World) -> None:
    with config.new_client_from_config(str(world.kubernetes.kubeconfig)) as connection:
        api = client.CustomObjectsApi(connection)
        body = {
            "apiVersion": "/".join(PLACE),
            "kind": "GoQueueJob",
            "metadata": {"generateName": "report-"},
            "spec": {"queue": "default", "type": "echo", "payload": {"text": "hello"}},
        }
        async with world.operator(), world.engine.worker():
            made: Any = await asyncio.to_thread(
                api.create_namespaced_custom_object, *PLACE, world.namespace, "goqueuejobs", body
            )
            status = await asyncio.to_thread(ended, api, world.namespace, made["metadata"]["name"])
    assert status["state"] == "completed"
    assert status["result"] == {"text": "hello"}


async def test_deployments_and_the_lease_are_what_the_clients_types_expect(world: World) -> None:
    with config.new_client_from_config(str(world.kubernetes.kubeconfig)) as connection:
        async with world.operator() as operator:
            await pool(world)
            name = (await deployment(world))["metadata"]["name"]
            found: Any = await asyncio.to_thread(
                client.AppsV1Api(connection).read_namespaced_deployment, name, world.namespace
            )
            assert found.spec.template.spec.containers[0].name == "worker"
            assert found.metadata.owner_references[0].kind == "GoQueueWorkerPool"
            leases = client.CoordinationV1Api(connection)

            async def renewed() -> bool:
                lease: Any = await asyncio.to_thread(leases.read_namespaced_lease, "goqueue-operator", world.namespace)
                assert lease.spec.holder_identity == operator.lease.holder
                return bool(lease.spec.renew_time > lease.spec.acquire_time)

            await eventually(renewed)


async def test_the_operator_needs_no_official_client() -> None:
    hidden = "import sys; sys.modules['kubernetes'] = None; import goqueue_operator.operator; import json;"
    shown = "print(json.dumps([name for name in sys.modules if name.startswith('kubernetes.')]))"
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", hidden + shown], capture_output=True, text=True
    )
    assert json.loads(done.stdout) == [], done.stderr
