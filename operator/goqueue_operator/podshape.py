"""The shape of a pod template where the definition leaves it free: objects, lists and texts where they belong. Pure.

The definition takes over a pod's fields as they are (`x-kubernetes-preserve-unknown-fields`), so anything may stand in
them. What reads a template may rely on the shapes below once `wrong_shapes` had nothing to say.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

TEXT: Final = "a text"
VALUE: Final = "a number, a text, true or false"

_PROFILE: Final = {"type": TEXT}
_CONTEXT: Final = {
    **dict.fromkeys(("privileged", "allowPrivilegeEscalation", "runAsUser", "runAsNonRoot", "procMount"), VALUE),
    "capabilities": {"add": [TEXT], "drop": [TEXT]},
    "seccompProfile": _PROFILE,
    "appArmorProfile": _PROFILE,
}
_HANDLER: Final[dict[str, Any]] = {"httpGet": {}, "tcpSocket": {}}
_NAMED: Final = {"name": TEXT}
_KEY: Final = {"name": TEXT, "key": TEXT}
_VARIABLE: Final = {"name": TEXT, "valueFrom": {"configMapKeyRef": _KEY, "secretKeyRef": _KEY}}
_SOURCE: Final = {"prefix": TEXT, "configMapRef": _NAMED, "secretRef": _NAMED}
_CONTAINER: Final = {
    "name": TEXT,
    "securityContext": _CONTEXT,
    "lifecycle": {"postStart": _HANDLER, "preStop": _HANDLER},
    "livenessProbe": _HANDLER,
    "readinessProbe": _HANDLER,
    "startupProbe": _HANDLER,
    "ports": [_NAMED],
    "env": [_VARIABLE],
    "envFrom": [_SOURCE],
    "volumeMounts": [{"mountPath": TEXT}],
}
POD: Final[dict[str, Any]] = {
    "securityContext": _CONTEXT,
    "serviceAccountName": TEXT,
    "priorityClassName": TEXT,
    "volumes": [{"name": TEXT, "projected": {"sources": [{}]}}],
    "containers": [_CONTAINER],
    "initContainers": [_CONTAINER],
    "topologySpreadConstraints": [{}],
}
"""An object with the fields that are looked into; a list of what stands in it; or what a value must be."""

ENV: Final = [_VARIABLE]
ENV_FROM: Final = [_SOURCE]


def wrong_shapes(value: Any, shape: Any = POD, where: str = "") -> Iterator[str]:
    """What is not of the shape that it must have, each as a sentence."""
    if isinstance(shape, dict):
        if not isinstance(value, Mapping):
            yield f"{where or 'spec'} must be an object"
            return
        for name, inner in shape.items():
            if name in value:
                yield from wrong_shapes(value[name], inner, f"{where}.{name}" if where else name)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{where} must be a list"
            return
        for index, item in enumerate(value):
            yield from wrong_shapes(item, shape[0], f"{where}[{index}]")
    elif not isinstance(value, str if shape == TEXT else (str, int, float, bool)):
        yield f"{where} must be {shape}"


def without_nulls(value: Any) -> Any:
    """A copy in which no field is null. To Kubernetes a null is a field that was left out, and so it must be here:
    a profile of null would take away the one that all pods get."""
    if isinstance(value, Mapping):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value
