"""A pool grows to what its jobs need, and no further: not while its pods start, not after jobs of another length."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.load import Load, load
from tests.e2e.system import NAMESPACE, RELEASE, System, until
from tests.e2e.watching import Watching, watch

pytestmark = pytest.mark.timeout(240)

POOL = f"{RELEASE}-goqueue-grow"
SHORT = 0.5
"""Seconds of each job of the stream."""
PER_SECOND = 3.0
NEEDED = 2
"""Pods of one slot that keep up with the stream: 3 jobs a second of 0.5 s each."""
ENOUGH = 6
"""What still counts as right: the pods that are needed, and room for the jobs that waited before these came."""


@pytest.fixture(scope="module")
def deployment(system: System) -> Iterator[Watching]:
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments?fieldSelector=metadata.name%3D{POOL}"
    with watch(system.cluster, path) as watching:
        yield watching


@contextmanager
def stream(system: System) -> Iterator[Load]:
    """Short jobs, one after the other, for as long as the block lasts."""
    body = {"queue": "grow", "type": "work", "payload": {"seconds": [SHORT]}}
    with load(system.installation.url, system.installation.headers, body, threads=1, pause=1 / PER_SECOND) as made:
        yield made


@contextmanager
def no_room(system: System) -> Iterator[None]:
    """No node takes new pods while the block lasts: what is ordered stays Pending."""
    nodes = system.cluster.node_names()[1:]
    system.kubectl("cordon", *nodes)
    try:
        yield
    finally:
        system.kubectl("uncordon", *nodes)


def most(deployment: Watching, since: float) -> int:
    """The largest number of replicas ordered from a moment on."""
    return max((one["spec"]["replicas"] for at, one in deployment.seen if at >= since), default=0)


def waiting(system: System) -> int:
    """Jobs of the stream that no worker has claimed."""
    return system.number("SELECT count(*) FROM jobs WHERE queue = 'grow' AND status = 'pending'")


def settled(system: System, made: Load) -> None:
    """Wait until all jobs of a stream have completed and the pool has no pods any more."""
    for id in made.accepted:
        system.status(id, "completed", timeout=120)
    system.pool_has("grow", 0)


def begin(system: System, deployment: Watching) -> float:
    """Run one job, so that the pool has a pod and knows its pace; when its pod was ordered."""
    id = system.enqueue({"seconds": [SHORT]}, queue="grow")
    system.status(id, "completed", timeout=60)
    return deployment.first("a replica", lambda one: one["spec"]["replicas"] == 1, timeout=30)


def test_a_pool_whose_pods_are_pending_orders_no_more_than_its_jobs_need(system: System, deployment: Watching) -> None:
    begun = begin(system, deployment)
    with no_room(system), stream(system) as made:
        # One pod takes two of three jobs a second: what waits grows by one a second, past the target of 10 s.
        until("40 jobs to wait", lambda: waiting(system) >= 40, 120, 0.5)
        ordered = most(deployment, begun)
        system.note("replicas ordered while pods are Pending, 40 jobs waiting", {"needed": NEEDED, "ordered": ordered})
    settled(system, made)
    assert 1 < ordered <= ENOUGH


def test_a_few_long_jobs_do_not_make_a_stream_of_short_ones_look_long(system: System, deployment: Watching) -> None:
    long = [system.enqueue({"seconds": [20.0]}, queue="grow") for _ in range(3)]
    for id in long:
        system.status(id, "completed", timeout=90)
    begun = time.time()
    with stream(system) as made:
        until("60 short jobs to be accepted", lambda: len(made.accepted) >= 60, 90, 0.5)
    settled(system, made)
    ordered = most(deployment, begun)
    system.note("replicas for 3 short jobs a second after 3 long ones", {"needed": NEEDED, "ordered": ordered})
    assert ordered <= ENOUGH
