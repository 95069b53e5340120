"""The status of a GoQueueWorkerPool. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from goqueue.scaling import Decision, Load
from goqueue_operator import podtrouble
from goqueue_operator.conditions import Condition, merge
from goqueue_operator.deployment import POOL_LABEL

if TYPE_CHECKING:
    from goqueue_operator.pool import Pool

TEMPORARY: Final = frozenset({"KubernetesUnavailable", "InternalError", "RefusedByKubernetes"})
"""Reasons of a refusal that may go without a change of the pool."""

SAME_PACE: Final = 0.2
"""Share by which a duration may change without being written anew."""

LIMITED: Final[Mapping[str, tuple[str, str]]] = {
    "maximum": ("TooManyReplicas", "more pods are needed than spec.maxReplicas"),
    "minimum": ("TooFewReplicas", "fewer pods are needed than spec.minReplicas"),
}
"""Cause of a decision → reason and message of `ScalingLimited`; reasons are those of HorizontalPodAutoscaler."""


def status(pool: Pool, decision: Decision, amount: Load, redis_away: bool, now: datetime) -> dict[str, Any]:
    """What there is, what there should be, and why."""
    metadata = pool.resource["metadata"]
    generation = metadata.get("generation", 1)
    seen = (pool.found or {}).get("status") or {}
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "replicas": seen.get("replicas") or 0,
        "readyReplicas": seen.get("readyReplicas") or 0,
        "desiredReplicas": pool.current,
        "draining": pool.leaving,
        "reason": f"refused: {pool.refused}"[:1024] if pool.refused else decision.reason,
        "selector": f"{POOL_LABEL}={metadata['name']}",
    }
    if amount.running is not None:
        status["busy"] = amount.running
    if pace := _pace(pool):
        status["pace"] = pace
    if pool.scaled_at:
        status["lastScaleTime"] = pool.scaled_at
    conditions = [*_health(pool, seen), _scaling(decision, amount, redis_away), _limited(decision)]
    status["conditions"] = merge(pool.status.get("conditions") or (), conditions, generation, now)
    return status


def _pace(pool: Pool) -> list[dict[str, Any]]:
    """What its workers' pace was measured to be. Numbers that changed by little stay as they were written last."""
    former = {(one.get("queue"), one.get("type")): one for one in pool.status.get("pace") or ()}
    pace = []
    for one in pool.pace.saved():
        old = former.get((one["queue"], one["type"]), {})
        near = old.keys() == one.keys() and all(
            abs(one[name] - old[name]) <= SAME_PACE * max(one[name], old[name])
            for name in one.keys() - {"queue", "type"}
        )
        pace.append(old if near else one)
    return pace


def only_numbers(former: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Whether the two differ in nothing but busy slots, paces and texts."""
    return _essence(former) == _essence(status)


def _essence(status: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in status.items() if name not in ("busy", "pace", "reason", "conditions")}
    conditions = status.get("conditions") or ()
    kept["conditions"] = [(item["type"], item["status"], item["reason"]) for item in conditions]
    return kept


def _health(pool: Pool, seen: Mapping[str, Any]) -> list[Condition]:
    """`Ready` and `Stalled` as kstatus reads them (https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus),
    and `Available`: whether the pods that should be there take jobs, of whatever revision they are."""
    ready = seen.get("readyReplicas") or 0
    enough = pool.found is not None and ready >= pool.current
    if pool.refused:
        conditions = [
            Condition("Ready", False, pool.refusal, pool.refused),
            Condition("Available", False, pool.refusal, pool.refused),
        ]
        if pool.refusal not in TEMPORARY:
            conditions.append(Condition("Stalled", True, pool.refusal, pool.refused))
        return conditions
    stuck, pods = podtrouble.of_deployment(pool.found), podtrouble.of_pods(pool.pods)
    rolled_out = (
        (seen.get("observedGeneration") or 0) >= (pool.generation or 0)
        and (seen.get("updatedReplicas") or 0) >= pool.current
        and (seen.get("replicas") or 0) <= pool.current
    )
    trouble = _both(stuck, pods) or ("PodsNotReady", "some pods do not take jobs yet")
    conditions = []
    if enough and rolled_out and stuck is None:
        conditions.append(Condition("Ready", True, "AsDeclared", "all pods are as declared and take jobs"))
    elif enough and stuck is None and pods is None:
        conditions.append(Condition("Ready", False, "RollingOut", "not all pods are as declared yet"))
    else:
        conditions.append(Condition("Ready", False, *trouble))
    if enough:
        conditions.append(Condition("Available", True, "AsDeclared", "all pods that should be there take jobs"))
    else:
        conditions.append(Condition("Available", False, *trouble))
    if stuck is not None and stuck[0] == "ProgressDeadlineExceeded":
        conditions.append(Condition("Stalled", True, *trouble))
    return conditions


def _both(stuck: podtrouble.Trouble | None, pods: podtrouble.Trouble | None) -> podtrouble.Trouble | None:
    """What the Deployment says, unless it only says that it waits for pods that say why themselves."""
    if stuck is not None and (pods is None or stuck[0] != "ProgressDeadlineExceeded"):
        return stuck
    return pods


def _scaling(decision: Decision, amount: Load, redis_away: bool) -> Condition:
    if decision.cause == "pinned":
        return Condition(
            "ScalingActive", False, "Pinned", "spec.replicas is set (kubectl scale): the load decides nothing"
        )
    if amount.waiting is None or amount.running is None:
        return Condition("ScalingActive", False, "LoadUnknown", "neither Redis nor PostgreSQL says what waits")
    if redis_away:
        return Condition(
            "ScalingActive", True, "RedisAway", "PostgreSQL counts what waits; new jobs wake no pool at once"
        )
    return Condition("ScalingActive", True, "LoadKnown", "follows what waits and runs")


def _limited(decision: Decision) -> Condition:
    if decision.cause in LIMITED:
        return Condition("ScalingLimited", True, *LIMITED[decision.cause])
    if decision.cause == "limit":
        up = decision.history.changes and decision.history.changes[-1][1] > 0
        reason, bound = ("ScaleUpLimit", "scaleUpPods") if up else ("ScaleDownLimit", "scaleDownPods")
        return Condition("ScalingLimited", True, reason, f"spec.scaling.{bound} bounds the change within a minute")
    return Condition("ScalingLimited", False, "DesiredWithinRange", "the number of pods is what is needed")
