"""One leader: whoever renews the Lease. The others wait until it was not renewed for its whole duration.

The same protocol and times as client-go: a lease counts as renewed when its record changes, seen by one's own clock, so
no two clocks are compared. A leader that could not renew for RENEW seconds stops before others may begin.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from goqueue.tasks import end_all
from goqueue_operator.kube import LEASES, Kube, KubeError, KubeUnavailable, Object

DURATION: Final = 15
"""Seconds after which a silent leader may be replaced."""
RENEW: Final = 10
"""Seconds without a renewal after which a leader stops by itself."""
RETRY: Final = 2
"""Seconds between two tries."""

log = structlog.get_logger(__name__)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Lease:
    """Stands for leadership as `holder`; runs `duties` while leading."""

    def __init__(self, kube: Kube, namespace: str, name: str, holder: str) -> None:
        self._kube, self._namespace, self._name = kube, namespace, name
        self.holder = holder
        self.leading = False
        self.asked_at = time.monotonic()
        """When the API server last answered (`time.monotonic()`)."""
        self._seen: Any = None
        self._seen_at = 0.0

    async def run(self, duties: Callable[[], Awaitable[None]]) -> None:
        """Try to lead, lead, try again. Ends only by cancellation, and then steps down."""
        working: asyncio.Future[None] | None = None
        renewed = 0.0
        try:
            while True:
                began = time.monotonic()
                try:
                    async with asyncio.timeout(RENEW / 2):
                        held: bool | None = await self._try()
                    self.asked_at = began
                except (KubeUnavailable, TimeoutError):
                    held = None
                except KubeError as error:
                    log.error("lease refused", lease=self._name, error=str(error))
                    held = None
                if held:
                    renewed = began
                    if working is None or working.done():
                        _surface(working)
                        log.info("leading", lease=self._name, holder=self.holder)
                        working = asyncio.ensure_future(duties())
                elif working is not None and (held is False or time.monotonic() - renewed > RENEW):
                    log.warning("lead lost", lease=self._name, holder=self.holder)
                    await _end(working)
                    working = None
                self.leading = working is not None
                await asyncio.sleep(max(0.1, RETRY - (time.monotonic() - began)))
        finally:
            await _end(working)
            if self.leading:
                await self._step_down()

    async def _try(self) -> bool:
        """Take or renew the lease; whether it is ours."""
        lease = await self._kube.find(LEASES, self._namespace, self._name)
        try:
            if lease is None:
                await self._kube.create(LEASES, self._namespace, self._body({}))
            else:
                spec = lease["spec"]
                if not self._free(spec):
                    return False
                await self._kube.replace(
                    LEASES, self._namespace, self._name, lease | {"spec": self._body(spec)["spec"]}
                )
        except KubeError as error:
            if error.code == 409:  # somebody was faster
                return False
            raise
        return True

    def _free(self, spec: Object) -> bool:
        holder = spec.get("holderIdentity") or ""
        record = (holder, spec.get("renewTime"), spec.get("leaseTransitions"))
        if record != self._seen:
            self._seen, self._seen_at = record, time.monotonic()
        duration = spec.get("leaseDurationSeconds") or DURATION
        return holder in ("", self.holder) or time.monotonic() - self._seen_at > duration

    def _body(self, former: Object, holder: str | None = None) -> Object:
        mine = former.get("holderIdentity") == self.holder
        now = _now()
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self.holder if holder is None else holder,
                "leaseDurationSeconds": DURATION,
                "acquireTime": former.get("acquireTime") or now if mine else now,
                "renewTime": now,
                "leaseTransitions": (former.get("leaseTransitions") or 0) + (0 if mine or not former else 1),
            },
        }

    async def _step_down(self) -> None:
        """Let another one lead at once."""
        try:
            async with asyncio.timeout(3):
                lease = await self._kube.get(LEASES, self._namespace, self._name)
                if lease["spec"].get("holderIdentity") == self.holder:
                    spec = self._body(lease["spec"], holder="")["spec"]
                    await self._kube.replace(LEASES, self._namespace, self._name, lease | {"spec": spec})
        except (KubeError, KubeUnavailable, TimeoutError):
            log.warning("could not step down; the lease will run out", lease=self._name)


def _surface(working: "asyncio.Future[None] | None") -> None:
    if working is not None and not working.cancelled() and (error := working.exception()) is not None:
        log.error("duties failed, starting anew", exc_info=error)


async def _end(working: "asyncio.Future[None] | None") -> None:
    if working is not None:
        await end_all([working])
        await asyncio.gather(working, return_exceptions=True)
