"""What a pool's pod template may not do: whoever may make pools must get no more rights by them. Pure.

Everything is refused that is not known to be harmless: fields, volumes, parts of a security context. The definition
of pools knows no hostNetwork, hostPID and the like, so the API server drops those; they are refused here all the same,
in case the definition in the cluster is another one. Where a namespace enforces `restricted`, the pods pass.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from goqueue_operator.crds.pool import CONTAINER, POD
from goqueue_operator.podshape import wrong_shapes

VOLUMES: Final = frozenset(
    {"configMap", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret"}
)
"""Kinds of volumes that have nothing of the node in them."""

SOURCES: Final = frozenset({"clusterTrustBundle", "configMap", "downwardAPI", "secret"})
"""What a projected volume may be made of: no token and no certificate that says who the pod is."""

CONTEXT: Final = frozenset(
    {
        *("appArmorProfile", "capabilities", "fsGroup", "fsGroupChangePolicy", "readOnlyRootFilesystem", "runAsGroup"),
        *("runAsNonRoot", "runAsUser", "seccompProfile", "supplementalGroups", "supplementalGroupsPolicy"),
    }
)
"""Parts of a security context that a template may set; others only to what they are anyway."""

HARMLESS: Final[Mapping[str, Any]] = {"privileged": False, "allowPrivilegeEscalation": False, "procMount": "Default"}

CAPABILITIES: Final = frozenset({"NET_BIND_SERVICE"})
PROFILES: Final = frozenset({"RuntimeDefault", "Localhost"})

PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
ANY: Final = "*"
"""In the list of service accounts: all but the operator's own."""

KNOWN_BY: Final = ("app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component")
"""Labels by which Services and NetworkPolicies know a release's pods: with those of another part a pool would get what
is meant for that part."""

UNCONFINING: Final = ("container.apparmor.security.beta.kubernetes.io/", "seccomp.security.alpha.kubernetes.io/")
"""Annotations by which older versions of Kubernetes took a profile away."""

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
    """What is not allowed in a pod template's spec, each as a sentence. `pod` holds no nulls.

    `accounts`: service accounts that may be named beside `default`; `*` in it: any but `forbidden` (the operator's
    own).
    """
    if malformed := list(wrong_shapes(pod)):
        yield from malformed
        return
    for name in sorted(set(pod) - set(POD)):
        yield f"{name} is not allowed"
    if pod.get("hostUsers", False) is not False:
        yield "hostUsers is not allowed to be anything but false"
    account = pod.get("serviceAccountName") or "default"
    named = account == "default" or account in accounts or ANY in accounts
    if account == forbidden or not named:
        yield f"serviceAccountName {account} is not allowed"
    if str(pod.get("priorityClassName", "")).startswith("system-"):
        yield f"priorityClassName {pod['priorityClassName']} is not allowed"
    yield from _context("securityContext", pod.get("securityContext") or {})
    for volume in pod.get("volumes") or ():
        yield from _volume(volume)
    for kind in ("containers", "initContainers"):
        for container in pod.get(kind) or ():
            yield from _container(f"{kind} {container.get('name')}", container)
    for container in pod.get("containers") or ():
        if container.get("name") == WORKER:
            for name, hint in NOT_FOR_WORKER.items():
                if name in container:
                    yield f"containers worker: {name} cannot be set ({hint})"


def wrong_metadata(metadata: Mapping[str, Any], common: Mapping[str, str]) -> Iterator[str]:
    """What is not allowed in a pod template's metadata. `common`: the labels that all workers have."""
    labels = metadata.get("labels") or {}
    for name in KNOWN_BY:
        if name in labels and name in common and labels[name] != common[name]:
            yield f"label {name} cannot be changed"
    for name in metadata.get("annotations") or {}:
        if name.startswith(UNCONFINING):
            yield f"annotation {name} is not allowed"


def _volume(volume: Mapping[str, Any]) -> Iterator[str]:
    kinds = set(volume) - {"name"}
    if not kinds <= VOLUMES:
        yield f"volume {volume.get('name')}: {', '.join(sorted(kinds - VOLUMES))} is not allowed"
    for source in (volume.get("projected") or {}).get("sources") or ():
        for name in sorted(set(source) - SOURCES):
            what = "a service account's token" if name == "serviceAccountToken" else name
            yield f"volume {volume.get('name')}: {what} is not allowed"


def _container(where: str, container: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(set(container) - set(CONTAINER)):
        yield f"{where}: {name} is not allowed"
    yield from _context(f"{where}: securityContext", container.get("securityContext") or {})
    for port in container.get("ports") or ():
        if port.get("hostPort") or port.get("hostIP"):
            yield f"{where}: hostPort is not allowed"
    hooks = container.get("lifecycle") or {}
    asked = {name: container.get(name) for name in PROBES} | {
        name: hooks.get(name) for name in ("postStart", "preStop")
    }
    for name, handler in asked.items():
        for kind in ("httpGet", "tcpSocket"):
            # The kubelet asks, from the node's own network: not whom the template likes.
            if "host" in ((handler or {}).get(kind) or {}):
                yield f"{where}: {name}.{kind}.host is not allowed"


def _context(where: str, context: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(set(context) - CONTEXT):
        if name not in HARMLESS or context[name] != HARMLESS[name]:
            yield f"{where}.{name} is not allowed"
    if context.get("runAsNonRoot") is False or context.get("runAsUser") == 0:
        yield f"{where}: root is not allowed"
    added = set((context.get("capabilities") or {}).get("add") or ()) - CAPABILITIES
    if added:
        yield f"{where}: capabilities {', '.join(sorted(added))} are not allowed"
    for name in ("seccompProfile", "appArmorProfile"):
        if name in context and context[name].get("type") not in PROFILES:
            yield f"{where}.{name} must not be {context[name].get('type') or 'empty'}"


def tightened(context: Mapping[str, Any], *, container: bool, read_only: bool = False) -> dict[str, Any]:
    """A security context that `restricted` accepts, with what the template adds to it."""
    made: dict[str, Any] = {"seccompProfile": {"type": "RuntimeDefault"}} | dict(context) | {"runAsNonRoot": True}
    if container:
        capabilities = dict(made.get("capabilities") or {}) | {"drop": ["ALL"]}
        made |= {"allowPrivilegeEscalation": False, "capabilities": capabilities}
        if read_only:
            made["readOnlyRootFilesystem"] = True
    return made
