"""GoQueueWorkerPools: each owns a Deployment, kept as declared and as large as its queues need.

One loop looks at all pools: every `scale_seconds`, and at once when jobs arrive (Redis tells, nobody polls for it) or a
Deployment is changed. A look reads the stores; Deployments and pods come by watch, and Kubernetes is asked only where
something is to be changed.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Final, get_args

import structlog

from goqueue import metrics
from goqueue.errors import BrokerUnavailable
from goqueue.scaling import Cause, Decision, Load, decide
from goqueue.service import JobService
from goqueue.tasks import at_once, end_all, wait_at_most
from goqueue_operator import load, poolload, poolstatus
from goqueue_operator.consolidation import Consolidation
from goqueue_operator.deployment import POOL_LABEL, Defaults
from goqueue_operator.deployments import Deployments
from goqueue_operator.events import tell
from goqueue_operator.kube import PODS, POOLS, Kube, KubeError, KubeUnavailable, Object
from goqueue_operator.load import Facts, Looker
from goqueue_operator.pool import Pool, policy
from goqueue_operator.poolobjects import PoolObjects

BREATH: Final = 0.2
"""Shortest time in seconds between two looks, however many jobs arrive."""

PATIENCE: Final = 0.5
"""Seconds for which a look waits for the slowest pool."""

EVENT_SECONDS: Final = 30.0
"""Shortest time in seconds between two events about the number of pods of one pool."""

STATUS_SECONDS: Final = 5.0
"""Shortest time between two status writes that tell no more than new numbers of busy slots."""

_SHOWN: Final = (
    metrics.POOL_DESIRED,
    metrics.POOL_REPLICAS,
    metrics.POOL_READY,
    metrics.POOL_DRAINING,
    metrics.POOL_MOST,
    metrics.POOL_ARRIVALS,
    metrics.POOL_PACE,
)
_CAUSES: Final = (*get_args(Cause), "refused")

log = structlog.get_logger(__name__)


class Pools:
    """All GoQueueWorkerPools. `seconds`: between two looks. `namespace`: where they are; None: everywhere.

    `settings_seconds`: between two readings of what their environments name.
    """

    def __init__(
        self,
        kube: Kube,
        service: JobService,
        queues: Iterable[str],
        defaults: Defaults,
        seconds: float = 2.0,
        *,
        namespace: str | None = None,
        settings_seconds: float = 60.0,
    ) -> None:
        self._kube = kube
        self._service = service
        self._queues = list(queues)
        self._objects = PoolObjects(kube, namespace, self._on_deployment)
        self._deployments = Deployments(kube, defaults, self._queues, self._objects.deployments, settings_seconds)
        self._consolidation = Consolidation(kube, service, self._objects.pods.put)
        self._seconds = seconds
        self._looker = Looker(service, self._queues)
        self.pools: dict[str, Pool] = {}
        self._arrival = asyncio.Event()
        self._attending: dict[str, asyncio.Task[None]] = {}

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
            pool.pace.restore(pool.status.get("pace") or ())
        elif _declared(pool.resource) == _declared(resource):
            return  # our own status
        else:
            pool.resource = resource
        pool.built, pool.settings_at = None, -math.inf
        pool.wake()
        self._arrival.set()

    def _on_deployment(self, uid: str) -> None:
        if (pool := self.pools.get(uid)) is not None:
            pool.wake()
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
        metrics.POOL_DESIRED.set(pool.current, *pool.place)
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
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._objects.run(), name="objects")
                group.create_task(self._look_loop(), name="look")
                group.create_task(self._listen(), name="arrivals")
        finally:
            await end_all(self._attending.values())

    async def _listen(self) -> None:
        while True:
            try:
                async for _ in self._service.broker.listen(self._service.broker.arrivals_channel):
                    self._arrival.set()
            except BrokerUnavailable:
                await asyncio.sleep(1.0)

    async def _look_loop(self) -> None:
        await self._objects.synced()
        while True:
            began = time.monotonic()
            self._arrival.clear()
            if self.pools:
                await self._look()
                metrics.OPERATOR_SECONDS.observe(time.monotonic() - began, "pools")
            await asyncio.sleep(BREATH)
            await wait_at_most(self._arrival, max(0.0, began + self._seconds - time.monotonic()))

    async def _look(self) -> None:
        """Look after all pools at once; one that takes longer than `PATIENCE` goes on beside the next looks."""
        named = {queue for pool in self.pools.values() for queue in load.served(pool.resource, [])}
        look = Look(await self._looker.look(named), self._looker, self._divide)
        begun = []
        for uid, pool in list(self.pools.items()):
            if uid not in self._attending:
                task = at_once(self._attend(pool, look), name=f"pool {pool.place}")
                if not task.done():
                    self._attending[uid] = task
                    task.add_done_callback(partial(self._attended, uid))
                    begun.append(task)
        if begun:
            await asyncio.wait(begun, timeout=PATIENCE)

    def _attended(self, uid: str, _: asyncio.Task[None]) -> None:
        del self._attending[uid]

    async def _attend(self, pool: Pool, look: "Look") -> None:
        """Look after one pool. Whatever fails is said of this pool and ends with it; the others go on."""
        try:
            await self._scale(pool, look)
        except KubeUnavailable as error:
            log.warning("pool not looked after", pool=pool.place, error=str(error))
        except KubeError as error:
            if error.code in (404, 409):
                pool.built = None
                with contextlib.suppress(KubeUnavailable, KubeError):
                    await self._is_there(pool)
                return
            await self._fail(
                pool, "RefusedByKubernetes", f"Kubernetes refuses a request for this pool: {error.message}"
            )
        except Exception as error:
            log.exception("pool not looked after", pool=pool.place)
            await self._fail(pool, "InternalError", f"the operator failed: {type(error).__name__}")

    async def _fail(self, pool: Pool, reason: str, why: str) -> None:
        await self._deployments.refuse(pool, reason, why)
        with contextlib.suppress(Exception):  # this may be what failed
            await self._write(pool, Decision(pool.current, why, pool.history, "unknown"), Load(None, None))

    async def _scale(self, pool: Pool, look: "Look") -> None:
        self._objects.show(pool)
        facts, parts = look.facts, look.parts
        if pool.uid not in parts:
            return  # made since then
        decision, amount = self._decide(pool, facts, parts)
        if decision.replicas < poolload.serving(pool, facts) and not self._looker.redis_away:
            # Before anything goes: PostgreSQL may know of more work, and pods that the watch has not shown yet may be
            # busy.
            await self._list_pods(pool)
            facts, parts = await look.checked()
            decision, amount = self._decide(pool, facts, parts)
        pool.history, pool.serving = decision.history, decision.replicas
        if pool.found is None and time.monotonic() >= pool.retry_at and not await self._is_there(pool):
            return
        decision = replace(decision, replicas=await self._ordered(pool, decision.replicas, facts))
        await self._deployments.keep_or_tell(pool, decision)
        if self.pools.get(pool.uid) is pool:
            self._show(pool, decision.cause, amount)
            await self._write(pool, decision, amount)
            await self._tell_scaling(pool, decision.reason)

    async def _list_pods(self, pool: Pool) -> None:
        namespace, name = pool.place
        pods = [pod async for pod in self._kube.each(PODS, namespace, labels=f"{POOL_LABEL}={name}")]
        pool.pods = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]

    async def _is_there(self, pool: Pool) -> bool:
        """Whether the pool still exists; one whose deletion the watch did not show is forgotten."""
        resource = await self._kube.find(POOLS, *pool.place)
        metadata = (resource or {}).get("metadata", {})
        if metadata.get("uid") != pool.uid or metadata.get("deletionTimestamp"):
            self._forget(pool.uid)
            return False
        return True

    async def _ordered(self, pool: Pool, serving: int, facts: Facts) -> int:
        """How many pods to order, so that this many take jobs and no busy one goes."""
        ordered = await self._consolidation.replicas(pool, serving, facts)
        if ordered < pool.current and serving < pool.current:
            await self._list_pods(pool)  # the watch may be behind
            ordered = await self._consolidation.replicas(pool, serving, facts)
        if pool.priced:
            self._arrival.set()  # by the next look Kubernetes knows which pods to take
        return ordered

    def _decide(self, pool: Pool, facts: Facts, parts: poolload.Parts) -> tuple[Decision, Load]:
        amount = poolload.amount(pool, facts, parts.get(pool.uid, {}), self._queues)
        current = poolload.serving(pool, facts)
        return decide(time.monotonic(), current, amount, policy(pool.resource), pool.history), amount

    def _divide(self, facts: Facts) -> poolload.Parts:
        return poolload.divide(self.pools.values(), facts, self._queues)

    # --- the status --------------------------------------------------------------------------------------------------

    async def _write(self, pool: Pool, decision: Decision, amount: Load) -> None:
        status = poolstatus.status(pool, decision, amount, self._looker.redis_away, datetime.now(UTC))
        now = time.monotonic()
        if status == pool.status or (
            poolstatus.only_numbers(pool.status, status) and now - pool.written_at < STATUS_SECONDS
        ):
            return
        await self._kube.put_status(POOLS, *pool.place, pool.uid, status)
        pool.status, pool.written_at = status, now

    async def _tell_scaling(self, pool: Pool, reason: str) -> None:
        """Leave an event for a change of the number of pods; one event for all changes within `EVENT_SECONDS`."""
        before, after, now = pool.told_replicas, pool.current, time.monotonic()
        if before is None:
            pool.told_replicas = after
        elif before != after and now - pool.told_replicas_at >= EVENT_SECONDS:
            pool.told_replicas, pool.told_replicas_at = after, now
            note = f"from {before} to {after} pods: {reason}"
            await tell(self._kube, pool.resource, "GoQueueWorkerPool", "SuccessfulRescale", note)


def _declared(resource: Object) -> tuple[object, ...]:
    """What people have written: labels and annotations do not change the generation."""
    metadata = resource["metadata"]
    return metadata.get("generation"), metadata.get("labels") or {}, metadata.get("annotations") or {}


class Look:
    """One look at the stores, for all pools. `checked`: with what PostgreSQL counts, asked once and only if needed."""

    def __init__(self, facts: Facts, looker: Looker, divide: Callable[[Facts], poolload.Parts]) -> None:
        self.facts = facts
        self.parts = divide(facts)
        self._divide = divide
        self._looker = looker
        self._checked: tuple[Facts, poolload.Parts] | None = None
        self._asking = asyncio.Lock()

    async def checked(self) -> tuple[Facts, poolload.Parts]:
        """The facts with more work where PostgreSQL knows of more, and what each pool takes of it."""
        async with self._asking:
            if self._checked is None:
                facts = self.facts.checked(await self._looker.counted())
                self._checked = facts, self._divide(facts)
        return self._checked
