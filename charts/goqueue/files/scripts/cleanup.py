"""Before the operator goes: worker pools away while it still runs, then finalizers that only it would remove.

Run before an uninstall, and before an upgrade that switches the operator off. Always ends, and ends well: a cleanup
that failed must not keep anybody from uninstalling.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import kube

NAMESPACE = os.environ["NAMESPACE"]
LABELS = os.environ["LABELS"]
POOL_LABEL = os.environ["POOL_LABEL"]
OPERATOR = os.environ["OPERATOR"]
SCOPE = "" if os.environ["CLUSTER_WIDE"] == "true" else f"namespaces/{NAMESPACE}/"
DEADLINE = time.monotonic() + float(os.environ["SECONDS"])
KINDS = ("goqueueworkerpools", "goqueueschedules", "goqueuejobs")


def main() -> None:
    """Each step is tried, whatever became of the one before."""
    now = time.monotonic()
    steps: list[tuple[str, Callable[[float], None], float]] = [
        ("delete the worker pools", delete_pools, now + (DEADLINE - now) * 0.5),
        ("stop the operator", stop_operator, now + (DEADLINE - now) * 0.8),
        *((f"remove the finalizers of {kind}", partial(remove_finalizers, kind), DEADLINE) for kind in KINDS),
    ]
    for what, step, until in steps:
        try:
            step(until)
        except Exception as error:  # whatever it is: the uninstall goes on
            print(f"could not {what}: {error}", flush=True)


def delete_pools(until: float) -> None:
    """Those of this release; their Deployments go with them."""
    pools = f"{kube.VERSION}/namespaces/{NAMESPACE}/goqueueworkerpools"
    mine = f"{pools}?labelSelector={POOL_LABEL}"
    for pool in kube.items(mine):
        name = pool["metadata"]["name"]
        kube.delete(f"{pools}/{name}")
        print(f"deleted worker pool {name}", flush=True)
    _wait(until, "the worker pools to go", lambda: not kube.items(mine))


def stop_operator(until: float) -> None:
    """A running operator would put the finalizers back."""
    path = f"apis/apps/v1/namespaces/{NAMESPACE}/deployments/{OPERATOR}"
    scale = f"{path}/scale"
    try:
        kube.call("PATCH", scale, {"spec": {"replicas": 0}}, kind="application/merge-patch+json")
    except kube.Refused as error:
        if error.code != 404:
            raise
        return
    pods = f"api/v1/namespaces/{NAMESPACE}/pods?labelSelector={LABELS},app.kubernetes.io/component=operator"
    _wait(until, "the operator to stop", lambda: not kube.items(pods))


def remove_finalizers(kind: str, until: float) -> None:
    """Ours only. The resources stay, and can be deleted by anybody from now on."""
    found = kube.items(f"{kube.VERSION}/{SCOPE}{kind}")
    bound = [one["metadata"] for one in found if any(map(_is_ours, one["metadata"].get("finalizers", [])))]
    with ThreadPoolExecutor(8) as pool:
        errors = [error for error in pool.map(lambda metadata: _release(kind, metadata, until), bound) if error]
    if errors:
        raise RuntimeError(f"{len(errors)} of {len(bound)} failed, the first by: {errors[0]}")
    print(f"removed the finalizers of {len(bound)} {kind}", flush=True)


def _release(kind: str, metadata: dict[str, Any], until: float) -> Exception | None:
    path = f"{kube.VERSION}/namespaces/{metadata['namespace']}/{kind}/{metadata['name']}"
    kept = [name for name in metadata["finalizers"] if not _is_ours(name)]
    try:
        if time.monotonic() > until:
            raise TimeoutError("out of time")
        kube.call("PATCH", path, {"metadata": {"finalizers": kept or None}}, kind="application/merge-patch+json")
    except kube.Refused as error:
        return None if error.code == 404 else error
    except OSError as error:
        return error
    return None


def _is_ours(finalizer: str) -> bool:
    return finalizer.split("/")[0].endswith(kube.GROUP)


def _wait(until: float, what: str, done: Callable[[], bool]) -> None:
    while not done():
        if time.monotonic() > until:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
