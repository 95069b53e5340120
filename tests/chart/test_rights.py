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
    assert {who for who, *_ in granted(render({"operator": {"enabled": False}}))} <= {"test"}


def test_only_the_operators_cluster_wide_role_reaches_beyond_the_namespace() -> None:
    documents = render({"settings": {"operator": {"clusterWide": True}}})
    names = {one["metadata"]["name"] for one in documents if one["kind"] == "ClusterRole"}
    assert names == {"jobs-goqueue-operator", "jobs-goqueue-cleanup"}
    assert not [one for one in render() if one["kind"].startswith("ClusterRole")]
