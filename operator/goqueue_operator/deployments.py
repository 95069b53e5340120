"""Making a pool's Deployment what it should be."""

import asyncio
import contextlib
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Final

import structlog

from goqueue import tracing
from goqueue.scaling import Decision
from goqueue_operator import deployment
from goqueue_operator.conditions import timestamp
from goqueue_operator.deployment import Defaults, Refused
from goqueue_operator.dropped import dropped
from goqueue_operator.events import tell
from goqueue_operator.informer import Informer
from goqueue_operator.kube import DEPLOYMENTS, Kube, KubeError, KubeUnavailable, Object, warnings
from goqueue_operator.load import served
from goqueue_operator.pool import Pool
from goqueue_operator.revisions import Revisions

RESTARTED: Final = "kubectl.kubernetes.io/restartedAt"
"""What `kubectl rollout restart` leaves in the pod template: an order, and no drift."""

COPIED: Final = "goqueue.io/copied-annotations"
"""Annotation of a Deployment: names of those that it has from its pool."""

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

    def __init__(
        self, kube: Kube, defaults: Defaults, queues: Collection[str], watched: Informer, settings_seconds: float
    ) -> None:
        self._kube = kube
        self._defaults = defaults
        self._queues = queues
        self._watched = watched
        self._settings_seconds = settings_seconds
        self._revisions = Revisions(kube, settings_seconds / 2)
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
        await self._read_settings(pool)
        wanted = deployment.build(pool.resource, decision.replicas, self._defaults, pool.settings)
        if unknown := deployment.unknown_queues(pool.resource, self._queues, self._defaults, pool.settings):
            raise Refused(f"GOQUEUE_QUEUES does not name {', '.join(unknown)}", "UnknownQueue")
        if why := self._defaults.namespaces.refusal(pool.place[0], served(pool.resource, list(self._queues))):
            raise Refused(why, "QueueNotAllowed")
        if pool.found is None:  # the watch may be late, or the label by which it watches was taken away
            pool.found = await self._kube.find(DEPLOYMENTS, *pool.place)
        if pool.found is not None and not deployment.owned(pool.found, pool.resource):
            raise Refused(f"there is a Deployment {pool.place[1]} that does not belong to this pool")
        _keep_annotations(pool, wanted)
        if pool.built == wanted and not _drifted(pool, wanted):
            _accept(pool)
            return
        before = pool.current
        with tracing.doing("scale pool" if decision.replicas != before else "reconcile pool") as span:
            if span is not None:
                span.set_attributes(_about(pool, before, decision))
            async with self._slow_lane if pool.failures else self._lane:
                with warnings() as heard:
                    await self._put(pool, wanted)
        await self._warn(pool, wanted, heard)
        pool.built, pool.replicas = wanted, decision.replicas
        _accept(pool)
        _note_scaling(pool, before, decision)

    async def _read_settings(self, pool: Pool) -> None:
        """Find out what the environment's ConfigMaps and Secrets hold; what cannot be known now is as before."""
        now = time.monotonic()
        if now - pool.settings_at < self._settings_seconds:
            return
        pool.settings_at = now
        draft = deployment.build(pool.resource, 0, self._defaults)["spec"]["template"]["spec"]
        worker, *others = draft["containers"]
        with contextlib.suppress(KubeUnavailable):
            pool.settings = await self._revisions.settings(
                pool.place[0], worker, [*others, *draft.get("initContainers", ())]
            )

    async def _put(self, pool: Pool, wanted: Object) -> None:
        namespace, name = pool.place
        if pool.found is None:
            copied = wanted["metadata"]["annotations"]
            metadata = wanted["metadata"] | {"annotations": copied | {COPIED: ",".join(sorted(copied))}}
            made = await self._kube.create(DEPLOYMENTS, namespace, wanted | ({"metadata": metadata} if copied else {}))
        else:
            steps = [
                {"op": "test", "path": "/metadata/uid", "value": pool.found["metadata"]["uid"]},
                {"op": "replace", "path": "/metadata/labels", "value": wanted["metadata"]["labels"]},
                *_annotate(pool.found, wanted["metadata"]["annotations"]),
                {"op": "replace", "path": "/spec", "value": wanted["spec"]},
            ]
            made = await self._kube.edit(DEPLOYMENTS, namespace, name, steps)
            former = pool.found["metadata"].get("generation")
            if pool.generation is not None and former != pool.generation and made["metadata"]["generation"] != former:
                log.warning(
                    "a pool's Deployment was changed by somebody else and is as declared again", pool=pool.place
                )
        self._note(pool, made)

    async def _warn(self, pool: Pool, wanted: Object, heard: list[str]) -> None:
        """Pass on what the API server warned of, and which fields it does not know, once as long as it is the same."""
        gone = list(dropped(wanted["spec"], (pool.found or {}).get("spec"), "spec"))
        parts = [*heard, *([f"Kubernetes does not take over {', '.join(gone)}"] if gone else [])]
        text = "; ".join(parts)
        if text and text != pool.warned:
            log.warning("pool warned of", pool=pool.place, warnings=text)
            await tell(self._kube, pool.resource, "GoQueueWorkerPool", "DeploymentWarning", text, warning=True)
        pool.warned = text

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
    if any(labels.get(name) != value for name, value in wanted["metadata"]["labels"].items()):
        return True
    return bool(_annotate(pool.found, wanted["metadata"]["annotations"]))


def _keep_annotations(pool: Pool, wanted: Object) -> None:
    """Keep in the pod template what was ordered there by others, and what could not be read anew."""
    template = (pool.found or {}).get("spec", {}).get("template", {}).get("metadata") or {}
    names = [RESTARTED] if pool.settings.revision is not None else [RESTARTED, deployment.REVISION]
    kept = {name: value for name, value in (template.get("annotations") or {}).items() if name in names}
    if kept:
        metadata = wanted["spec"]["template"]["metadata"]
        metadata["annotations"] = {**metadata.get("annotations", {}), **kept}


def _annotate(found: Object, wanted: Mapping[str, str]) -> list[Object]:
    """The steps from the Deployment's annotations to those of the pool; those of others stay."""
    there = found["metadata"].get("annotations")
    former = set((there or {}).get(COPIED, "").split(",")) - {""}
    wanted = {**wanted, COPIED: ",".join(sorted(wanted))} if wanted else {}
    gone = [name for name in (*former, COPIED) if name in (there or {}) and name not in wanted]
    changed = {name: value for name, value in wanted.items() if (there or {}).get(name) != value}
    start: list[Object] = [{"op": "add", "path": "/metadata/annotations", "value": {}}] if there is None else []
    return [
        *(start if changed else []),
        *({"op": "add", "path": _pointer(name), "value": value} for name, value in changed.items()),
        *({"op": "remove", "path": _pointer(name)} for name in gone),
    ]


def _pointer(name: str) -> str:
    """The annotation as JSON pointer (RFC 6901)."""
    return "/metadata/annotations/" + name.replace("~", "~0").replace("/", "~1")
