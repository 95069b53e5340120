"""A worker that is killed takes no job with it."""

import time

import pytest

from tests.e2e.system import NAMESPACE, System

pytestmark = pytest.mark.timeout(150)


def test_the_job_of_a_killed_worker_completes_elsewhere(system: System) -> None:
    system.pin("work", 2)
    system.pool_has("work", 2)
    id = system.enqueue({"seconds": [300, 0.1]})
    system.status(id, "processing")
    pod = system.worker_of(id)
    assert pod is not None
    former = system.number(f"SELECT worker_id FROM jobs WHERE id = {id}")  # noqa: S608 - numbers and names of the test itself
    killed = time.time()
    system.cluster.kill_container(pod, namespace=NAMESPACE, container="worker")
    job = system.status(id, "completed", timeout=60)
    system.note("job of a killed worker completed after, in seconds", round(time.time() - killed, 1))
    assert job["result"]["attempt"] == 1, "a death charges no attempt"
    attempts = system.rest.get(f"/jobs/{id}/attempts").json()
    assert [one["outcome"] for one in attempts["attempts"]] == ["rescued", "completed"], attempts
    assert system.number(f"SELECT count(*) FROM workers WHERE id = {former}") == 0  # noqa: S608 - numbers and names of the test itself
    system.pin("work", None)
