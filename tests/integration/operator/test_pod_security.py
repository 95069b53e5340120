"""What Kubernetes itself says of our pods: the Pod Security Standard `restricted`, as its admission enforces it."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from goqueue_operator.access import from_kubeconfig
from goqueue_operator.deployment import Defaults, Refused, build
from goqueue_operator.kube import PODS, Kube, KubeError
from tests.chart.chart import pod_specs, render
from tests.integration.operator.apiserver import ApiServer
from tests.unit.operator import golden
from tests.unit.operator.tricks import HARMLESS, TRICKS

pytestmark = pytest.mark.asyncio

DEFAULTS = Defaults(image="goqueue:1", accounts=["*"], forbidden_account="goqueue-operator")


class Restricted:
    """A namespace whose pods must be `restricted`; nothing is kept in it."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.kube, self.namespace = kube, namespace

    async def verdict(self, template: dict[str, Any]) -> str:
        """What admission says of a pod: nothing where it would be made, `invalid: …`, or `violates PodSecurity …`."""
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**template.get("metadata", {}), "name": "probe", "namespace": self.namespace},
            "spec": template["spec"],
        }
        try:
            await self.kube.request("POST", PODS.path(self.namespace), body, dryRun="All")
        except KubeError as error:
            return f"invalid: {error.message}" if error.code in (400, 422) else error.message
        return ""


@pytest.fixture
async def restricted(kubernetes: ApiServer) -> AsyncIterator[Restricted]:
    """Such a namespace, and a way into it."""
    name = f"restricted-{uuid.uuid4().hex[:8]}"
    labels = {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "latest",
    }
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    await asyncio.to_thread(kubernetes, "create", "-f", "-", stdin=body)
    urgent = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1}
    await asyncio.to_thread(kubernetes, "apply", "-f", "-", stdin=urgent)
    kube = Kube(from_kubeconfig(kubernetes.kubeconfig))
    yield Restricted(kube, name)
    await kube.close()
    await asyncio.to_thread(kubernetes, "delete", "namespace", name, "--wait=false")


def built(pod: dict[str, Any]) -> dict[str, Any]:
    """The pod template of a pool with this template."""
    pool = golden.given("pool-plain.yaml")
    pool["spec"]["podTemplate"] = {"spec": pod}
    template: dict[str, Any] = build(pool, 1, DEFAULTS)["spec"]["template"]
    return template


async def test_the_namespace_of_these_tests_does_refuse_pods(restricted: Restricted) -> None:
    plain = {"spec": {"containers": [{"name": "x", "image": "x"}]}}
    assert "violates PodSecurity" in await restricted.verdict(plain)


@pytest.mark.timeout(120)
async def test_every_pod_of_the_chart_is_admitted_where_restricted_is_enforced(restricted: Restricted) -> None:
    documents = await asyncio.to_thread(render, {"workerPools": {"default": {}}})
    documents += await asyncio.to_thread(render, {"operator": {"enabled": False}})
    pods = pod_specs(documents)
    assert len(pods) >= 8
    for name, template in pods.items():
        spec = dict(template["spec"])
        mounted = {volume["name"] for volume in spec["volumes"]}
        # What a StatefulSet claims stands beside its template.
        claimed = {mount["name"] for one in spec["containers"] for mount in one["volumeMounts"]} - mounted
        spec["volumes"] = [*spec["volumes"], *({"name": volume, "emptyDir": {}} for volume in claimed)]
        assert await restricted.verdict(template | {"spec": spec}) == "", name


async def test_what_the_rules_for_pools_allow_is_admitted_where_restricted_is_enforced(restricted: Restricted) -> None:
    for name in golden.names():
        template = build(golden.given(name), 1, golden.DEFAULTS)["spec"]["template"]
        assert await restricted.verdict(template) == "", name
    for what, pod in HARMLESS.items():
        assert await restricted.verdict(built(pod)) == "", what


def _changes(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two templates as one; lists of both one after the other."""
    made = dict(first)
    for key, value in second.items():
        old = made.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            made[key] = _changes(old, value)
        elif isinstance(old, list) and isinstance(value, list):
            made[key] = old + value
        else:
            made[key] = value
    return made


_PARTS = st.sampled_from([pod for pod, _ in TRICKS.values()]) | st.sampled_from(list(HARMLESS.values()))
_CONTEXT: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "privileged": st.sampled_from([None, False, 0, "", True]),
        "allowPrivilegeEscalation": st.sampled_from([None, False, True]),
        "runAsUser": st.sampled_from([None, 0, 1, 65534, -1]),
        "runAsNonRoot": st.sampled_from([None, True, False]),
        "seccompProfile": st.sampled_from(
            [None, {}, {"type": None}, {"type": "RuntimeDefault"}, {"type": "Unconfined"}, {"type": "unconfined"}]
        ),
        "capabilities": st.sampled_from(
            [None, {}, {"add": None}, {"add": [], "drop": []}, {"add": ["NET_BIND_SERVICE"]}, {"add": ["CHOWN"]}]
        ),
        "procMount": st.sampled_from([None, "Default", "Unmasked", "default"]),
        "appArmorProfile": st.sampled_from([None, {"type": "RuntimeDefault"}, {"type": "Unconfined"}]),
        "readOnlyRootFilesystem": st.booleans(),
        "seLinuxOptions": st.sampled_from([None, {}, {"type": "container_t"}, {"user": "root"}]),
    },
)
_CONTAINER = st.builds(
    lambda name, context: {"name": name, "securityContext": context} | ({} if name == "worker" else {"image": "x"}),
    st.sampled_from(["worker", "beside"]),
    _CONTEXT,
)
_WHOLE = st.fixed_dictionaries(
    {},
    optional={"securityContext": _CONTEXT, "containers": st.lists(_CONTAINER, max_size=2), "initContainers": st.none()},
)


@pytest.mark.timeout(180)
async def test_no_mixture_of_parts_is_allowed_by_the_rules_and_refused_by_pod_security(restricted: Restricted) -> None:
    """Kubernetes' own admission is the judge of what the rules let through."""
    judged = {"refused by the rules": 0, "admitted": 0, "invalid anyway": 0}
    templates: list[dict[str, Any]] = []

    @settings(max_examples=800, deadline=None, database=None, derandomize=True)
    @given(_WHOLE | st.builds(_changes, _PARTS, _PARTS) | st.builds(_changes, _WHOLE, _PARTS))
    def gather(pod: dict[str, Any]) -> None:
        try:
            templates.append(built(pod))
        except Refused:
            judged["refused by the rules"] += 1

    gather()
    for start in range(0, len(templates), 50):
        some = templates[start : start + 50]
        for template, verdict in zip(some, await asyncio.gather(*map(restricted.verdict, some)), strict=True):
            assert "PodSecurity" not in verdict, (verdict, template)
            judged["invalid anyway" if verdict else "admitted"] += 1
    print(judged)
    assert judged["refused by the rules"] > 200
    assert judged["admitted"] > 50
