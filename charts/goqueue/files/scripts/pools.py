"""Bring the worker pools of the release to what the values say.

They are not part of the release itself, as Helm refuses resources of a kind that the same release brings. Pools that
left the values are deleted. A pool that Kubernetes refuses does not keep the others from being applied; the script then
ends with an error, and its Job starts it again until all are applied.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import kube

NAMESPACE = os.environ["NAMESPACE"]
POOL_LABEL = os.environ["POOL_LABEL"]
COLLECTION = f"{kube.VERSION}/namespaces/{NAMESPACE}/goqueueworkerpools"
MANAGER = "fieldManager=goqueue-chart&fieldValidation=Strict"


def main() -> None:
    """Apply what is wanted, then delete what is not.

    Raises:
        SystemExit: Kubernetes refused a pool.
    """
    wanted = json.loads(Path(os.environ["POOLS"]).read_text())
    _wait_for_kind()
    refused = 0
    for pool in wanted:
        name = pool["metadata"]["name"]
        try:
            apply(pool)
        except kube.Refused as error:
            refused += 1
            print(f"worker pool {name} is refused: {error}", flush=True)
        else:
            print(f"applied worker pool {name}", flush=True)
    names = {pool["metadata"]["name"] for pool in wanted}
    for pool in kube.items(f"{COLLECTION}?labelSelector={POOL_LABEL}"):
        name = pool["metadata"]["name"]
        if name not in names:
            kube.delete(f"{COLLECTION}/{name}")
            print(f"deleted worker pool {name}", flush=True)
    if refused:
        raise SystemExit(f"{refused} of {len(wanted)} worker pools are refused")


def apply(pool: dict[str, Any]) -> None:
    """Make the pool as the values have it, without what somebody else has set in its spec (`kubectl scale`, `edit`)."""
    path = f"{COLLECTION}/{pool['metadata']['name']}"
    live = kube.call("PATCH", f"{path}?{MANAGER}&force=true", pool, kind="application/apply-patch+yaml")
    if live["spec"] != pool["spec"]:
        # Server-side apply leaves the fields of other managers. Their owners lose them by this.
        steps = [
            {"op": "test", "path": "/metadata/uid", "value": live["metadata"]["uid"]},
            {"op": "replace", "path": "/spec", "value": pool["spec"]},
        ]
        kube.call("PATCH", f"{path}?{MANAGER}", steps, kind="application/json-patch+json")


def _wait_for_kind() -> None:
    """The definitions are made in the same moment as this Job; the API serves them a little later."""
    for left in range(60, -1, -1):
        try:
            kube.call("GET", f"{COLLECTION}?limit=1")
            return
        except (kube.Refused, OSError) as error:
            if not left or (isinstance(error, kube.Refused) and error.code not in (403, 404, 429, 503)):
                raise
            if not left % 10:
                print(f"waiting for the kind GoQueueWorkerPool: {error}", flush=True)
            time.sleep(1)


if __name__ == "__main__":
    main()
