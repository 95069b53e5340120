"""Workers come when jobs do, as many as are needed, and go when nothing is left; with the times of each step."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.e2e.system import NAMESPACE, RELEASE, System
from tests.e2e.watching import Watching, watch

pytestmark = pytest.mark.timeout(180)

POOL = f"{RELEASE}-goqueue-scale"
DECISION = 2.0
"""Seconds within which a job that arrives must have changed the Deployment; 0.5 is what is usual."""
SECONDS = 3.0
"""How long each job takes."""


@pytest.fixture(scope="module")
def deployment(system: System) -> Iterator[Watching]:
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments?fieldSelector=metadata.name%3D{POOL}"
    with watch(system.cluster, path) as watching:
        yield watching


@pytest.fixture(scope="module")
def pods(system: System) -> Iterator[Watching]:
    path = f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=goqueue.io%2Fpool%3D{POOL}"
    with watch(system.cluster, path) as watching:
        yield watching


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def running(number: int, known: Iterable[str] = ()) -> Callable[[dict[str, Any]], bool]:
    """A check whether so many different pods run, those of `known` included; to be asked of each state in turn."""
    names = set(known)

    def there(pod: dict[str, Any]) -> bool:
        statuses = pod["status"].get("containerStatuses", [])
        if any("running" in status["state"] for status in statuses):
            names.add(pod["metadata"]["name"])
        return len(names) >= number

    return there


def enqueue(system: System, number: int = 1) -> tuple[float, list[int]]:
    """When the jobs were there, and their ids."""
    ids = [system.enqueue({"seconds": [SECONDS]}, queue="scale") for _ in range(number)]
    return moment(system.job(ids[0])["created_at"]), ids


def gone(system: System, deployment: Watching, pods: Watching, ids: list[int]) -> dict[str, float]:
    """The way back to none: seconds since the last job ended."""
    ends = [moment(system.status(id, "completed", timeout=60)["finished_at"]) for id in ids]
    decided = deployment.first("no replicas", lambda one: one["spec"]["replicas"] == 0, since=max(ends), timeout=40)
    last = pods.first(
        "the last pod to go", lambda pod: "deleted" in pod and not pods.latest(), since=decided, timeout=40
    )
    return {"decision": round(decided - max(ends), 2), "pods gone": round(last - max(ends), 2)}


def test_from_none_to_one_and_back(system: System, deployment: Watching, pods: Watching) -> None:
    rounds = []
    for _ in range(3):
        began, ids = enqueue(system)
        changed = deployment.first("a replica", lambda one: one["spec"]["replicas"] == 1, since=began, timeout=20)
        # A watch may be late; the pod follows from the decision.
        decided = min(changed, pods.first("a pod", lambda _: True, since=began, timeout=20))
        runs = pods.first("a pod to run", running(1), since=began, timeout=30)
        job = system.status(ids[0], "completed", timeout=40)
        rounds.append(
            {
                "decision": round(decided - began, 3),
                "pod runs": round(runs - began, 2),
                "job starts": round(moment(job["started_at"]) - began, 2),
                "back": gone(system, deployment, pods, ids),
            }
        )
    system.note("from 0 to 1, seconds since the job was there", rounds)
    best = min(float(one["decision"]) for one in rounds)  # type: ignore[arg-type]
    assert best <= DECISION, rounds  # other processes can only make it slower


def test_from_one_to_many_and_back_to_none(system: System, deployment: Watching, pods: Watching) -> None:
    _, first = enqueue(system)
    system.status(first[0], "processing", "completed", timeout=40)
    known = pods.latest()
    began, ids = enqueue(system, 12)
    decided = deployment.first("4 replicas", lambda one: one["spec"]["replicas"] == 4, since=began, timeout=30)
    runs = pods.first("4 pods to run", running(4, known), since=decided, timeout=40)
    back = gone(system, deployment, pods, ids)
    starts = sorted(moment(system.job(id)["started_at"]) for id in ids)
    system.note(
        "from 1 to 4 with 12 jobs, seconds since the first was there",
        {
            "decision": round(decided - began, 3),
            "pods run": round(runs - began, 2),
            "last job starts": round(starts[-1] - began, 2),
            "back": back,
        },
    )
    posted = moment(system.job(ids[-1])["created_at"])  # it takes a while to post them all
    assert decided - posted <= DECISION
