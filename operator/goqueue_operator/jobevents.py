"""Events beside GoQueueJobs: of what fails, and no more of them than a budget allows, however many jobs fail."""

from collections.abc import Mapping
from typing import Any, Final

from goqueue import metrics
from goqueue_operator.entries import Entry
from goqueue_operator.events import Budget, tell
from goqueue_operator.kube import Kube

SILENT: Final = ("Suspended", "StoreUnavailable", "UniqueKeyContended")
"""Reasons for which a job waits that nobody has to look at: it was asked for, or passes."""


def _conditions(status: Mapping[str, Any]) -> dict[str, Any]:
    return {item["type"]: item for item in status.get("conditions") or ()}


def event_of(former: Mapping[str, Any], status: Mapping[str, Any]) -> tuple[str, str] | None:
    """Reason and text of the event that goes with a change of a status; None where nobody has to know.

    The text never has words of a handler: those are in the status only, which fewer may read than events.
    """
    before, now = _conditions(former), _conditions(status)
    accepted, failed = now.get("Accepted", {}), now.get("Failed", {})
    if accepted.get("status") == "False":
        reason = accepted["reason"]
        known = before.get("Accepted", {})
        if reason in SILENT or (known.get("status"), known.get("reason")) == ("False", reason):
            return None
        return reason, accepted["message"]
    if failed.get("status") == "True" and before.get("Failed", {}).get("status") != "True":
        how = f"job {status.get('jobID')} failed in attempt {status.get('attempts', 0)}"
        return failed["reason"], f"{how}; status.error says why" if "error" in status else how
    return None


class JobEvents:
    """Leaves them."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._budget = Budget()

    async def changed(self, entry: Entry, former: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        """Say what went wrong between two statuses."""
        event = event_of(former, status)
        if event is not None:
            await self.warn(entry, *event)

    async def warn(self, entry: Entry, reason: str, note: str) -> None:
        """Leave a warning beside a job."""
        if not self._budget.take():
            metrics.EVENTS_LEFT_OUT.inc()
            return
        metadata = {"name": entry.name, "namespace": entry.namespace, "uid": entry.uid}
        await tell(self._kube, {"metadata": metadata}, "GoQueueJob", reason, note, warning=True)
