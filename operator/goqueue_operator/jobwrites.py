"""Writing the statuses of GoQueueJobs."""

from typing import Any

import structlog

from goqueue import tracing
from goqueue_operator import jobstatus
from goqueue_operator.entries import Entry
from goqueue_operator.jobevents import JobEvents
from goqueue_operator.kube import JOBS, Kube, KubeError

log = structlog.get_logger(__name__)


class JobStatuses:
    """Writes them. Every method raises KubeUnavailable, and KubeError where Kubernetes refuses."""

    def __init__(self, kube: Kube, events: JobEvents) -> None:
        self._kube = kube
        self._events = events

    async def note(self, entry: Entry) -> None:
        """Note at an ended job what was seen since. Only that: the operator does not know the result any more."""
        noted: dict[str, Any] = {"observedGeneration": entry.generation}
        if entry.retried is not None:
            noted["retry"] = entry.retried
        changed = {name: value for name, value in noted.items() if entry.status.get(name) != value}
        if not changed:
            return
        steps: list[dict[str, Any]] = [{"op": "test", "path": "/metadata/uid", "value": entry.uid}]
        steps += [{"op": "add", "path": f"/status/{name}", "value": value} for name, value in changed.items()]
        written = await self._kube.edit(JOBS, entry.namespace, entry.name, steps, "status")
        entry.version = int(written["metadata"]["resourceVersion"])
        entry.status = entry.status | changed

    async def put(self, entry: Entry, status: dict[str, Any]) -> None:
        """Write a status, shortened where the object would be too large for etcd. One that is too large even so is left
        as it was, for good: to repeat it costs the API server more than a second each time."""
        for fitting in (status, jobstatus.short(status)):
            try:
                written = await self._write(entry, fitting)
            except KubeError as error:
                if error.code != 413:
                    raise
                short = fitting is not status
                log.warning("status too large to be stored", name=entry.name, namespace=entry.namespace, short=short)
            else:
                entry.version = int(written["metadata"]["resourceVersion"])
                return
        await self._events.warn(entry, "StatusTooLarge", f"the status is not shown: state {status['state']}")

    async def _write(self, entry: Entry, status: dict[str, Any]) -> dict[str, Any]:
        place = (JOBS, entry.namespace, entry.name, entry.uid)
        if not jobstatus.final(status) or entry.row is None or entry.row.trace_context is None:
            return await self._kube.put_status(*place, status)
        # Into the job's trace goes the write that tells how it ended; those on the way would drown it.
        attributes = about(entry) | {"goqueue.job.state": status["state"]}
        with tracing.doing("write status", attributes, entry.row.trace_context):
            return await self._kube.put_status(*place, status)


def about(entry: Entry) -> tracing.Attributes:
    """Of which resource a span is, in OpenTelemetry's words."""
    return {
        "k8s.namespace.name": entry.namespace,
        "goqueue.resource.kind": "GoQueueJob",
        "goqueue.resource.name": entry.name,
        "goqueue.resource.uid": entry.uid,
    }
