"""The Deployments and pods of pools, as watches show them."""

import asyncio
from collections.abc import Callable
from typing import Final

from goqueue_operator.consolidation import COST, REVISION
from goqueue_operator.deployment import POOL_LABEL
from goqueue_operator.informer import Informer
from goqueue_operator.kube import DEPLOYMENTS, PODS, Kube, Object
from goqueue_operator.pool import Pool

POD_METADATA: Final = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "labels",
)
POD_STATUS: Final = ("phase", "conditions", "containerStatuses", "initContainerStatuses")


class PoolObjects:
    """Local copies of both kinds. `changed` takes the uid of a pool whose Deployment is another one."""

    def __init__(self, kube: Kube, namespace: str | None, changed: Callable[[str], None]) -> None:
        self._pool_changed = changed
        self.deployments = Informer(kube, DEPLOYMENTS, namespace, POOL_LABEL, _trimmed, self._compare)
        self.pods = Informer(kube, PODS, namespace, POOL_LABEL, _trimmed_pod, lambda *_: None)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.deployments.run(), name="deployments")
            group.create_task(self.pods.run(), name="pods")

    async def synced(self) -> None:
        """Return as soon as all have been listed once."""
        await self.deployments.synced.wait()
        await self.pods.synced.wait()

    def show(self, pool: Pool) -> None:
        """Note in the pool what there is now."""
        pool.found = self.deployments.get(*pool.place)
        pool.pods = [pod for pod in self.pods.labelled(*pool.place) if not pod["metadata"].get("deletionTimestamp")]

    def _compare(self, old: Object | None, new: Object | None) -> None:
        if old is not None and new is not None and _declared(old) == _declared(new):
            return  # its status
        for reference in (new or old or {})["metadata"].get("ownerReferences") or ():
            self._pool_changed(str(reference.get("uid")))


def _declared(item: Object) -> tuple[object, ...]:
    metadata = item["metadata"]
    return (*(metadata.get(name) for name in ("uid", "generation", "labels", "annotations", "ownerReferences")),)


def _trimmed(item: Object) -> Object:
    """The object without what takes memory and nobody reads."""
    return item | {"metadata": {name: value for name, value in item["metadata"].items() if name != "managedFields"}}


def _trimmed_pod(item: Object) -> Object:
    metadata, status = item["metadata"], item.get("status") or {}
    kept = {name: metadata[name] for name in POD_METADATA if name in metadata}
    kept["labels"] = {name: metadata["labels"][name] for name in (POOL_LABEL, REVISION) if name in metadata["labels"]}
    if (cost := (metadata.get("annotations") or {}).get(COST)) is not None:
        kept["annotations"] = {COST: cost}
    return {
        "metadata": kept,
        "spec": {"nodeName": (item.get("spec") or {}).get("nodeName")},
        "status": {name: status[name] for name in POD_STATUS if name in status},
    }
