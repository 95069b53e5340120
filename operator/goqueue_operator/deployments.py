"""Making a pool's Deployment what it should be."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Final

import structlog

from goqueue import tracing
from goqueue.scaling import Decision
from goqueue_operator import deployment
from goqueue_operator.conditions import timestamp
from goqueue_operator.deployment import Defaults, Refused
from goqueue_operator.events import tell
from goqueue_operator.informer import Informer
from goqueue_operator.kube import DEPLOYMENTS, Kube, KubeError, KubeUnavailable, Object
from goqueue_operator.pool import Pool

RESTARTED: Final = "kubectl.kubernetes.io/restartedAt"
"""What `kubectl rollout restart` leaves in the pod template: an order, and no drift."""

TOGETHER: Final = 8
"""Deployments that are written at the same time; the client has more connections, so that others can write, too."""

SLOW_TOGETHER: Final = 2
"""The same for pools whose last try was refused."""

RETRY_SECONDS: Final = 60.0
"""Longest time in seconds until a refused Deployment is tried again."""

log = structlog.get_logger(__name__)


class Deployments:
    """Keeps the Deployments of pools.

    Where a try was refused the pool is tried again after a time that grows, and in a lane of its own: those that an
    admission webhook answers after 30 s must not keep the others waiting.
    """

    def __init__(self, kube: Kube, defaults: Defaults, watched: Informer) -> None:
        self._kube = kube
        self._defaults = defaults
        self._watched = watched
        self._lane = asyncio.Semaphore(TOGETHER)
        self._slow_lane = asyncio.Semaphore(SLOW_TOGETHER)

    async def keep_or_tell(self, pool: Pool, decision: Decision) -> None:
        """Make the Deployment what it should be; where that is refused, by us or by Kubernetes, say so.

        Where only what the pool declares anew is refused, its Deployment as it was before goes on to be scaled.
        """
        if time.monotonic() >= pool.retry_at:
            try:
                await self._keep(pool, decision)
                return
            except Refused as error:
                await self.refuse(pool, error.reason, str(error))
            except KubeUnavailable as error:
                await self.refuse(pool, "KubernetesUnavailable", str(error))
            except KubeError as error:
                if error.code in (404, 409):
                    raise
                await self.refuse(pool, "RefusedByKubernetes", f"Kubernetes refuses the Deployment: {error.message}")
        if pool.found is not None and decision.replicas != pool.current and deployment.owned(pool.found, pool.resource):
            await self._resize(pool, pool.found, decision)

    async def refuse(self, pool: Pool, reason: str, why: str) -> None:
        """Note that the Deployment cannot be as declared, tell it once, and leave it for a while."""
        pool.refused, pool.refusal, pool.replicas = why, reason, pool.current
        pool.failures += 1
        pool.retry_at = time.monotonic() + min(2.0**pool.failures, RETRY_SECONDS)
        if pool.told != why:
            pool.told = why
            log.error("pool refused", pool=pool.place, error=why)
            await tell(self._kube, pool.resource, "GoQueueWorkerPool", reason, why, warning=True)

    async def _resize(self, pool: Pool, found: Object, decision: Decision) -> None:
        """Change nothing but the number of pods."""
        before = pool.current
        steps = [
            {"op": "test", "path": "/metadata/uid", "value": found["metadata"]["uid"]},
            {"op": "replace", "path": "/spec/replicas", "value": decision.replicas},
        ]
        async with self._slow_lane:
            made = await self._kube.edit(DEPLOYMENTS, *pool.place, steps)
        self._note(pool, made)
        pool.replicas, pool.built = decision.replicas, None
        _note_scaling(pool, before, decision)

    async def _keep(self, pool: Pool, decision: Decision) -> None:
        """Make the Deployment what it should be, if it is not.

        Raises:
            Refused: it cannot be made of what the pool declares, or is somebody else's.
            KubeError: Kubernetes refuses it.
        """
        wanted = deployment.build(pool.resource, decision.replicas, self._defaults)
        if pool.found is None:  # the watch may be late, or the label by which it watches was taken away
            pool.found = await self._kube.find(DEPLOYMENTS, *pool.place)
        if pool.found is not None and not deployment.owned(pool.found, pool.resource):
            raise Refused(f"there is a Deployment {pool.place[1]} that does not belong to this pool")
        _keep_restart(pool.found, wanted)
        if pool.built == wanted and not _drifted(pool, wanted):
            _accept(pool)
            return
        before = pool.current
        with tracing.doing("scale pool" if decision.replicas != before else "reconcile pool") as span:
            if span is not None:
                span.set_attributes(_about(pool, before, decision))
            async with self._slow_lane if pool.failures else self._lane:
                await self._put(pool, wanted)
        pool.built, pool.replicas = wanted, decision.replicas
        _accept(pool)
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
        self._note(pool, made)

    def _note(self, pool: Pool, made: Object) -> None:
        """Take in the API server's answer."""
        self._watched.put(made)
        pool.found, pool.generation = made, made["metadata"]["generation"]


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


def _accept(pool: Pool) -> None:
    pool.refused = pool.refusal = pool.told = ""
    pool.wake()


def _drifted(pool: Pool, wanted: Object) -> bool:
    """Whether somebody else has changed the Deployment since our last write."""
    if pool.found is None or pool.found["metadata"].get("generation") != pool.generation:
        return True
    labels = pool.found["metadata"].get("labels") or {}  # a change of metadata does not change the generation
    return any(labels.get(name) != value for name, value in wanted["metadata"]["labels"].items())


def _keep_restart(found: Object | None, wanted: Object) -> None:
    old = ((found or {}).get("spec", {}).get("template", {}).get("metadata") or {}).get("annotations") or {}
    if RESTARTED in old:
        metadata = wanted["spec"]["template"]["metadata"]
        metadata["annotations"] = {**metadata.get("annotations", {}), RESTARTED: old[RESTARTED]}
