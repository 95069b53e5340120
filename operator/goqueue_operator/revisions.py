"""Which state of ConfigMaps and Secrets a pool's environment comes from.

A pod reads its environment once, when it starts. The state is an annotation of the pod template, so that a change rolls
the pods. Of a Secret only metadata is read, and its state is `uid` and `resourceVersion`, which change with each write:
a hash of its content beside the pod would let anybody who reads pods guess short secrets.
"""

import hashlib
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from goqueue_operator.kube import CONFIG_MAPS, SECRETS, Kind, Kube, KubeError, Object

METADATA: Final = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json"
CONFIG_MAP: Final = "ConfigMap"
SECRET: Final = "Secret"  # noqa: S105 - a kind
GRACE: Final = "GOQUEUE_WORKER_GRACE_SECONDS"
QUEUES: Final = "GOQUEUE_QUEUES"
READ: Final = frozenset({GRACE, QUEUES})
"""The settings of a worker that the operator needs to know."""

NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
"""Names of ConfigMaps and Secrets; one that does not match must not become part of a URL."""

KINDS: Final[Mapping[str, Kind]] = {CONFIG_MAP: CONFIG_MAPS, SECRET: SECRETS}


@dataclass(frozen=True, slots=True)
class Reference:
    """A ConfigMap or Secret that a container's environment names. `key`: only this one; `prefix`: of all names."""

    kind: str
    name: str
    key: str = ""
    variable: str = ""
    """The variable that gets the key's value."""
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the referenced objects hold. `revision` None: not read yet."""

    revision: str | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    """Those of `READ` that ConfigMaps give the worker."""


def references(containers: Iterable[Object]) -> Iterator[Reference]:
    """All that the containers' environments name, in the order in which later ones win."""
    for container in containers:
        for source in container.get("envFrom") or ():
            prefix = str(source.get("prefix") or "")
            for kind, field_name in ((CONFIG_MAP, "configMapRef"), (SECRET, "secretRef")):
                if name := (source.get(field_name) or {}).get("name"):
                    yield Reference(kind, str(name), prefix=prefix)
        for variable in container.get("env") or ():
            origin = variable.get("valueFrom") or {}
            for kind, field_name in ((CONFIG_MAP, "configMapKeyRef"), (SECRET, "secretKeyRef")):
                chosen = origin.get(field_name) or {}
                if chosen.get("name") and chosen.get("key"):
                    yield Reference(kind, str(chosen["name"]), str(chosen["key"]), str(variable.get("name")))


class Revisions:
    """Reads the objects; those of many pools once. `seconds`: how long one reading counts."""

    def __init__(self, kube: Kube, seconds: float) -> None:
        self._kube = kube
        self._seconds = seconds
        self._read: dict[tuple[str, str, str], tuple[float, Object | str]] = {}

    async def settings(self, namespace: str, worker: Object, others: Iterable[Object]) -> Settings:
        """The state of what the containers name, and the values that ConfigMaps give the worker.

        Raises:
            KubeUnavailable: the API server does not answer.
        """
        states: set[str] = set()
        values: dict[str, str] = {}
        for reference in references([worker]):
            item = await self._get(namespace, reference)
            states.add(_state(reference, item))
            values |= _values(reference, item)
        for reference in references(others):
            states.add(_state(reference, await self._get(namespace, reference)))
        if not states:
            return Settings("")
        return Settings(hashlib.sha256("\n".join(sorted(states)).encode()).hexdigest()[:16], values)

    async def _get(self, namespace: str, reference: Reference) -> Object | str:
        """The object, of a Secret its metadata; or in one word why there is none."""
        if not NAME.fullmatch(reference.name):
            return "absent"
        now = time.monotonic()
        place = (reference.kind, namespace, reference.name)
        at, item = self._read.get(place, (-self._seconds, ""))
        if item and now - at < self._seconds:
            return item
        self._read = {key: value for key, value in self._read.items() if now - value[0] < self._seconds}
        accept = METADATA if reference.kind == SECRET else "application/json"
        kind = KINDS[reference.kind]
        path, flow = kind.path(namespace, reference.name), f"GET {kind.plural}"
        try:
            item = await self._kube.request("GET", path, flow=flow, accept=accept)
        except KubeError as error:
            item = "absent" if error.code == 404 else "unreadable"
        self._read[place] = (now, item)
        return item


def _state(reference: Reference, item: Object | str) -> str:
    place = f"{reference.kind}/{reference.name}/{reference.key}"
    if isinstance(item, str):
        return f"{place} {item}"
    metadata = item["metadata"]
    if reference.kind == SECRET:
        return f"{place} {metadata['uid']} {metadata['resourceVersion']}"
    content: Any = [item.get("data"), item.get("binaryData")]
    if reference.key:
        content = [(part or {}).get(reference.key) for part in content]
    return f"{place} {hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()}"


def _values(reference: Reference, item: Object | str) -> dict[str, str]:
    data = {} if isinstance(item, str) or reference.kind == SECRET else item.get("data") or {}
    if reference.key:
        values = {reference.variable: data[reference.key]} if reference.key in data else {}
    else:
        values = {reference.prefix + name: value for name, value in data.items()}
    return {name: value for name, value in values.items() if name in READ}
