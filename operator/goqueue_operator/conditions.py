"""Conditions as the API conventions have them. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from goqueue.orders import EARLIEST, LATEST


@dataclass(frozen=True, slots=True)
class Condition:
    """One aspect of an object's state; `reason` is one CamelCase word, `message` a sentence for a person."""

    type: str
    status: bool
    reason: str
    message: str


def timestamp(moment: datetime) -> str:
    """A moment as Kubernetes writes it: RFC 3339, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str | None) -> datetime | None:
    """A moment as Kubernetes has it; None where it is none that can be: unreadable, before 1970 or after 2200."""
    try:
        read = datetime.fromisoformat(text) if text else None
    except ValueError:  # Kubernetes' own check of times lets through more than Python reads
        return None
    if read is None:
        return None
    read = read if read.tzinfo is not None else read.replace(tzinfo=UTC)
    return read if EARLIEST <= read < LATEST else None


def merge(
    former: Iterable[dict[str, Any]], conditions: Iterable[Condition], generation: int, now: datetime
) -> list[dict[str, Any]]:
    """The conditions for a status; those whose `status` is as it was keep the time of their last transition."""
    before = {item.get("type"): item for item in former}
    merged = []
    for condition in conditions:
        status = "True" if condition.status else "False"
        old = before.get(condition.type, {})
        since = old.get("lastTransitionTime") if old.get("status") == status else None
        merged.append(
            {
                "type": condition.type,
                "status": status,
                "reason": condition.reason,
                "message": condition.message[:1024],
                "lastTransitionTime": since or timestamp(now),
                "observedGeneration": generation,
            }
        )
    return merged
