"""The status of a GoQueueWorkerPool. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from goqueue.scaling import Decision, Load
from goqueue_operator.conditions import Condition, merge
from goqueue_operator.deployment import POOL_LABEL

if TYPE_CHECKING:
    from goqueue_operator.pool import Pool


def status(
    pool: Pool, decision: Decision, amount: Load, redis_away: bool, current: int, now: datetime
) -> dict[str, Any]:
    """What there is, what there should be, and why."""
    metadata = pool.resource["metadata"]
    seen = (pool.found or {}).get("status") or {}
    ready = seen.get("readyReplicas") or 0
    status: dict[str, Any] = {
        "observedGeneration": metadata.get("generation", 1),
        "replicas": seen.get("replicas") or 0,
        "readyReplicas": ready,
        "desiredReplicas": current,
        "reason": f"refused: {pool.refused}"[:1024] if pool.refused else decision.reason,
        "selector": f"{POOL_LABEL}={metadata['name']}",
    }
    if amount.running is not None:
        status["busy"] = amount.running
    if pool.scaled_at:
        status["lastScaleTime"] = pool.scaled_at
    conditions = [_available(pool.refused, ready, current), _scaling(amount, redis_away)]
    former = pool.status.get("conditions") or ()
    status["conditions"] = merge(former, conditions, metadata.get("generation", 1), now)
    return status


def _available(refused: str, ready: int, current: int) -> Condition:
    if refused:
        return Condition("Available", False, "Refused", refused)
    if ready >= current:
        return Condition("Available", True, "AsDeclared", "all pods that should be there take jobs")
    return Condition("Available", False, "PodsNotReady", "some pods do not take jobs yet")


def _scaling(amount: Load, redis_away: bool) -> Condition:
    if amount.waiting is None or amount.running is None:
        return Condition("ScalingActive", False, "LoadUnknown", "neither Redis nor PostgreSQL says what waits")
    if redis_away:
        return Condition(
            "ScalingActive", True, "RedisAway", "PostgreSQL counts what waits; new jobs wake no pool at once"
        )
    return Condition("ScalingActive", True, "LoadKnown", "follows what waits and runs")
