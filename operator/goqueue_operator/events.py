"""Events: what a person should see beside an object.

Nobody leaves one for each job: those that tell of jobs are bounded by a `Budget`, however many fail.
"""

import contextlib
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from goqueue_operator.crds.schema import API_VERSION
from goqueue_operator.kube import EVENTS, Kube, KubeError, KubeUnavailable, Object

CONTROLLER: Final = "goqueue.io/operator"


@dataclass(slots=True)
class Budget:
    """How many events may be left: a token bucket of `burst` that fills by `per_second`."""

    burst: float = 50.0
    per_second: float = 1.0
    _left: float = field(init=False)
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        self._left, self._at = self.burst, time.monotonic()

    def take(self) -> bool:
        """Whether one more may be left."""
        now = time.monotonic()
        self._left = min(self.burst, self._left + (now - self._at) * self.per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


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
