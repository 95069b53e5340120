"""Who works, stays: a pod with a job is not the one that goes, however many slots are free."""

import pytest

from tests.e2e.system import NAMESPACE, RELEASE, System, until

pytestmark = pytest.mark.timeout(240)

SHARED = f"{RELEASE}-goqueue-shared"
LONG = {"seconds": [300]}


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


def one_job_in_each(system: System, pods: int) -> dict[str, int]:
    """Pod of the pool `shared` → the one job that it runs."""
    found: dict[str, int] = {}
    for _ in range(5 * pods):
        id = system.enqueue(LONG, queue="shared")
        system.status(id, "processing")
        pod = system.worker_of(id) or ""
        if pod in found:
            system.cancel(id)
        else:
            found[pod] = id
        if len(found) == pods:
            return found
    raise AssertionError(f"jobs on {found} only")


def draining(system: System) -> int:
    """Pods of `shared` that fetch no more, as its status says."""
    return int((system.get("gqp", SHARED, NAMESPACE).get("status") or {}).get("draining", 0))


def test_pods_with_one_long_job_each_go_one_by_one_as_their_jobs_end(system: System) -> None:
    """Three jobs would fit into one pod of five slots; they stay where they run, and none is handed back."""
    system.pin("shared", 3)
    system.pool_has("shared", 3)
    jobs = one_job_in_each(system, 3)
    system.pin("shared", None)
    until("two pods to drain", lambda: draining(system) == 2, 60, 0.5)
    asked = {
        row[0].rpartition("-")[0]
        for row in system.sql("SELECT name FROM workers WHERE drain_until > now() AND 'shared' = ANY(queues)")
    }
    assert len(asked) == 2
    assert set(system.workers("shared")) == set(jobs)
    (stays,) = set(jobs) - asked
    later = system.enqueue(LONG, queue="shared")
    system.status(later, "processing")
    assert system.worker_of(later) == stays
    for count, pod in zip((2, 1), sorted(asked), strict=True):
        system.cancel(jobs.pop(pod))
        system.pool_has("shared", count)
        assert set(system.workers("shared")) == set(jobs)
    for id in (later, jobs[stays]):
        job = system.job(id)
        assert (job["status"], job["attempts"]) == ("processing", 1)
    handed_back = "SELECT count(*) FROM job_attempts JOIN jobs ON jobs.id = job_id"
    assert system.number(f"{handed_back} WHERE queue = 'shared' AND outcome = 'handed_back'") == 0
    system.cancel(later, jobs[stays])
    system.pool_has("shared", 0)
