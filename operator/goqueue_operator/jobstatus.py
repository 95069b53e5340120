"""From what is known of a job to the status of its GoQueueJob. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from goqueue.lifecycle import JobStatus
from goqueue.tracecontext import trace_id
from goqueue_operator.conditions import Condition, merge, timestamp
from goqueue_operator.exactness import rounded
from goqueue_operator.rows import Relation, Row

Status = dict[str, Any]

ENDS: Final = {
    JobStatus.COMPLETED: "Succeeded",
    JobStatus.FAILED: "Failed",
    JobStatus.CANCELLED: "Cancelled",
}
"""Which condition says how a job ended."""

FINISHED: Final = "Finished"
"""The condition that says that a job ended, however; its reason is the type of the one that says how."""

SHORT_ERROR: Final = 200
"""Characters of an error in a status for which Kubernetes has no room."""

FIELDS: Final = ("jobID", "attempts", "startedAt", "finishedAt", "result", "error", "traceID")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no row. `final`: there never will be one."""

    reason: str
    message: str
    final: bool = False


def final(status: Mapping[str, Any]) -> bool:
    """Whether a status says that its job has ended."""
    return any(
        item.get("type") in ENDS.values() and item.get("status") == "True" for item in status.get("conditions") or ()
    )


def refused(former: Mapping[str, Any], refusal: Refusal, generation: int, now: datetime) -> Status:
    """The status of a job that has no row."""
    conditions = [Condition("Accepted", False, refusal.reason, refusal.message)]
    status: Status = {"state": "waiting"}
    if refusal.reason == "Suspended":
        status = {"state": "suspended"}
    if refusal.final:
        conditions.append(Condition("Failed", True, refusal.reason, refusal.message))
        status = {"state": "failed", "error": refusal.message[:2048], "finishedAt": timestamp(now)}
    return _whole(status, former, conditions, generation, now)


def lost(former: Mapping[str, Any], job_id: int, generation: int, now: datetime) -> Status:
    """The status of a job whose row is gone and which may have ended before, so that nobody can say how it ended."""
    message = f"the row of job {job_id} is gone; it may have ended and been removed by retention"
    kept = {name: former[name] for name in FIELDS if name in former}
    conditions = [
        Condition("Accepted", True, "Accepted", f"job {job_id}"),
        Condition("Running", False, "RowGone", message),
        Condition("Failed", True, "RowGone", message),
    ]
    status = kept | {"state": "failed", "jobID": job_id, "error": message, "finishedAt": timestamp(now)}
    return _whole(status, former, conditions, generation, now)


def follow(former: Mapping[str, Any], row: Row, relation: Relation, generation: int, now: datetime) -> Status:
    """The status of a job as its row has it; error and result only of a row that a GoQueueJob of the namespace made."""
    shown = relation in (Relation.OWN, Relation.SHARED)
    status: Status = {"jobID": row.id, "attempts": row.attempts, "state": row.status.value}
    if row.status is JobStatus.PENDING and row.held:
        status["state"] = "suspended"
    if row.started_at is not None:
        status["startedAt"] = timestamp(row.started_at)
    if row.finished_at is not None:
        status["finishedAt"] = timestamp(row.finished_at)
    if row.error and shown:
        status["error"] = row.error
    if (trace := trace_id(row.trace_context)) is not None:
        status["traceID"] = trace
    if row.result is not None and shown and rounded(row.result, "result") is None:
        status["result"] = row.result
    return _whole(status, former, _conditions(row, relation), generation, now)


def _conditions(row: Row, relation: Relation) -> list[Condition]:
    if relation is Relation.OWN:
        accepted = Condition("Accepted", True, "Accepted", f"job {row.id}")
    else:
        accepted = Condition("Accepted", True, "SameUniqueKey", f"job {row.id} has this uniqueKey and had not ended")
    conditions = [accepted, _running(row, own=relation is Relation.OWN)]
    if row.status.final:
        reason, message = _end(row, shown=relation in (Relation.OWN, Relation.SHARED))
        conditions.append(Condition(ENDS[row.status], True, reason, message))
    return conditions


def _running(row: Row, own: bool) -> Condition:
    if row.status is JobStatus.PROCESSING:
        if row.cancelling:
            return Condition("Running", True, "Cancelling", "its worker was asked to stop")
        return Condition("Running", True, "AttemptStarted", f"attempt {row.attempts} of {row.max_retries + 1}")
    if row.status.final:
        return Condition("Running", False, "Ended", f"ended after attempt {row.attempts}")
    if row.held:
        why = "spec.suspend is true" if own else f"the GoQueueJob that made job {row.id} is suspended"
        return Condition("Running", False, "Suspended", why)
    if row.attempts:
        return Condition("Running", False, "Retrying", f"attempt {row.attempts} of {row.max_retries + 1} has ended")
    return Condition("Running", False, "Waiting", "waits for a worker")


def _end(row: Row, shown: bool) -> tuple[str, str]:
    if row.status is JobStatus.COMPLETED:
        more = ""
        if row.large:
            more = "; the result is too large to be shown here, the API has it"
        elif rounded(row.result, "result") is not None:
            more = "; the result has numbers that Kubernetes would round, the API has it"
        return "Completed", f"completed in attempt {row.attempts}{more}"
    if row.status is JobStatus.CANCELLED:
        return "Cancelled", "cancelled"
    used_up = row.attempts > row.max_retries
    return "RetriesUsedUp" if used_up else "GivenUp", (row.error if shown else None) or "failed"


def _whole(
    status: Status, former: Mapping[str, Any], conditions: list[Condition], generation: int, now: datetime
) -> Status:
    ends = [each.type for each in conditions if each.status and each.type in ENDS.values()]
    conditions += [Condition(FINISHED, True, end, f"the condition {end} tells how") for end in ends]
    status["observedGeneration"] = generation
    status["conditions"] = merge(former.get("conditions") or (), conditions, generation, now)
    return status


def short(status: Status) -> Status:
    """The status without a result and with short texts, where Kubernetes has no room for the whole of it."""
    shorter = {name: value for name, value in status.items() if name != "result"}
    if "error" in shorter:
        shorter["error"] = shorter["error"][:SHORT_ERROR]
    more = "; there is no room here for the result, the API has it" if "result" in status else ""
    shorter["conditions"] = [
        item | {"message": item["message"][:SHORT_ERROR] + (more if item["type"] == "Succeeded" else "")}
        for item in status["conditions"]
    ]
    return shorter


def difference(former: Mapping[str, Any], status: Status) -> Status | None:
    """The merge patch from one status to the next; None where they are the same."""
    patch: Status = {name: value for name, value in status.items() if former.get(name) != value}
    patch |= {name: None for name in former if name not in status}
    return patch or None
