"""Bring the worker pools of the release to what the values say.

Not part of the release itself, as Helm refuses resources of a kind that the same release brings. Pools that left the
values are deleted; what somebody changed by hand comes back only when the values change.
"""

import json
import os
import time
from pathlib import Path

import kube

NAMESPACE = os.environ["NAMESPACE"]
LABELS = os.environ["LABELS"]
POOLS = f"{kube.VERSION}/namespaces/{NAMESPACE}/goqueueworkerpools"


def main() -> None:
    """Apply what is wanted, then delete what is not."""
    wanted = json.loads(Path("/etc/goqueue/pools/pools.json").read_text())
    _wait_for_kind()
    for pool in wanted:
        name = pool["metadata"]["name"]
        path = f"{POOLS}/{name}?fieldManager=goqueue-chart&force=true&fieldValidation=Strict"
        kube.call("PATCH", path, pool, kind="application/apply-patch+yaml")
        print(f"applied worker pool {name}", flush=True)
    names = {pool["metadata"]["name"] for pool in wanted}
    for pool in kube.items(f"{POOLS}?labelSelector={LABELS}"):
        name = pool["metadata"]["name"]
        if name not in names:
            kube.delete(f"{POOLS}/{name}")
            print(f"deleted worker pool {name}", flush=True)


def _wait_for_kind() -> None:
    """The definitions are made in the same moment as this Job; the API serves them a little later."""
    for left in range(60, -1, -1):
        try:
            kube.call("GET", f"{POOLS}?limit=1")
            return
        except (kube.Refused, OSError) as error:
            if not left or (isinstance(error, kube.Refused) and error.code not in (403, 404, 429, 503)):
                raise
            if not left % 10:
                print(f"waiting for the kind GoQueueWorkerPool: {error}", flush=True)
            time.sleep(1)


if __name__ == "__main__":
    main()
