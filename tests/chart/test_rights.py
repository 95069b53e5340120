"""What the chart's accounts may do is written down verb by verb: neither the chart nor the page has more."""

import re

import pytest

from tests.chart.chart import CHECKOUT, Manifest, render

Right = tuple[str, str, str, str]
"""Who, API group, resource, verb."""


def documented() -> set[Right]:
    page = (CHECKOUT / "docs" / "security.md").read_text()
    section = page.split("## Rights in Kubernetes")[1]
    rows = re.findall(r"^\| (\w+) \| (\S+) \| (\S+) \| ([a-z, ]+) \| \S.* \|$", section, re.MULTILINE)
    return {
        (who, "" if group == "core" else group, resource, verb)
        for who, group, resource, verbs in rows[1:]  # the first one is the heading
        for verb in verbs.split(", ")
    }


def granted(documents: list[Manifest]) -> set[Right]:
    return {
        (one["metadata"]["labels"]["app.kubernetes.io/component"], group, resource, verb)
        for one in documents
        if one["kind"] in ("Role", "ClusterRole")
        for rule in one["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize("everywhere", [False, True])
def test_the_page_names_exactly_the_rights_that_the_chart_gives(everywhere: bool) -> None:
    rights = granted(render({"settings": {"operator": {"clusterWide": everywhere}}}))
    assert rights == documented()
    assert "*" not in {part for right in rights for part in right}


def test_without_the_operator_nobody_has_any_right_but_the_test() -> None:
    assert {who for who, *_ in granted(render({"operator": {"enabled": False}}))} <= {"test", "view", "edit"}


def cluster_roles(documents: list[Manifest]) -> dict[str, Manifest]:
    return {one["metadata"]["name"]: one for one in documents if one["kind"] == "ClusterRole"}


AGGREGATED = {"jobs-goqueue-view", "jobs-goqueue-edit"}


def test_only_the_operators_cluster_wide_role_reaches_beyond_the_namespace() -> None:
    documents = render({"settings": {"operator": {"clusterWide": True}}})
    assert cluster_roles(documents).keys() == {"jobs-goqueue-operator", "jobs-goqueue-cleanup", *AGGREGATED}
    bound = {one["roleRef"]["name"] for one in documents if one["kind"] == "ClusterRoleBinding"}
    assert bound == {"jobs-goqueue-operator", "jobs-goqueue-cleanup"}
    assert cluster_roles(render()).keys() == AGGREGATED


def test_roles_for_people_come_with_the_definitions_unless_switched_off() -> None:
    assert not cluster_roles(render({"rbac": {"aggregate": False}}))
    assert not cluster_roles(render({"crds": {"install": False}}))


def test_who_may_view_reads_status_and_who_may_edit_writes_none() -> None:
    roles = cluster_roles(render())
    start = "rbac.authorization.k8s.io/aggregate-to-"
    into = {
        name: {label.removeprefix(start) for label in role["metadata"]["labels"] if label.startswith(start)}
        for name, role in roles.items()
    }
    assert into == {
        "jobs-goqueue-view": {"view", "edit", "admin", "cluster-reader"},
        "jobs-goqueue-edit": {"edit", "admin"},
    }
    rights = granted(list(roles.values()))
    assert ("view", "goqueue.io", "goqueuejobs/status", "get") in rights
    assert not [right for right in rights if right[0] == "edit" and right[2].endswith("/status")]
    assert not [right for right in rights if right[0] == "view" and right[3] not in ("get", "list", "watch")]
