"""What a pool's pod template may not do: whoever may make pools must get no more rights by them. Pure.

The definition knows no hostNetwork, hostPID and the like, so Kubernetes drops those. What remains free there (volumes,
ports, security contexts) is looked at here. Where a namespace enforces `restricted`, its pods pass.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

VOLUMES: Final = frozenset(
    {"configMap", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret"}
)
"""Kinds of volumes that have nothing of the node in them."""

CAPABILITIES: Final = frozenset({"NET_BIND_SERVICE"})

WORKER: Final = "worker"
"""Name of the container that is the worker."""

NOT_FOR_WORKER: Final = {
    "image": "set spec.image",
    "command": "the worker's is fixed",
    "args": "the worker's are fixed",
    "livenessProbe": "the worker's is fixed",
    "readinessProbe": "the worker's is fixed",
    "startupProbe": "the worker's is fixed",
    "restartPolicy": "only for init containers",
}


def wrongs(pod: Mapping[str, Any], accounts: Collection[str], forbidden: str) -> Iterator[str]:
    """What is not allowed in a pod template's spec, each as a sentence.

    `accounts`: service accounts that may be named beside `default`; empty: any but `forbidden` (the operator's own).
    """
    account = pod.get("serviceAccountName") or "default"
    if account == forbidden or (accounts and account not in accounts and account != "default"):
        yield f"serviceAccountName {account} is not allowed"
    yield from _context("securityContext", pod.get("securityContext") or {})
    for volume in pod.get("volumes") or ():
        kinds = set(volume) - {"name"}
        if not kinds <= VOLUMES:
            yield f"volume {volume.get('name')}: {', '.join(sorted(kinds - VOLUMES))} is not allowed"
        for source in (volume.get("projected") or {}).get("sources") or ():
            if not isinstance(source, dict) or "serviceAccountToken" in source:
                yield f"volume {volume.get('name')}: a service account's token is not allowed"
    for kind in ("containers", "initContainers"):
        for container in pod.get(kind) or ():
            yield from _container(f"{kind} {container.get('name')}", container)
    for container in pod.get("containers") or ():
        if container.get("name") == WORKER:
            for name, hint in NOT_FOR_WORKER.items():
                if name in container:
                    yield f"containers worker: {name} cannot be set ({hint})"


def _container(where: str, container: Mapping[str, Any]) -> Iterator[str]:
    yield from _context(f"{where}: securityContext", container.get("securityContext") or {})
    for port in container.get("ports") or ():
        if port.get("hostPort") or port.get("hostIP"):
            yield f"{where}: hostPort is not allowed"
    if container.get("volumeDevices"):
        yield f"{where}: volumeDevices are not allowed"


def _context(where: str, context: Mapping[str, Any]) -> Iterator[str]:
    for name in ("privileged", "allowPrivilegeEscalation"):
        if context.get(name):
            yield f"{where}.{name} is not allowed"
    if context.get("runAsNonRoot") is False or context.get("runAsUser") == 0:
        yield f"{where}: root is not allowed"
    added = set((context.get("capabilities") or {}).get("add") or ()) - CAPABILITIES
    if added:
        yield f"{where}: capabilities {', '.join(sorted(added))} are not allowed"
    for name in ("seccompProfile", "appArmorProfile"):
        if (context.get(name) or {}).get("type") == "Unconfined":
            yield f"{where}.{name} must not be Unconfined"
    for name in ("procMount", "seLinuxOptions", "windowsOptions", "sysctls"):
        if context.get(name) and context[name] != "Default":
            yield f"{where}.{name} is not allowed"


def tightened(context: Mapping[str, Any], *, container: bool, read_only: bool = False) -> dict[str, Any]:
    """A security context that `restricted` accepts, with what the template adds to it."""
    made: dict[str, Any] = {"seccompProfile": {"type": "RuntimeDefault"}} | dict(context) | {"runAsNonRoot": True}
    if container:
        capabilities = dict(made.get("capabilities") or {}) | {"drop": ["ALL"]}
        made |= {"allowPrivilegeEscalation": False, "capabilities": capabilities}
        if read_only:
            made["readOnlyRootFilesystem"] = True
    return made
