"""Bringing a pool down to fewer pods without interrupting a job: see `draining` for what is decided."""

import contextlib
import time
from collections.abc import Callable
from typing import Final

import structlog

from goqueue import metrics
from goqueue.errors import BrokerUnavailable, StoreUnavailable
from goqueue.service import JobService
from goqueue.store import draining as requests
from goqueue_operator.draining import DRAIN_SECONDS, FORCED_SECONDS, Plan, Pod, Worker, plan
from goqueue_operator.kube import PODS, Kube, KubeError, Object
from goqueue_operator.load import Facts
from goqueue_operator.pool import Pool, hostname, policy

COST: Final = "controller.kubernetes.io/pod-deletion-cost"

REVISION: Final = "pod-template-hash"
"""Label by which a Deployment tells the pods of its ReplicaSets apart."""

log = structlog.get_logger(__name__)


class Consolidation:
    """Asks workers to drain, releases them, and says how many pods may be ordered meanwhile."""

    def __init__(self, kube: Kube, service: JobService, changed: Callable[[Object], None]) -> None:
        """`changed` takes pods as Kubernetes answers a write."""
        self._kube = kube
        self._service = service
        self._changed = changed

    async def replicas(self, pool: Pool, serving: int, facts: Facts) -> int:
        """How many pods to order so that `serving` take jobs and no busy pod goes."""
        now = time.monotonic()
        forced, least = self._forced(pool, serving, now)
        pods = pods_of(pool, facts, now)
        if pods is None:
            return least if forced else max(serving, pool.current)
        made = plan(pods, pool.current, least, forced=forced)
        await self._ask(pool, made, pods, now)
        pool.priced = await self._price(pool, made)
        pool.leaving = made.leaving
        metrics.POOL_DRAINING.set(made.leaving, *pool.place)
        return made.replicas

    def _forced(self, pool: Pool, serving: int, now: float) -> tuple[bool, int]:
        """Whether pods that are not needed go although they are busy, and down to how many."""
        wish = policy(pool.resource)
        bounded = wish.pinned is not None or pool.current > wish.maximum
        if not bounded or pool.current <= serving:
            pool.forced_since = None
            return False, serving
        if pool.forced_since is None:
            pool.forced_since = now
        if now - pool.forced_since <= FORCED_SECONDS:
            return False, serving
        return True, serving if wish.pinned is not None else max(serving, wish.maximum)

    async def _ask(self, pool: Pool, made: Plan, pods: list[Pod], now: float) -> None:
        before = {worker.id: worker.asked for pod in pods for worker in pod.workers}
        pool.asked = {id: pool.asked.get(id, now) for id in made.drain}
        if not (made.ask or made.release):
            return
        fresh = [id for id in made.ask if before[id] <= 0]
        try:
            async with self._service.database.connection() as connection:
                if made.ask:
                    await requests.drain(connection, made.ask, DRAIN_SECONDS)
                if made.release:
                    await requests.release(connection, made.release)
        except StoreUnavailable:
            return  # the workers go on
        if fresh or made.release:
            log.info("pods drain", pool=pool.place, asked=len(fresh), released=len(made.release), drain=made.leaving)
            with contextlib.suppress(BrokerUnavailable):  # they ask PostgreSQL with each heartbeat, too
                await self._service.broker.tell("drain")

    async def _price(self, pool: Pool, made: Plan) -> bool:
        """Tell Kubernetes which pods to take first; True where that changed, so that it may choose otherwise now."""
        changed = False
        for place, pod in enumerate(pool.pods):
            metadata = pod["metadata"]
            cost = made.costs.get(metadata["name"])
            if cost is not None:
                patch = {"metadata": {"annotations": {COST: str(cost)}}}
                with contextlib.suppress(KubeError):  # it is gone
                    written = await self._kube.patch(PODS, metadata["namespace"], metadata["name"], patch)
                    self._changed(written)
                    pool.pods[place], changed = written, True
        return changed


def pods_of(pool: Pool, facts: Facts, now: float) -> list[Pod] | None:
    """The pool's pods with their workers; None where the workers are not known."""
    own = pool.own(facts.workers)
    if own is None:
        return None
    by_host: dict[str, list[Worker]] = {}
    for row in own:
        asked_for = now - pool.asked.get(row.id, now)
        worker = Worker(row.id, row.busy, row.draining, max(0.0, row.drain_seconds), asked_for)
        by_host.setdefault(row.name.rpartition("-")[0], []).append(worker)
    return [_pod(pod, by_host.get(hostname(pod), [])) for pod in pool.pods]


def _pod(pod: Object, workers: list[Worker]) -> Pod:
    metadata, status = pod["metadata"], pod.get("status") or {}
    return Pod(
        metadata["name"],
        tuple(workers),
        assigned=bool((pod.get("spec") or {}).get("nodeName")),
        pending=status.get("phase") == "Pending",
        ready=is_ready(pod),
        cost=_cost(metadata),
        revision=str((metadata.get("labels") or {}).get(REVISION, "")),
    )


def is_ready(pod: Object) -> bool:
    """Whether Kubernetes says that it is ready."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _cost(metadata: Object) -> int:
    try:
        return int((metadata.get("annotations") or {}).get(COST, "0"))
    except ValueError:
        return 0
