"""The conditions of a pool, from what is known of its Deployment, its pods and the last decision."""

from datetime import UTC, datetime
from typing import Any

import pytest

from goqueue.scaling import Decision, History, Load
from goqueue_operator.pool import Pool
from goqueue_operator.poolstatus import only_numbers, status

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATE = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "late"}
FAILED = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
PULL = {"name": "worker", "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}


def a_pool(desired: int = 2, pods: Any = (), **seen: Any) -> Pool:
    """A pool whose Deployment should have that many pods; `seen`: its status."""
    resource = {"metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 3}, "spec": {}}
    made = {"metadata": {"generation": 5}, "spec": {"replicas": desired}, "status": {"observedGeneration": 5, **seen}}
    pool = Pool(resource, {}, found=made, generation=5)
    pool.pods = [{"metadata": {"name": "one"}, "status": {"containerStatuses": [one]}} for one in pods]
    return pool


def conditions(pool: Pool, cause: Any = "load", history: History = History()) -> dict[str, tuple[str, str]]:  # noqa: B008 - frozen
    made = status(pool, Decision(2, "why", history, cause), Load(0, 0), False, NOW)
    return {item["type"]: (item["status"], item["reason"]) for item in made["conditions"]}


ALL = {"replicas": 2, "readyReplicas": 2, "updatedReplicas": 2}


@pytest.mark.parametrize(
    ("pool", "ready", "available"),
    [
        (a_pool(**ALL), ("True", "AsDeclared"), ("True", "AsDeclared")),
        (a_pool(0), ("True", "AsDeclared"), ("True", "AsDeclared")),
        (a_pool(**ALL | {"readyReplicas": 1}), ("False", "PodsNotReady"), ("False", "PodsNotReady")),
        # a rollout that goes on, one whose new pods do not start, one that is given up
        (a_pool(**ALL | {"replicas": 3, "updatedReplicas": 1}), ("False", "RollingOut"), ("True", "AsDeclared")),
        (a_pool(**ALL | {"observedGeneration": 4}), ("False", "RollingOut"), ("True", "AsDeclared")),
        (
            a_pool(pods=[PULL], **ALL | {"replicas": 3, "updatedReplicas": 1}),
            ("False", "ErrImagePull"),
            ("True", "AsDeclared"),
        ),
        (
            a_pool(conditions=[LATE], **ALL | {"replicas": 3, "updatedReplicas": 1}),
            ("False", "ProgressDeadlineExceeded"),
            ("True", "AsDeclared"),
        ),
        (a_pool(conditions=[FAILED]), ("False", "FailedCreate"), ("False", "FailedCreate")),
        (a_pool(pods=[PULL], conditions=[LATE]), ("False", "ErrImagePull"), ("False", "ErrImagePull")),
    ],
)
def test_ready_asks_for_the_declared_pods_and_available_for_any(
    pool: Pool, ready: tuple[str, str], available: tuple[str, str]
) -> None:
    found = conditions(pool)
    assert (found["Ready"], found["Available"]) == (ready, available)


def test_stalled_is_there_only_where_waiting_does_not_help() -> None:
    assert "Stalled" not in conditions(a_pool(**ALL))
    assert conditions(a_pool(conditions=[LATE]))["Stalled"] == ("True", "ProgressDeadlineExceeded")
    for reason, stalled in (("UnknownQueue", True), ("Refused", True), ("KubernetesUnavailable", False)):
        pool = a_pool(**ALL)
        pool.refused, pool.refusal = "no", reason
        found = conditions(pool)
        assert found["Ready"] == found["Available"] == ("False", reason)
        assert ("Stalled" in found) is stalled


@pytest.mark.parametrize(
    ("cause", "change", "limited", "active"),
    [
        ("load", 1, ("False", "DesiredWithinRange"), ("True", "LoadKnown")),
        ("idle", -1, ("False", "DesiredWithinRange"), ("True", "LoadKnown")),
        ("maximum", 1, ("True", "TooManyReplicas"), ("True", "LoadKnown")),
        ("minimum", 1, ("True", "TooFewReplicas"), ("True", "LoadKnown")),
        ("limit", 1, ("True", "ScaleUpLimit"), ("True", "LoadKnown")),
        ("limit", -1, ("True", "ScaleDownLimit"), ("True", "LoadKnown")),
        ("pinned", 1, ("False", "DesiredWithinRange"), ("False", "Pinned")),
    ],
)
def test_what_bounds_the_scaling_is_said_as_by_a_horizontal_pod_autoscaler(
    cause: str, change: int, limited: tuple[str, str], active: tuple[str, str]
) -> None:
    found = conditions(a_pool(**ALL), cause, History(0.0, (), ((0.0, change),)))
    assert (found["ScalingLimited"], found["ScalingActive"]) == (limited, active)


def test_new_numbers_and_texts_alone_need_no_write_at_once() -> None:
    def written(pool: Pool, running: int, reason: str) -> Any:
        return status(pool, Decision(2, reason, History(), "load"), Load(0, running), False, NOW)

    pool = a_pool(**ALL)
    assert only_numbers(written(pool, 1, "a"), written(pool, 2, "b"))
    assert not only_numbers(written(pool, 1, "a"), written(a_pool(conditions=[FAILED]), 1, "a"))
