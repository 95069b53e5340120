"""GoQueueWorkerPools: each owns a Deployment, kept as declared and as large as its queues need.

One loop looks at all pools: every `scale_seconds`, and at once when jobs arrive (Redis tells, nobody polls for it). A
look that was asked for by an arrival only reads the stores; Kubernetes is asked where something is to be changed.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, get_args

import structlog

from goqueue import metrics
from goqueue.errors import BrokerUnavailable
from goqueue.scaling import Cause, Decision, Load, decide
from goqueue.service import JobService
from goqueue.tasks import wait_at_most
from goqueue_operator import load, poolstatus
from goqueue_operator.consolidation import Consolidation, pods_of
from goqueue_operator.deployment import POOL_LABEL, Defaults
from goqueue_operator.deployments import Deployments
from goqueue_operator.jobstatus import difference
from goqueue_operator.kube import DEPLOYMENTS, PODS, POOLS, Kube, KubeError, KubeUnavailable, Object
from goqueue_operator.load import Facts, Looker
from goqueue_operator.pool import Pool, policy
from goqueue_operator.shares import Member, Share, shares

BREATH: Final = 0.2
"""Shortest time in seconds between two looks, however many jobs arrive."""

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

Parts = dict[str, dict[str, Share]]
"""Uid of a pool → queue → what the pool takes of it."""

log = structlog.get_logger(__name__)


class Pools:
    """All GoQueueWorkerPools. `seconds`: between two full looks."""

    def __init__(
        self, kube: Kube, service: JobService, queues: Iterable[str], defaults: Defaults, seconds: float = 2.0
    ) -> None:
        self._kube = kube
        self._service = service
        self._queues = list(queues)
        self._deployments = Deployments(kube, defaults)
        self._consolidation = Consolidation(kube, service)
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
        sure: tuple[Facts, Parts] | None = None
        parts = self._divide(facts)
        for pool in list(self.pools.values()):
            if pool.uid not in parts:
                continue  # made since then
            try:
                if full or pool.built is None:
                    await self._see(pool)
                fresh = full or pool.built is None
                decision, amount = self._decide(pool, facts, parts[pool.uid])
                if decision.replicas < self._serving(pool, facts) and not self._looker.redis_away:
                    # Before anything goes: PostgreSQL may know of more work, and pods that have come since the last
                    # full look may be busy.
                    if not fresh:
                        await self._see(pool)
                        fresh = True
                    if sure is None:
                        facts = facts.checked(await self._looker.counted())
                        sure = facts, self._divide(facts)
                    facts, parts = sure
                    decision, amount = self._decide(pool, facts, parts[pool.uid])
                pool.history, pool.serving = decision.history, decision.replicas
                if pool.found is None and not await self._is_there(pool):
                    continue
                ordered = await self._consolidation.replicas(pool, decision.replicas, facts, fresh=fresh or pool.priced)
                if pool.priced:
                    self._arrival.set()  # Kubernetes knows by then which pods to take
                decision = replace(decision, replicas=ordered)
                await self._deployments.keep_or_tell(pool, decision, full)
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
        if resource is None or resource["metadata"]["uid"] != pool.uid:
            self._forget(pool.uid)
            return False
        return True

    def _decide(self, pool: Pool, facts: Facts, parts: Mapping[str, Share]) -> tuple[Decision, Load]:
        own = pool.own(facts.workers)
        now = time.monotonic()
        wish = policy(pool.resource)
        if own is not None:
            load.learn(pool.pace, now, own, facts.waiting, facts.paused)
        rate = pool.pace.rate(wish.slots, load.work(facts, parts, wish.target))
        queues = load.served(pool.resource, self._queues)
        ready = None if own is None else self._ready(pool, facts)
        amount = replace(load.of_pool(facts, queues, own, parts, ready), rate=rate)
        return decide(now, self._serving(pool, facts), amount, wish, pool.history), amount

    def _serving(self, pool: Pool, facts: Facts) -> int:
        """How many of the pods that were ordered take jobs, or shall."""
        if pool.serving is not None:
            return pool.serving
        pods = pods_of(pool, facts, time.monotonic()) or ()
        return max(0, pool.current - sum(pod.asked for pod in pods))

    def _ready(self, pool: Pool, facts: Facts) -> int:
        """How many of its pods take jobs."""
        pods = pods_of(pool, facts, time.monotonic()) or ()
        return sum(not pod.asked and (bool(pod.workers) or pod.ready) for pod in pods)

    def _divide(self, facts: Facts) -> Parts:
        """What each pool takes of the queues that it serves."""
        serving: dict[str, list[Pool]] = {}
        for pool in self.pools.values():
            for queue in load.served(pool.resource, self._queues):
                serving.setdefault(queue, []).append(pool)
        members = {uid: self._member(pool, facts) for uid, pool in self.pools.items()}
        parts: Parts = {uid: {} for uid in self.pools}
        for queue, pools in serving.items():
            waiting = (facts.waiting or {}).get(queue, (0, 0.0))[0]
            able = [pool for pool in pools if not pool.refused] or pools
            for pool in pools:
                parts[pool.uid][queue] = Share(0, 0.0)
            for pool, share in zip(able, shares(waiting, [members[pool.uid] for pool in able]), strict=True):
                parts[pool.uid][queue] = share
        return parts

    def _member(self, pool: Pool, facts: Facts) -> Member:
        wish = policy(pool.resource)
        serving = self._serving(pool, facts)
        working = [row for row in pool.own(facts.workers) or () if not row.draining and row.drain_seconds <= 0]
        free = sum(max(0, row.concurrency - row.busy) for row in working)
        coming = max(0, serving - self._ready(pool, facts)) * wish.slots
        room = 0 if wish.pinned is not None else max(0, wish.maximum - serving) * wish.slots
        return Member(free, coming, room, serving * wish.slots)

    # --- the status --------------------------------------------------------------------------------------------------

    async def _write(self, pool: Pool, decision: Decision, amount: Load) -> None:
        current = pool.current
        status = poolstatus.status(pool, decision, amount, self._looker.redis_away, current, datetime.now(UTC))
        patch: dict[str, Any] | None = difference(pool.status, status)
        now = time.monotonic()
        if patch is None or (patch.keys() <= {"busy", "reason"} and now - pool.written_at < STATUS_SECONDS):
            return
        namespace, name = pool.place
        body = {"metadata": {"uid": pool.uid}, "status": patch}
        await self._kube.patch(POOLS, namespace, name, body, "status")
        pool.status, pool.written_at = status, now
