"""Making a pool's Deployment what it should be."""

from datetime import UTC, datetime
from typing import Final

import structlog

from goqueue import tracing
from goqueue.scaling import Decision
from goqueue_operator import deployment
from goqueue_operator.conditions import timestamp
from goqueue_operator.deployment import Defaults, Refused
from goqueue_operator.events import tell
from goqueue_operator.kube import DEPLOYMENTS, Kube, KubeError, Object
from goqueue_operator.pool import Pool

RESTARTED: Final = "kubectl.kubernetes.io/restartedAt"
"""What `kubectl rollout restart` leaves in the pod template: an order, and no drift."""

log = structlog.get_logger(__name__)


class Deployments:
    """Keeps the Deployments of pools."""

    def __init__(self, kube: Kube, defaults: Defaults) -> None:
        self._kube = kube
        self._defaults = defaults

    async def keep_or_tell(self, pool: Pool, decision: Decision, full: bool) -> None:
        """Make the Deployment what it should be; where that is refused, by us or by Kubernetes, say so.

        Kubernetes is asked again with each full look. Where only what the pool declares anew is refused, its Deployment
        as it was before goes on to be scaled.
        """
        if pool.refused and pool.built == {} and not full:
            return
        try:
            await self._keep(pool, decision)
        except Refused as error:
            await self._refuse(pool, str(error))
        except KubeError as error:
            if error.code in (404, 409):
                raise
            await self._refuse(pool, f"Kubernetes refuses the Deployment: {error.message}")
            if pool.found is not None and decision.replicas != pool.current:
                await self._resize(pool, pool.found, decision)

    async def _refuse(self, pool: Pool, why: str) -> None:
        pool.refused, pool.built, pool.replicas = why, {}, pool.current
        if pool.told != why:
            pool.told = why
            log.error("pool refused", pool=pool.place, error=why)
            await tell(self._kube, pool.resource, "GoQueueWorkerPool", "Refused", why, warning=True)

    async def _resize(self, pool: Pool, found: Object, decision: Decision) -> None:
        """Change nothing but the number of pods."""
        before = pool.current
        steps = [
            {"op": "test", "path": "/metadata/uid", "value": found["metadata"]["uid"]},
            {"op": "replace", "path": "/spec/replicas", "value": decision.replicas},
        ]
        made = await self._kube.edit(DEPLOYMENTS, *pool.place, steps)
        pool.found, pool.generation = made, made["metadata"]["generation"]
        pool.replicas = decision.replicas
        _note_scaling(pool, before, decision)

    async def _keep(self, pool: Pool, decision: Decision) -> None:
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
        before = pool.current
        with tracing.doing("scale pool" if decision.replicas != before else "reconcile pool") as span:
            if span is not None:
                span.set_attributes(_about(pool, before, decision))
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
