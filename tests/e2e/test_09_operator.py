"""The operator's leader dies, twice, while resources pour in: each becomes one job, none two."""

import threading

import pytest

from tests.e2e.system import NAMESPACE, System, gqj, until

pytestmark = pytest.mark.timeout(200)

MANY = 200
POUR = "pour"


def test_leaders_killed_while_resources_pour_in(system: System) -> None:
    objects = [gqj(f"{POUR}-{number}", queue="default") for number in range(MANY)]
    for body in objects:
        body["metadata"]["labels"]["app"] = POUR
    before = system.number("SELECT coalesce(max(id), 0) FROM jobs")
    count = f"SELECT count(*) FROM jobs WHERE id > {before} AND source = 'kubernetes'"  # noqa: S608 - numbers and names of the test itself

    def pour() -> None:
        for start in range(0, MANY, 10):
            system.apply(*objects[start : start + 10])

    pouring = threading.Thread(target=pour)
    pouring.start()
    try:
        until("30 jobs", lambda: system.number(count) >= 30, 40)
        killed = system.lease_holder()
        system.cluster.kill_container(killed, namespace=NAMESPACE, container="operator")  # it starts again in its pod
        until("90 jobs", lambda: system.number(count) >= 90, 60)
        leader = system.lease_holder()
        system.kubectl("delete", "pod", leader, "--grace-period=0", "--force")  # the other one takes over
    finally:
        pouring.join(60)
    system.wait("condition=Succeeded", "gqj", "-l", f"app={POUR}", seconds=100)
    assert system.lease_holder() not in ("", leader)
    rows = system.sql(
        f"SELECT count(*), count(DISTINCT source_key), count(*) FILTER (WHERE (status, attempts) = ('completed', 1)) "  # noqa: S608 - numbers and names of the test itself
        f"FROM jobs WHERE id > {before} AND source = 'kubernetes'"
    )
    assert rows == [[str(MANY)] * 3]
    followed = {resource["status"]["jobID"] for resource in system.items("gqj", labels=f"app={POUR}")}
    assert len(followed) == MANY
    system.kubectl("delete", "gqj", "-l", f"app={POUR}", "--timeout=30s", "--wait=false")
    system.rolled_out("deployment/e2e-goqueue-operator")
