"""What `helm uninstall` leaves: the data with their password, and the resources of the users. Nothing hangs."""

import json
from dataclasses import replace

import pytest

from tests.e2e.system import NAMESPACE, RELEASE, System, gqj

pytestmark = pytest.mark.timeout(240)

MINE = f"app.kubernetes.io/instance={RELEASE}"
POOLS = f"goqueue.io/release={RELEASE}"
DERIVED = (
    "pods",
    "endpoints",
    "endpointslices.discovery.k8s.io",
    "events",
    "events.events.k8s.io",
    "controllerrevisions",
)


def kinds(system: System, *, namespaced: bool) -> str:
    listed = system.kubectl("api-resources", f"--namespaced={str(namespaced).lower()}", "--verbs=list", "-o", "name")
    return ",".join(name for name in listed.split() if not name.startswith(DERIVED))


def left(system: System, *, namespaced: bool) -> set[str]:
    found: set[str] = set()
    for labels in (MINE, POOLS):
        listed = system.kubectl("get", kinds(system, namespaced=namespaced), "-l", labels, "-o", "name", timeout=120)
        found |= set(listed.split())
    return found


def test_uninstall_leaves_only_what_is_to_be_kept(system: System) -> None:
    waiting = gqj("kept", availableAt="2099-01-01T00:00:00Z")
    system.apply(waiting)
    system.wait("condition=Accepted", "gqj/kept")
    there = {name.partition(".")[0] for name in left(system, namespaced=False)}
    assert there >= {"clusterrole", "clusterrolebinding", "validatingadmissionpolicy"}
    system.installation.uninstall()
    assert left(system, namespaced=True) == {
        f"persistentvolumeclaim/data-{RELEASE}-goqueue-postgresql-0",
        f"secret/{RELEASE}-goqueue-postgresql",
    }
    assert left(system, namespaced=False) == {
        f"customresourcedefinition.apiextensions.k8s.io/goqueue{kind}.goqueue.io"
        for kind in ("jobs", "schedules", "workerpools")
    }
    for labels in (MINE, "goqueue.io/pool"):
        system.wait("delete", "pods", "-l", labels)  # Helm does not wait for those that are about to end
    kept = system.get("gqj", "kept")
    assert "finalizers" not in kept["metadata"]


def test_a_release_of_the_same_name_takes_up_the_data_also_with_helm_3(system: System) -> None:
    replace(system.installation, helm="helm3").install()
    assert system.job(system.get("gqj", "kept")["status"]["jobID"])["status"] == "pending"
    assert system.status(system.enqueue(), "completed", timeout=60)


def test_the_namespace_can_be_deleted_with_all_that_is_in_it(system: System) -> None:
    system.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s", timeout=130)
    stuck = json.loads(system.kubectl("get", "namespaces", "-o", "json"))["items"]
    assert NAMESPACE not in [one["metadata"]["name"] for one in stuck]
