"""Switching the operator off and on again: no worker is left that nobody looks after, and no job is lost."""

from dataclasses import replace

import pytest

from tests.e2e.system import RELEASE, System, gqj, until

pytestmark = pytest.mark.timeout(300)

POOLS = f"goqueue.io/release={RELEASE}"


def test_the_pools_become_deployments_and_come_back(system: System) -> None:
    system.apply(gqj("left", availableAt="2099-01-01T00:00:00Z"))
    system.wait("condition=Accepted", "gqj/left")
    values = system.installation.values
    off = {**values, "operator": {"enabled": False}}
    replace(system.installation, values=off).install()
    assert system.kubectl("get", "gqp", "-l", POOLS, "-o", "name") == ""
    system.wait("delete", "deployments", "-l", "app.kubernetes.io/managed-by=goqueue-operator")
    assert system.status(system.enqueue(), "completed", timeout=60)
    system.kubectl("delete", "gqj", "left", "--timeout=30s")  # nothing holds it
    system.installation.install()
    until("the pools to be there", lambda: system.kubectl("get", "gqp", "-l", POOLS, "-o", "name") or None, 30)
    assert system.status(system.enqueue(), "completed", timeout=60)


def test_an_upgrade_brings_back_a_pool_that_was_deleted_or_scaled(system: System) -> None:
    system.pin("work", 2)
    system.kubectl("delete", "gqp", f"{RELEASE}-goqueue-grow", "--timeout=30s")
    system.installation.install()
    assert "replicas" not in system.get("gqp", f"{RELEASE}-goqueue-work")["spec"]
    assert system.get("gqp", f"{RELEASE}-goqueue-grow")["spec"]["queues"] == ["grow"]
