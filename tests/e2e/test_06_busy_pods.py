"""Who works, stays: a pod with a job is not the one that goes."""

import pytest

from tests.e2e.system import System

pytestmark = pytest.mark.timeout(150)


def test_a_busy_pod_survives_scaling_down(system: System) -> None:
    system.pin("work", 3)
    system.pool_has("work", 3)
    ids = [system.enqueue({"seconds": [300]}) for _ in range(3)]
    for id in ids:
        system.status(id, "processing")
    where = {system.worker_of(id): id for id in ids}
    assert set(where) == set(system.workers("work"))
    # Kubernetes' own choice would be the youngest pod: that one shall be busy, the others shall be not.
    created = {pod["metadata"]["name"]: pod["metadata"]["creationTimestamp"] for pod in system.items("pods")}
    busy = max((name for name in where if name), key=lambda name: (created[name], name))
    system.cancel(*(id for name, id in where.items() if name != busy))
    system.pin("work", None)
    system.pool_has("work", 1)
    assert system.workers("work") == [busy]
    job = system.job(where[busy])
    assert (job["status"], job["attempts"]) == ("processing", 1)
    system.cancel(where[busy])
