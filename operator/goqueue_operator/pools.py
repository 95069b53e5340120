"""GoQueueWorkerPools: each owns a Deployment, kept as declared and as large as its queues need.

One loop looks at all pools: every `scale_seconds`, and at once when jobs arrive (Redis tells, nobody polls for it). A
look that was asked for by an arrival only reads the stores; Kubernetes is asked where something is to be changed.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, get_args

import structlog

from goqueue import metrics, tracing
from goqueue.errors import BrokerUnavailable
from goqueue.scaling import Cause, Decision, History, Load, Policy, decide
from goqueue.service import JobService
from goqueue.store.dispatch import WorkerRow
from goqueue.tasks import wait_at_most
from goqueue_operator import deployment, load, poolstatus
from goqueue_operator.conditions import timestamp
from goqueue_operator.deployment import POOL_LABEL, Defaults, Refused
from goqueue_operator.events import tell
from goqueue_operator.jobstatus import difference
from goqueue_operator.kube import DEPLOYMENTS, PODS, POOLS, Kube, KubeError, KubeUnavailable, Object
from goqueue_operator.load import Facts, Looker, Pace

COST: Final = "controller.kubernetes.io/pod-deletion-cost"

RESTARTED: Final = "kubectl.kubernetes.io/restartedAt"
"""What `kubectl rollout restart` leaves in the pod template: an order, and no drift."""

BREATH: Final = 0.2
"""Shortest time in seconds between two looks, however many jobs arrive."""

STATUS_SECONDS: Final = 5.0
"""Shortest time between two status writes that tell no more than new numbers of busy slots."""

_SHOWN: Final = (
    metrics.POOL_DESIRED,
    metrics.POOL_REPLICAS,
    metrics.POOL_READY,
    metrics.POOL_MOST,
    metrics.POOL_ARRIVALS,
    metrics.POOL_PACE,
)
_CAUSES: Final = (*get_args(Cause), "refused")

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Pool:
    """One GoQueueWorkerPool and what is known of its Deployment and pods."""

    resource: Object
    status: Object
    found: Object | None = None
    """Its Deployment, as it was seen or written last."""
    pods: list[Object] = field(default_factory=list)
    generation: int | None = None
    """Of the Deployment, after our own last write; any other one is drift."""
    built: Object | None = None
    """What we wrote."""
    replicas: int | None = None
    """What we decided last."""
    history: History = field(default_factory=History)
    pace: Pace = field(default_factory=Pace)
    refused: str = ""
    told: str = ""
    """The refusal that an event was left for."""
    written_at: float = 0.0
    scaled_at: str | None = None

    @property
    def uid(self) -> str:
        """The resource's uid."""
        return str(self.resource["metadata"]["uid"])

    @property
    def place(self) -> tuple[str, str]:
        """Namespace and name, of the pool and of its Deployment."""
        metadata = self.resource["metadata"]
        return metadata["namespace"], metadata["name"]

    def own(self, workers: Sequence[WorkerRow] | None) -> list[WorkerRow] | None:
        """Those of the workers that run in its pods; a worker is called `<pod>-<process id>`."""
        if workers is None:
            return None
        names = {hostname(pod) for pod in self.pods}
        return [worker for worker in workers if worker.name.rpartition("-")[0] in names]


def hostname(pod: Object) -> str:
    """What a pod's processes call their host: the kubelet cuts long names."""
    return str(pod["metadata"]["name"])[:63].rstrip("-.")


def policy(pool: Object) -> Policy:
    """What the pool wants, as the mathematics takes it."""
    spec = pool["spec"]
    scaling = spec.get("scaling") or {}
    return Policy(
        minimum=spec.get("minReplicas", 0),
        maximum=spec.get("maxReplicas", 10),
        slots=deployment.slots(pool),
        jobs_per_replica=scaling.get("jobsPerReplica"),
        target=float(scaling.get("targetWaitSeconds", 10)),
        window=float(scaling.get("scaleDownWindowSeconds", 60)),
        up=scaling.get("scaleUpPods"),
        down=scaling.get("scaleDownPods"),
        pinned=spec.get("replicas"),
    )


class Pools:
    """All GoQueueWorkerPools. `seconds`: between two full looks."""

    def __init__(
        self, kube: Kube, service: JobService, queues: Iterable[str], defaults: Defaults, seconds: float = 2.0
    ) -> None:
        self._kube = kube
        self._service = service
        self._queues = list(queues)
        self._defaults = defaults
        self._seconds = seconds
        self._looker = Looker(service, self._queues)
        self.pools: dict[str, Pool] = {}
        self._arrival = asyncio.Event()

    def on_event(self, kind: str | None, resource: Object) -> None:
        """A pool was made, changed or deleted; its Deployment goes with it by its owner reference."""
        uid = resource["metadata"]["uid"]
        if kind == "DELETED" or resource["metadata"].get("deletionTimestamp"):
            self._forget(uid)
            return
        pool = self.pools.get(uid)
        if pool is None:
            pool = self.pools[uid] = Pool(resource, resource.get("status") or {})
            pool.scaled_at = pool.status.get("lastScaleTime")
        elif pool.resource["metadata"].get("generation") == resource["metadata"].get("generation"):
            return  # our own status
        else:
            pool.resource = resource
        pool.built = None
        self._arrival.set()

    def _forget(self, uid: str) -> None:
        pool = self.pools.pop(uid, None)
        if pool is not None:
            for gauge in _SHOWN:
                gauge.remove(*pool.place)
            for cause in _CAUSES:
                metrics.POOL_DECISION.remove(*pool.place, cause)

    def _show(self, pool: Pool, cause: str, amount: Load | None = None) -> None:
        """Say in the metrics what there is and why."""
        seen = (pool.found or {}).get("status") or {}
        metrics.POOL_DESIRED.set(self._current(pool), *pool.place)
        metrics.POOL_REPLICAS.set(seen.get("replicas") or 0, *pool.place)
        metrics.POOL_READY.set(seen.get("readyReplicas") or 0, *pool.place)
        metrics.POOL_MOST.set(policy(pool.resource).maximum, *pool.place)
        if amount is not None:
            metrics.POOL_ARRIVALS.set(amount.arrivals, *pool.place)
            metrics.POOL_PACE.set(math.nan if amount.rate is None else amount.rate, *pool.place)
        cause = "refused" if pool.refused else cause
        for each in _CAUSES:
            metrics.POOL_DECISION.set(each == cause, *pool.place, each)

    def hide(self) -> None:
        """Show no pool any more: another process leads."""
        for gauge in (*_SHOWN, metrics.POOL_DECISION):
            gauge.forget()

    async def run(self) -> None:
        """Keep and scale until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_loop(), name="look")
            group.create_task(self._listen(), name="arrivals")

    async def _listen(self) -> None:
        while True:
            try:
                async for _ in self._service.broker.listen(self._service.broker.arrivals_channel):
                    self._arrival.set()
            except BrokerUnavailable:
                await asyncio.sleep(1.0)

    async def _look_loop(self) -> None:
        next_full = 0.0
        while True:
            full = time.monotonic() >= next_full or any(pool.built is None for pool in self.pools.values())
            if full:
                next_full = time.monotonic() + self._seconds
            if self.pools:
                began = time.monotonic()
                await self._look(full)
                metrics.OPERATOR_SECONDS.observe(time.monotonic() - began, "pools")
            await asyncio.sleep(BREATH)
            await wait_at_most(self._arrival, max(0.0, next_full - time.monotonic()))
            self._arrival.clear()

    async def _look(self, full: bool) -> None:
        named = {queue for pool in self.pools.values() for queue in load.served(pool.resource, [])}
        facts = await self._looker.look(named)
        sure: Facts | None = None
        for pool in list(self.pools.values()):
            try:
                if full or pool.built is None:
                    await self._see(pool)
                decision, amount = self._decide(pool, facts)
                if decision.replicas < self._current(pool) and not self._looker.redis_away:
                    # Before anything goes: PostgreSQL may know of more work, and pods that have come since the last
                    # full look may be busy.
                    if not full:
                        await self._see(pool)
                    facts = sure = sure or facts.checked(await self._looker.counted())
                    decision, amount = self._decide(pool, facts)
                pool.history = decision.history
                if pool.found is None and not await self._is_there(pool):
                    continue
                await self._keep_or_tell(pool, decision, facts, full)
                self._show(pool, decision.cause, amount)
                await self._write(pool, decision, amount)
            except KubeUnavailable as error:
                log.warning("pool not looked after", pool=pool.place, error=str(error))
            except KubeError as error:
                if error.code in (404, 409):
                    pool.built = None
                    with contextlib.suppress(KubeUnavailable):
                        await self._is_there(pool)
                    continue
                log.error("pool not looked after", pool=pool.place, error=str(error))

    async def _see(self, pool: Pool) -> None:
        namespace, name = pool.place
        pool.found = await self._kube.find(DEPLOYMENTS, namespace, name)
        labels = f"{POOL_LABEL}={name}"
        pool.pods = [
            pod
            async for pod in self._kube.each(PODS, namespace, labels=labels)
            if not pod["metadata"].get("deletionTimestamp")
        ]

    async def _is_there(self, pool: Pool) -> bool:
        """Whether the pool still exists; one whose deletion the watch did not show is forgotten."""
        resource = await self._kube.find(POOLS, *pool.place)
        metadata = (resource or {}).get("metadata", {})
        if metadata.get("uid") != pool.uid or metadata.get("deletionTimestamp"):
            self._forget(pool.uid)
            return False
        return True

    def _current(self, pool: Pool) -> int:
        if pool.replicas is not None:
            return pool.replicas
        return int((pool.found or {}).get("spec", {}).get("replicas") or 0)

    def _decide(self, pool: Pool, facts: Facts) -> tuple[Decision, Load]:
        own = pool.own(facts.workers)
        now = time.monotonic()
        wish = policy(pool.resource)
        if own is not None:
            pool.pace.learn(now, own)
        amount = load.of_pool(facts, load.served(pool.resource, self._queues), own, pool.pace.rate(wish.slots))
        return decide(now, self._current(pool), amount, wish, pool.history), amount

    # --- the Deployment ----------------------------------------------------------------------------------------------

    async def _keep_or_tell(self, pool: Pool, decision: Decision, facts: Facts, full: bool) -> None:
        """Make the Deployment what it should be; where that is refused, by us or by Kubernetes, say so.

        Kubernetes is asked again with each full look. Where only what the pool declares anew is refused, its Deployment
        as it was before goes on to be scaled.
        """
        if pool.refused and pool.built == {} and not full:
            return
        try:
            await self._keep(pool, decision, facts)
        except Refused as error:
            await self._refuse(pool, str(error))
        except KubeError as error:
            if error.code in (404, 409):
                raise
            await self._refuse(pool, f"Kubernetes refuses the Deployment: {error.message}")
            if pool.found is not None and decision.replicas != self._current(pool):
                await self._resize(pool, pool.found, decision, facts)

    async def _refuse(self, pool: Pool, why: str) -> None:
        pool.refused, pool.built, pool.replicas = why, {}, self._current(pool)
        if pool.told != why:
            pool.told = why
            log.error("pool refused", pool=pool.place, error=why)
            await tell(self._kube, pool.resource, "GoQueueWorkerPool", "Refused", why, warning=True)

    async def _resize(self, pool: Pool, found: Object, decision: Decision, facts: Facts) -> None:
        """Change nothing but the number of pods."""
        before = self._current(pool)
        if decision.replicas < before:
            await self._price(pool, facts)
        steps = [
            {"op": "test", "path": "/metadata/uid", "value": found["metadata"]["uid"]},
            {"op": "replace", "path": "/spec/replicas", "value": decision.replicas},
        ]
        made = await self._kube.edit(DEPLOYMENTS, *pool.place, steps)
        pool.found, pool.generation = made, made["metadata"]["generation"]
        pool.replicas = decision.replicas
        _note_scaling(pool, before, decision)

    async def _keep(self, pool: Pool, decision: Decision, facts: Facts) -> None:
        """Make the Deployment what it should be, if it is not.

        Raises:
            Refused: it cannot be made of what the pool declares, or is somebody else's.
            KubeError: Kubernetes refuses it.
        """
        wanted = deployment.build(pool.resource, decision.replicas, self._defaults)
        if pool.found is not None and not deployment.owned(pool.found, pool.resource):
            raise Refused(f"there is a Deployment {pool.place[1]} that does not belong to this pool")
        _keep_restart(pool.found, wanted)
        drifted = pool.found is None or pool.found["metadata"].get("generation") != pool.generation
        if not drifted and pool.built == wanted:
            pool.refused = ""
            return
        before = self._current(pool)
        with tracing.doing("scale pool" if decision.replicas != before else "reconcile pool") as span:
            if span is not None:
                span.set_attributes(_about(pool, before, decision))
            if decision.replicas < before:
                await self._price(pool, facts)
            await self._put(pool, wanted)
        pool.built, pool.replicas, pool.refused = wanted, decision.replicas, ""
        _note_scaling(pool, before, decision)

    async def _put(self, pool: Pool, wanted: Object) -> None:
        namespace, name = pool.place
        if pool.found is None:
            made = await self._kube.create(DEPLOYMENTS, namespace, wanted)
        else:
            steps = [
                {"op": "test", "path": "/metadata/uid", "value": pool.found["metadata"]["uid"]},
                {"op": "replace", "path": "/metadata/labels", "value": wanted["metadata"]["labels"]},
                {"op": "replace", "path": "/spec", "value": wanted["spec"]},
            ]
            made = await self._kube.edit(DEPLOYMENTS, namespace, name, steps)
            former = pool.found["metadata"].get("generation")
            if pool.generation is not None and former != pool.generation and made["metadata"]["generation"] != former:
                log.warning(
                    "a pool's Deployment was changed by somebody else and is as declared again", pool=pool.place
                )
        pool.found, pool.generation = made, made["metadata"]["generation"]

    async def _price(self, pool: Pool, facts: Facts) -> None:
        """Tell Kubernetes which pods to take first: those whose workers run the fewest jobs."""
        busy: dict[str, int] = {}
        for worker in pool.own(facts.workers) or ():
            name = worker.name.rpartition("-")[0]
            busy[name] = busy.get(name, 0) + worker.busy
        for pod in pool.pods:
            metadata = pod["metadata"]
            cost = str(busy.get(hostname(pod), 0))
            if (metadata.get("annotations") or {}).get(COST, "0") != cost:
                patch = {"metadata": {"annotations": {COST: cost}}}
                with contextlib.suppress(KubeError):  # it is gone
                    await self._kube.patch(PODS, metadata["namespace"], metadata["name"], patch)

    # --- the status --------------------------------------------------------------------------------------------------

    async def _write(self, pool: Pool, decision: Decision, amount: Load) -> None:
        current = self._current(pool)
        status = poolstatus.status(pool, decision, amount, self._looker.redis_away, current, datetime.now(UTC))
        patch: dict[str, Any] | None = difference(pool.status, status)
        now = time.monotonic()
        if patch is None or (patch.keys() <= {"busy", "reason"} and now - pool.written_at < STATUS_SECONDS):
            return
        await self._kube.put_status(POOLS, *pool.place, pool.uid, status)
        pool.status, pool.written_at = status, now


def _note_scaling(pool: Pool, before: int, decision: Decision) -> None:
    if decision.replicas != before:
        pool.scaled_at = timestamp(datetime.now(UTC))
        log.info("pool scaled", pool=pool.place, before=before, now=decision.replicas, reason=decision.reason)


def _about(pool: Pool, before: int, decision: Decision) -> tracing.Attributes:
    """A decision, for its span."""
    namespace, name = pool.place
    return {
        "k8s.namespace.name": namespace,
        "goqueue.pool.name": name,
        "goqueue.pool.from": before,
        "goqueue.pool.to": decision.replicas,
        "goqueue.pool.cause": decision.cause,
        "goqueue.pool.reason": decision.reason,
    }


def _keep_restart(found: Object | None, wanted: Object) -> None:
    old = ((found or {}).get("spec", {}).get("template", {}).get("metadata") or {}).get("annotations") or {}
    if RESTARTED in old:
        metadata = wanted["spec"]["template"]["metadata"]
        metadata["annotations"] = {**metadata.get("annotations", {}), RESTARTED: old[RESTARTED]}
