"""Which pod may talk to which, by the NetworkPolicies of the chart: the flows that are needed, and no other."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.chart.chart import Manifest, pod_specs, render

Flow = tuple[str, str, str]
"""From a component, to a component, on a port by its name."""

COMPONENT = "app.kubernetes.io/component"
STRANGER = "stranger"
"""A pod of another namespace that is none of ours."""

STORES: set[Flow] = {
    (component, store, store)
    for component in ("api", "migrations", "operator", "scheduler", "worker")
    for store in ("postgresql", "valkey")
}
METRICS: set[Flow] = {
    (STRANGER, "api", "metrics"),
    *((STRANGER, component, "health") for component in ("operator", "scheduler", "worker")),
}
TEST: set[Flow] = {("test", "api", "http")}


def matches(selector: Manifest, labels: Manifest) -> bool:
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", []))


def port_allowed(rule: Manifest, port: Manifest) -> bool:
    """Whether a rule speaks of this port of a container, by name or number."""
    return "ports" not in rule or any(
        one.get("port") in (None, port["name"], port["containerPort"]) for one in rule["ports"]
    )


def peer_allowed(rule: Manifest, side: str, labels: Manifest, *, ours: bool) -> bool:
    """Whether a rule speaks of a peer with these labels, of the release's namespace or of another one."""
    if not rule.get(side):
        return True
    return any(
        "ipBlock" not in one
        and (ours or "namespaceSelector" in one)
        and matches(one.get("podSelector", {}), labels)
        and not one.get("namespaceSelector")
        for one in rule[side]
    )


def rules(policies: list[Manifest], kind: str, labels: Manifest) -> Iterator[Manifest]:
    for policy in policies:
        if kind.capitalize() in policy["spec"]["policyTypes"] and matches(policy["spec"]["podSelector"], labels):
            yield from policy["spec"].get(kind) or []


def flows(documents: list[Manifest]) -> set[Flow]:
    policies = [one for one in documents if one["kind"] == "NetworkPolicy"]
    pods: dict[str, tuple[Manifest, list[Manifest]]] = {}
    for pod in pod_specs(documents).values():
        ports = [port for one in pod["spec"]["containers"] for port in one.get("ports", [])]
        pods[pod["metadata"]["labels"][COMPONENT]] = (pod["metadata"]["labels"], ports)
    allowed = set()
    for source in (*pods, STRANGER):
        mine: dict[str, Any] = pods[source][0] if source in pods else {}
        for target, (labels, ports) in pods.items():
            for port in ports:
                out = source == STRANGER or any(
                    port_allowed(rule, port) and peer_allowed(rule, "to", labels, ours=True)
                    for rule in rules(policies, "egress", mine)
                )
                into = any(
                    port_allowed(rule, port) and peer_allowed(rule, "from", mine, ours=source != STRANGER)
                    for rule in rules(policies, "ingress", labels)
                )
                if out and into:
                    allowed.add((source, target, port["name"]))
    return allowed


def test_pods_reach_each_other_where_they_must_and_nowhere_else() -> None:
    found = flows(render({"operator": {"enabled": False}}))
    operator = {flow for flow in STORES | METRICS if "operator" in flow}
    # Workers may call anybody (webhooks, mail), and everybody may call the API, and see the metrics.
    worker = {("worker", "api", "http"), ("worker", "api", "metrics"), ("worker", "scheduler", "health")}
    expected = STORES | METRICS | TEST | worker | {(STRANGER, "api", "http"), ("worker", "worker", "health")}
    assert found == expected - operator


def test_the_operator_is_reached_by_metrics_alone_and_reaches_the_stores() -> None:
    found = {flow for flow in flows(render()) if "operator" in flow[:2]}
    assert found == {flow for flow in STORES | METRICS if "operator" in flow}


@pytest.mark.parametrize("store", ["postgresql", "valkey"])
def test_no_stranger_reaches_a_store(store: str) -> None:
    assert (STRANGER, store, store) not in flows(render({"operator": {"enabled": False}}))
    assert (STRANGER, store, store) in flows([*render({"operator": {"enabled": False}}), _open(store)])


def _open(component: str) -> Manifest:
    """A policy that lets everybody in, to see that these tests would notice it."""
    selector = {"matchLabels": {COMPONENT: component}}
    return {
        "kind": "NetworkPolicy",
        "metadata": {"name": "x"},
        "spec": {"podSelector": selector, "policyTypes": ["Ingress"], "ingress": [{}]},
    }


def test_narrowed_workers_reach_the_stores_and_what_is_listed() -> None:
    egress = [{"to": [{"ipBlock": {"cidr": "192.0.2.25/32"}}], "ports": [{"protocol": "TCP", "port": 587}]}]
    found = flows(render({"operator": {"enabled": False}, "networkPolicy": {"workerEgress": egress}}))
    assert {target for source, target, _ in found if source == "worker"} == {"postgresql", "valkey"}
