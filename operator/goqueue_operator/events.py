"""Events: what a person should see beside an object. Never one for each job."""

import contextlib
import uuid
from datetime import UTC, datetime
from typing import Final

from goqueue_operator.crds.schema import API_VERSION
from goqueue_operator.kube import EVENTS, Kube, KubeError, KubeUnavailable, Object

CONTROLLER: Final = "goqueue.io/operator"


async def tell(kube: Kube, resource: Object, kind: str, reason: str, note: str, *, warning: bool = False) -> None:
    """Leave an event beside one of our resources; that it cannot be left stops nobody."""
    metadata = resource["metadata"]
    body = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name'][:200]}.{uuid.uuid4().hex[:16]}", "namespace": metadata["namespace"]},
        "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "type": "Warning" if warning else "Normal",
        "reason": reason,
        "action": reason,
        "note": note[:1024],
        "reportingController": CONTROLLER,
        "reportingInstance": kube.access.namespace,
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": kind,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
    }
    with contextlib.suppress(KubeError, KubeUnavailable):
        await kube.create(EVENTS, metadata["namespace"], body)
