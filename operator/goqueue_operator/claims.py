"""Which installation serves a namespace: the one that holds the namespace's claim, a Lease of a fixed name.

Two installations that serve one namespace run each of its jobs twice and change each pool back and forth. IngressClass
and `spec.managedBy` of a Job solve the same by a field of each resource; here the namespace as a whole belongs to one
installation (docs/decisions/0019-identity.md).

    event of a resource ──▶ gate ──▶ claim is ours            ──▶ handler
                                 ──▶ not known yet            ──▶ kept until it is
                                 ──▶ another installation's   ──▶ dropped, with an event, a log line and a metric;
                                                                  listed again once the claim is ours

All replicas of an installation are the same holder, so a new leader serves at once. As with a leader's Lease, a claim
counts as renewed when its record changes, seen by one's own clock; no two clocks are compared.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

import structlog

from goqueue import metrics
from goqueue.tasks import wait_at_most
from goqueue_operator.events import tell
from goqueue_operator.kube import JOBS, LEASES, POOLS, SCHEDULES, Kind, Kube, KubeError, KubeUnavailable, Object
from goqueue_operator.watch import Heard

NAME: Final = "claim.goqueue.io"
"""Name of the Lease in each namespace."""

SHORTEST: Final = 60
"""Seconds for which a claim holds without a renewal, where few namespaces are served."""
LONGEST: Final = 300
"""The same where many are. A third of it passes between two renewals: 200 namespaces cost two requests a second."""
PER_NAMESPACE: Final = 3
"""By how many seconds each namespace lengthens it."""

LOOK: Final = 10.0
"""Seconds between two looks at the claim of another installation, and at one that could not be read."""

ANSWER: Final = 10.0
"""Seconds within which one look must end, so that no other claim runs out meanwhile."""

KEPT: Final = 100
"""Events of a namespace that are kept until its claim is known; if there are more, its resources are listed."""

KINDS: Final[Mapping[Kind, str]] = {
    JOBS: "GoQueueJob",
    POOLS: "GoQueueWorkerPool",
    SCHEDULES: "GoQueueSchedule",
}

log = structlog.get_logger(__name__)


class ClaimLost(Exception):
    """A namespace that was served belongs to another installation now, or its claim could not be renewed in time."""


class State(Enum):
    """What is known of a claim."""

    UNKNOWN = "unknown"
    OURS = "ours"
    REFUSED = "refused"
    """Another installation holds it."""


@dataclass(slots=True)
class Place:
    """A namespace and its claim. Times are `time.monotonic()`."""

    namespace: str
    state: State = State.UNKNOWN
    lease: Object | None = None
    """As it was written or read last."""
    renewed_at: float = 0.0
    lasts: float = 0.0
    """Seconds for which it holds after a renewal."""
    due_at: float = 0.0
    """When to look at it next."""
    seen: Any = None
    """The record of another holder, and since when it is unchanged."""
    seen_at: float = 0.0
    kept: list[tuple[Kind, str | None, Object]] = field(default_factory=list)
    missed: bool = False
    """Resources were dropped: list them once the claim is ours."""
    gone: bool = False
    """Its namespace is gone or being deleted."""
    told: set[tuple[Kind, str]] = field(default_factory=set)
    """Kind and holder of which an event was left."""
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def holder(self) -> str:
        """Who holds it, by its record."""
        return str(((self.lease or {}).get("spec") or {}).get("holderIdentity") or "")


class Claims:
    """The claims of one leader. `holder` names the installation: `<namespace of the operator>/<its Lease>`.

    `leases`: the client for the claims themselves, by default the same.
    """

    def __init__(self, kube: Kube, holder: str, leases: Kube | None = None) -> None:
        self._kube, self._leases = kube, leases or kube
        self.holder = holder
        self.places: dict[str, Place] = {}
        self._handlers: dict[Kind, Heard] = {}
        self._wake = asyncio.Event()
        self._telling: set[asyncio.Future[None]] = set()

    # --- the gate ----------------------------------------------------------------------------------------------------

    def gate(self, kind: Kind, heard: Heard) -> Heard:
        """A handler that hands on what concerns namespaces that are ours."""
        self._handlers[kind] = heard

        def on_event(event: str | None, resource: Object) -> None:
            place = self._place(resource["metadata"]["namespace"])
            if place.state is State.OURS:
                heard(event, resource)
            elif place.state is State.REFUSED:
                self._refuse(place, kind, event, resource)
            elif len(place.kept) < KEPT:
                place.kept.append((kind, event, resource))
            else:
                place.missed = True

        return on_event

    def serves(self, namespace: str) -> bool:
        """Whether the namespace's claim is ours."""
        place = self.places.get(namespace)
        return place is not None and place.state is State.OURS

    def refuses(self, namespace: str) -> bool:
        """Whether another installation holds the namespace's claim."""
        place = self.places.get(namespace)
        return place is not None and place.state is State.REFUSED

    async def settle(self, namespaces: Iterable[str]) -> set[str]:
        """Those of the namespaces that are ours; claims that are not known are asked for first.

        Raises:
            KubeUnavailable: Kubernetes does not answer.
        """
        places = [self._place(namespace) for namespace in set(namespaces)]
        await asyncio.gather(*(self._look(place) for place in places if place.state is State.UNKNOWN))
        return {place.namespace for place in places if place.state is State.OURS}

    def hide(self) -> None:
        """Show nothing any more: another process leads."""
        metrics.OPERATOR_UNSERVED.forget()

    def _place(self, namespace: str) -> Place:
        place = self.places.get(namespace)
        if place is None:
            place = self.places[namespace] = Place(namespace)
            self._wake.set()
        return place

    def _refuse(self, place: Place, kind: Kind, event: str | None, resource: Object) -> None:
        """Leave an event beside the first resource of each kind that is left alone."""
        if event == "DELETED":
            return
        if (kind, place.holder) in place.told:
            return
        place.told.add((kind, place.holder))
        note = (
            f"GoQueue installation {self.holder} leaves the resources of namespace {place.namespace} alone: "
            f"installation {place.holder} serves it (Lease {NAME})"
        )
        telling = asyncio.ensure_future(tell(self._kube, resource, KINDS[kind], "NamespaceClaimed", note, warning=True))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    # --- the claims --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Claim and renew until cancelled.

        Raises:
            ExceptionGroup: of ClaimLost, where a namespace is not ours any more: all that is known of its resources has
                to be forgotten.
        """
        async with asyncio.TaskGroup() as group:
            while True:
                now = time.monotonic()
                due = [place for place in self.places.values() if place.due_at <= now]
                await asyncio.gather(*(self._look_or_tell(place) for place in due))
                metrics.OPERATOR_UNSERVED.set(sum(place.state is not State.OURS for place in self.places.values()))
                for place in self.places.values():
                    if place.state is State.OURS and place.missed:
                        place.missed = False
                        group.create_task(self._list(place), name=f"list-{place.namespace}")
                await wait_at_most(self._wake, 1.0)
                self._wake.clear()

    async def _look_or_tell(self, place: Place) -> None:
        try:
            await self._look(place)
        except KubeUnavailable as error:
            log.warning("claim not read", namespace=place.namespace, error=str(error))
        if place.state is State.OURS and time.monotonic() - place.renewed_at > place.lasts * 5 / 6:
            raise ClaimLost(f"the claim of namespace {place.namespace} could not be renewed")

    async def _look(self, place: Place) -> None:
        """Take, renew or read the claim of a namespace.

        Raises:
            KubeUnavailable: Kubernetes does not answer.
            ClaimLost: it was ours, and another installation has it.
        """
        async with place.looking:
            if place.due_at > time.monotonic():
                return  # somebody else looked meanwhile
            place.due_at = time.monotonic() + 1.0
            try:
                async with asyncio.timeout(ANSWER):
                    state = await self._take(place)
            except TimeoutError:
                raise KubeUnavailable("kubernetes does not answer in time") from None
            except KubeError as error:
                if _is_gone(error):
                    self._let_go(place)
                else:
                    log.error("claim refused by Kubernetes", namespace=place.namespace, error=str(error))
                    place.due_at = time.monotonic() + LOOK
                return
            if state is State.OURS:
                if place.state is State.REFUSED:
                    log.info("namespace is served from now on", namespace=place.namespace)
                self._serve(place)
            elif place.state is State.OURS:
                log.error("claim lost", namespace=place.namespace, holder=place.holder)
                raise ClaimLost(f"namespace {place.namespace} is served by {place.holder} now")
            else:
                self._leave_alone(place)

    def _serve(self, place: Place) -> None:
        place.state = State.OURS
        kept, place.kept = place.kept, []
        for kind, event, resource in kept:
            self._handlers[kind](event, resource)

    def _leave_alone(self, place: Place) -> None:
        if place.state is not State.REFUSED:
            log.error("namespace is served by another installation", namespace=place.namespace, by=place.holder)
        place.state, place.missed = State.REFUSED, True
        kept, place.kept = place.kept, []
        for kind, event, resource in kept:
            self._refuse(place, kind, event, resource)

    def _let_go(self, place: Place) -> None:
        """The namespace is gone or being deleted: nobody can claim it, and what is left of it is handed on."""
        if place.gone:
            del self.places[place.namespace]
            return
        now = time.monotonic()
        place.gone, place.lease, place.renewed_at, place.lasts = True, None, now, LONGEST
        place.due_at = now + SHORTEST
        self._serve(place)

    async def _list(self, place: Place) -> None:
        """Hand on the resources of a namespace of which events were dropped."""
        try:
            for kind, heard in self._handlers.items():
                async for item in self._kube.each(kind, place.namespace):
                    heard("ADDED", {"apiVersion": f"{kind.group}/{kind.version}", "kind": KINDS[kind], **item})
        except (KubeUnavailable, KubeError) as error:
            log.warning("resources not listed, trying again", namespace=place.namespace, error=str(error))
            await asyncio.sleep(1.0)
            place.missed = True

    async def _take(self, place: Place) -> State:
        """Take or renew the claim, or find that another one holds it."""
        now = time.monotonic()
        lasts = duration(len(self.places))
        try:
            lease = place.lease if place.state is State.OURS else None
            if lease is None:
                lease = await self._leases.find(LEASES, place.namespace, NAME)
            if lease is None:
                body = self._body(place.namespace, {}, lasts)
                place.lease = await self._leases.create(LEASES, place.namespace, body)
            elif self._free(place, lease):
                wanted = lease | {"spec": self._body(place.namespace, lease["spec"], lasts)["spec"]}
                place.lease = await self._leases.replace(LEASES, place.namespace, NAME, wanted)
            else:
                place.lease, place.due_at = lease, now + LOOK
                return State.REFUSED
        except KubeError as error:
            if error.code != 409 and not (error.code == 404 and place.lease is not None):
                raise
            place.lease = None  # changed or deleted by somebody: read it
            return await self._take(place)
        place.renewed_at, place.lasts, place.due_at, place.gone = now, lasts, now + lasts / 3, False
        return State.OURS

    def _free(self, place: Place, lease: Object) -> bool:
        spec = lease["spec"]
        holder = spec.get("holderIdentity") or ""
        record = (holder, spec.get("renewTime"), spec.get("leaseTransitions"))
        if record != place.seen:
            place.seen, place.seen_at = record, time.monotonic()
        lasts = spec.get("leaseDurationSeconds") or LONGEST
        return holder in ("", self.holder) or time.monotonic() - place.seen_at > lasts

    def _body(self, namespace: str, former: Object, lasts: float) -> Object:
        mine = former.get("holderIdentity") == self.holder
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": NAME, "namespace": namespace},
            "spec": {
                "holderIdentity": self.holder,
                "leaseDurationSeconds": int(lasts),
                "acquireTime": former.get("acquireTime") or now if mine else now,
                "renewTime": now,
                "leaseTransitions": (former.get("leaseTransitions") or 0) + (0 if mine or not former else 1),
            },
        }


def duration(namespaces: int) -> float:
    """Seconds for which a claim holds after a renewal, by how many namespaces one operator serves."""
    return float(min(LONGEST, max(SHORTEST, PER_NAMESPACE * namespaces)))


def _is_gone(error: KubeError) -> bool:
    """Whether a Lease could not be made since its namespace is gone or being deleted."""
    return error.code == 404 or (error.code == 403 and "because it is being terminated" in error.message)
