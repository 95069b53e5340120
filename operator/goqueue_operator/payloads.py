"""The payload of a job: from its spec, or from one key of a Secret or ConfigMap in its namespace."""

import base64
from typing import Any, Final

import orjson

from goqueue.errors import InvalidInput
from goqueue.jsontext import decode
from goqueue_operator.exactness import rounded
from goqueue_operator.jobstatus import Refusal
from goqueue_operator.kube import CONFIG_MAPS, SECRETS, Kube, KubeError

LABEL: Final = "goqueue.io/payload"
"""Only Secrets with this label (`"true"`) are read: who may make jobs must not read every Secret through them."""

NAMES: Final = {
    "queue": "queue",
    "type": "type",
    "maxRetries": "max_retries",
    "priority": "priority",
    "availableAt": "available_at",
    "timeout": "timeout",
    "uniqueKey": "unique_key",
}
"""A field of the spec → the same in the body of POST /jobs/create."""


MAX_PAYLOAD: Final = 2**20
"""Largest payload of a spec, in bytes of JSON: as REST takes by default. With a larger one there may be no room for
the status in what etcd stores of an object (1.5 MiB)."""


class NoPayload(Exception):
    """The payload cannot be had for now; `refusal` says why."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.refusal = Refusal(reason, message)


def body(spec: dict[str, Any], payload: Any) -> dict[str, Any]:
    """The spec of a job as the body of POST /jobs/create."""
    given = {ours: spec[name] for name, ours in NAMES.items() if spec.get(name) is not None}
    return given | {"payload": payload}


async def fetch(kube: Kube, namespace: str, spec: dict[str, Any]) -> Any:
    """The payload that a spec holds or names.

    Raises:
        InvalidInput: the payload that it holds is none that can be stored.
        NoPayload: what it names is not there, may not be read, or is no JSON.
        KubeUnavailable: Kubernetes does not answer.
    """
    source = spec.get("payloadFrom")
    if source is None:
        return storable(spec.get("payload"))
    secret = source.get("secretKeyRef")
    kind, what = (SECRETS, "Secret") if secret else (CONFIG_MAPS, "ConfigMap")
    wanted = secret or source.get("configMapKeyRef") or {}
    name, key = wanted.get("name", ""), wanted.get("key", "")
    try:
        found = await kube.find(kind, namespace, name)
    except KubeError as error:
        raise NoPayload("PayloadNotReadable", f"{what} {name}: {error.message}") from error
    if found is None:
        raise NoPayload("PayloadNotFound", f"there is no {what} {name}")
    if secret and (found["metadata"].get("labels") or {}).get(LABEL) != "true":
        raise NoPayload("PayloadNotAllowed", f'Secret {name} does not have the label {LABEL}: "true"')
    text = (found.get("data") or {}).get(key)
    if text is None:
        raise NoPayload("PayloadNotFound", f"{what} {name} has no key {key}")
    try:
        return decode(base64.b64decode(text) if secret else text)
    except (InvalidInput, ValueError):  # nothing of its content is told
        raise NoPayload("PayloadNotReadable", f"key {key} of {what} {name} is not JSON that can be stored") from None


def storable(payload: Any) -> Any:
    """A payload that came decoded, by the same rules as one that comes as text.

    Raises:
        InvalidInput: `invalid json: …`, `payload too large` or `payload was rounded`.
    """
    if (place := rounded(payload, "payload")) is not None:
        words = "a whole number from 2^63 on, which Kubernetes rounds; give it as a string, or take payloadFrom"
        raise InvalidInput("payload was rounded", {place: words})
    try:
        text = orjson.dumps(payload)
    except TypeError:  # nested so deeply that it cannot be written
        raise InvalidInput("invalid json: the payload cannot be written as JSON") from None
    if len(text) > MAX_PAYLOAD:
        raise InvalidInput(
            "payload too large", {"payload": f"at most {MAX_PAYLOAD} bytes of JSON; or take payloadFrom"}
        )
    return decode(text)
