"""A resource that is deleted takes its unfinished job along; nothing ever hangs, with the operator or without."""

import pytest

from tests.e2e.preparation import namespace
from tests.e2e.system import OTHER, RELEASE, System, gqj

pytestmark = pytest.mark.timeout(120)

OPERATOR = f"deployment/{RELEASE}-goqueue-operator"
OPERATOR_PODS = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=operator"


def job_id(system: System, name: str, where: str = "e2e") -> int:
    system.wait("jsonpath={.status.jobID}", f"gqj/{name}", namespace=where)
    return int(system.get("gqj", name, where)["status"]["jobID"])


def test_deleting_a_resource_cancels_the_job_that_waits_and_the_one_that_runs(system: System) -> None:
    system.apply(gqj("runs", {"seconds": [300]}), gqj("waits", {}, availableAt="2099-01-01T00:00:00Z"))
    system.wait("condition=Running", "gqj/runs")
    runs, waits = job_id(system, "runs"), job_id(system, "waits")
    system.kubectl("delete", "gqj", "runs", "waits", "--timeout=30s")
    for id in (runs, waits):
        assert system.status(id, "cancelled", timeout=40)["result"] is None


def test_deleting_a_namespace_cancels_its_jobs_and_does_not_hang(system: System) -> None:
    system.apply(gqj("there", {"seconds": [300]}), namespace=OTHER)
    system.wait("condition=Running", "gqj/there", namespace=OTHER)
    id = job_id(system, "there", OTHER)
    system.kubectl("delete", "namespace", OTHER, "--timeout=40s")
    system.status(id, "cancelled", timeout=40)
    system.apply(namespace(OTHER))


def test_without_the_operator_deletions_do_not_hang_and_are_made_up_for_later(system: System) -> None:
    system.apply(gqj("left", {"seconds": [300]}))
    system.apply(gqj("there", {"seconds": [300]}), namespace=OTHER)
    system.wait("condition=Running", "gqj/left")
    system.wait("condition=Running", "gqj/there", namespace=OTHER)
    ids = [job_id(system, "left"), job_id(system, "there", OTHER)]
    system.kubectl("scale", OPERATOR, "--replicas=0")
    # Until they are gone, and not only told to end: a leader still hears of deletions meanwhile.
    system.wait("delete", "pods", f"--selector={OPERATOR_PODS}", seconds=40)
    try:
        system.kubectl("delete", "gqj", "left", "--timeout=30s")
        system.kubectl("delete", "namespace", OTHER, "--timeout=40s")
        assert [system.job(id)["status"] for id in ids] == ["processing", "processing"]
    finally:
        system.kubectl("scale", OPERATOR, "--replicas=2")
    system.rolled_out(OPERATOR)
    for id in ids:
        system.status(id, "cancelled", timeout=45)
    system.apply(namespace(OTHER))
