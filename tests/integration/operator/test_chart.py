"""What the chart renders, before a real API server: it takes all of it, and people get the rights that are meant."""

import asyncio
import json
import uuid
from typing import Any

import pytest
import yaml

from tests.chart import generated
from tests.chart.chart import Manifest, render
from tests.chart.test_values import merged
from tests.integration.engine import eventually
from tests.integration.operator.apiserver import ApiServer

FOREIGN = ("gateway.networking.k8s.io", "monitoring.coreos.com")
"""Groups of kinds that this API server does not have; tests/chart/kubernetes.py knows their definitions."""

GIVEN = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(generated.GIVEN.glob("*.yaml"))}
PROXY = {"name": "proxy", "image": "proxy:1", "restartPolicy": "Always"}
MORE: dict[str, Any] = {
    "commonLabels": {"team": "billing"},
    "deploymentAnnotations": {"reloader.stakater.com/auto": "true"},
    "extraInitContainers": [PROXY],
    "extraContainers": [{"name": "beside", "image": "beside:1"}],
    "extraObjects": ["{apiVersion: v1, kind: ConfigMap, metadata: {name: own}, data: {release: {{ .Release.Name }}}}"],
    "hostUsers": False,
    "topologySpreadConstraints": [
        {"topologyKey": "topology.kubernetes.io/zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
    ],
    "networkPolicy": {"extraEgress": [{"ports": [{"protocol": "TCP", "port": 3128}]}]},
    "api": {
        "strategy": {"rollingUpdate": {"maxUnavailable": "25%", "maxSurge": 2}},
        "autoscaling": {"enabled": True, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 600}}},
        "service": {"ipFamilyPolicy": "PreferDualStack"},
    },
    "scheduler": {"strategy": {"type": "Recreate"}},
}
CASES = {
    **GIVEN,
    "all values": MORE,
    "all values, without the operator": merged(MORE, {"operator": {"enabled": False}}),
}


@pytest.fixture
def namespace(kubernetes: ApiServer) -> str:
    name = f"chart-{uuid.uuid4().hex[:8]}"
    kubernetes("create", "namespace", name)
    business = {"metadata": {"name": "business"}, "value": 1}  # tests/chart/values/production.yaml names it
    kubernetes("apply", "-f", "-", stdin={"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", **business})
    return name


def taken(kubernetes: ApiServer, documents: list[Manifest]) -> str:
    """What the API server says of them, without keeping any."""
    ours = [one for one in documents if not one["apiVersion"].startswith(FOREIGN)]
    arguments = ("apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", "-")
    return kubernetes(*arguments, stdin={"apiVersion": "v1", "kind": "List", "items": ours})


@pytest.mark.parametrize("name", CASES)
async def test_the_api_server_takes_all_of_it(kubernetes: ApiServer, namespace: str, name: str) -> None:
    documents = await asyncio.to_thread(render, CASES[name], namespace=namespace)
    accounts = [one for one in documents if one["kind"] == "ServiceAccount"]
    listed = {"apiVersion": "v1", "kind": "List", "items": accounts}
    await asyncio.to_thread(kubernetes, "apply", "--server-side", "-f", "-", stdin=listed)  # a pod needs its account
    said = await asyncio.to_thread(taken, kubernetes, [one for one in documents if one not in accounts])
    assert said.count("serverside-applied") > 20
    pools = [one for one in documents if one["metadata"]["name"] == "goqueue-pools" and one["kind"] == "ConfigMap"]
    if pools:
        made = json.loads(pools[0]["data"]["pools.json"])
        await asyncio.to_thread(taken, kubernetes, made)


RIGHTS = [
    ("view", "list", "goqueuejobs", "yes"),
    ("view", "get", "goqueuejobs/status", "yes"),
    ("view", "create", "goqueuejobs", "no"),
    ("view", "patch", "goqueueworkerpools/scale", "no"),
    ("edit", "create", "goqueuejobs", "yes"),
    ("edit", "list", "goqueueschedules", "yes"),
    ("edit", "delete", "goqueueworkerpools", "yes"),
    ("edit", "patch", "goqueueworkerpools/scale", "yes"),
    ("edit", "patch", "goqueuejobs/status", "no"),
    ("admin", "create", "goqueueschedules", "yes"),
    ("admin", "update", "goqueueworkerpools/status", "no"),
]


async def test_who_has_a_role_of_kubernetes_in_a_namespace_has_it_for_our_kinds(
    kubernetes: ApiServer, namespace: str
) -> None:
    documents = await asyncio.to_thread(render, namespace=namespace)
    roles = [one for one in documents if one["kind"] == "ClusterRole"]
    assert len(roles) == 2
    kubernetes("apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": roles})
    for role in ("view", "edit", "admin"):
        kubernetes("-n", namespace, "create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}")

    def answer(role: str, verb: str, resource: str) -> str:
        kind, _, subresource = resource.partition("/")
        asked = ["auth", "can-i", verb, f"{kind}.goqueue.io", f"--as={role}"]
        return kubernetes.run("-n", namespace, *asked, f"--subresource={subresource}").stdout.strip()

    for role, verb, resource in (("view", "list", "goqueuejobs"), ("edit", "create", "goqueuejobs")):

        async def aggregated(role: str = role, verb: str = verb, resource: str = resource) -> bool:
            return answer(role, verb, resource) == "yes"

        await eventually(aggregated)
    found = [(role, verb, resource, answer(role, verb, resource)) for role, verb, resource, _ in RIGHTS]
    assert found == RIGHTS
    kubernetes("delete", "clusterrole", *(one["metadata"]["name"] for one in roles))
