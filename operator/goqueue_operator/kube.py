"""The Kubernetes API as the operator writes to it: a few verbs, and errors by kind. Watching is kopf's part."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson

from goqueue_operator.access import Access
from goqueue_operator.crds.schema import GROUP, VERSION

Object = dict[str, Any]
"""A Kubernetes object, as JSON has it."""

PAGE: Final = 500
"""Objects in one page of a list."""

_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, connect=10)
_PATIENCE: Final = 8
"""How often one request is sent where the server asks to come again later."""

_TOO_LARGE: Final = ("etcdserver: request is too large", "trying to send message larger than max")
"""What etcd (by default from 1.5 MiB on) and its client (from 2 MiB on) say of an object; the API server passes it on
as an internal error."""

_MERGE: Final = "application/merge-patch+json"
_STEPS: Final = "application/json-patch+json"
_METADATA: Final = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"


class KubeError(Exception):
    """The API server refused; `code` is its HTTP status."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code, self.reason, self.message = code, reason, message


class KubeUnavailable(Exception):
    """The API server did not answer, or wants to be left alone for now; try again later."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object, by where it is found."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str | None = None, name: str = "", sub: str = "") -> str:
        """The URL's path: of all, of a namespace's, of one, of a part of it."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{namespace}" if namespace else ""
        return "/".join(part for part in (f"{root}{place}/{self.plural}", name, sub) if part)


JOBS: Final = Kind(GROUP, VERSION, "goqueuejobs")
POOLS: Final = Kind(GROUP, VERSION, "goqueueworkerpools")
SCHEDULES: Final = Kind(GROUP, VERSION, "goqueueschedules")
DEPLOYMENTS: Final = Kind("apps", "v1", "deployments")
PODS: Final = Kind("", "v1", "pods")
SECRETS: Final = Kind("", "v1", "secrets")
CONFIG_MAPS: Final = Kind("", "v1", "configmaps")
EVENTS: Final = Kind("events.k8s.io", "v1", "events")
NAMESPACES: Final = Kind("", "v1", "namespaces")
LEASES: Final = Kind("coordination.k8s.io", "v1", "leases")


def _retry_after(headers: Mapping[str, str], attempt: int) -> float:
    """Seconds to wait before coming again."""
    with contextlib.suppress(KeyError, ValueError):
        return max(0.05, min(float(headers["Retry-After"]), 60.0))
    return float(min(0.1 * 2**attempt, 5.0))


class Kube:
    """A client. Every method raises KubeError where the server refuses and KubeUnavailable where it cannot answer.

    `requests`: how many go out at the same time. Where the server says 429 everybody waits as long as it asks for.
    """

    def __init__(self, access: Access, requests: int = 16) -> None:
        self.access = access
        self._session = access.session()
        self._free = asyncio.Semaphore(requests)
        self._quiet_until = 0.0
        self.throttled = 0
        """How often the server asked to come again later."""

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def request(
        self, method: str, path: str, body: Any = None, *, kind: str = "application/json", **query: str
    ) -> Any:
        """One request, sent again where the server asks for that; the decoded answer."""
        data = None if body is None else orjson.dumps(body)
        headers = {"Accept": query.pop("accept", "application/json")}
        if data is not None:
            headers["Content-Type"] = kind
        for attempt in range(_PATIENCE):
            await self._be_quiet()
            try:
                async with (
                    self._free,
                    self._session.request(
                        method,
                        self.access.server + path,
                        data=data,
                        params=query,
                        headers=headers | self.access.headers(),
                        timeout=_TIMEOUT,
                    ) as answer,
                ):
                    content = await answer.read()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise KubeUnavailable(f"kubernetes is unavailable: {type(error).__name__}") from error
            if answer.status == 429 or (answer.status == 503 and "Retry-After" in answer.headers):
                self.throttled += 1
                wait = _retry_after(answer.headers, attempt)
                self._quiet_until = max(self._quiet_until, asyncio.get_running_loop().time() + wait)
                continue
            return _decoded(answer.status, content)
        raise KubeUnavailable("kubernetes asks to come again later")

    async def _be_quiet(self) -> None:
        while (wait := self._quiet_until - asyncio.get_running_loop().time()) > 0:  # noqa: ASYNC110 - the wait may have grown
            await asyncio.sleep(wait)

    # --- verbs -------------------------------------------------------------------------------------------------------

    async def get(self, kind: Kind, namespace: str, name: str, sub: str = "") -> Object:
        """One object."""
        found: Object = await self.request("GET", kind.path(namespace, name, sub))
        return found

    async def find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """One object, or None where there is none."""
        try:
            return await self.get(kind, namespace, name)
        except KubeError as error:
            if error.code != 404:
                raise
            return None

    async def each(
        self, kind: Kind, namespace: str | None, *, labels: str = "", metadata_only: bool = False
    ) -> AsyncIterator[Object]:
        """All objects, page by page. A list that grew too old while it was read ends in KubeUnavailable."""
        query = {"limit": str(PAGE)}
        if labels:
            query["labelSelector"] = labels
        if metadata_only:
            query["accept"] = _METADATA
        while True:
            try:
                page = await self.request("GET", kind.path(namespace), **query)
            except KubeError as error:
                if error.code == 410:
                    raise KubeUnavailable("the list grew too old while it was read") from error
                raise
            for item in page["items"] or ():
                yield item
            mark = page["metadata"].get("continue")
            if not mark:
                return
            query["continue"] = mark

    async def create(self, kind: Kind, namespace: str, body: Object) -> Object:
        """Make one."""
        made: Object = await self.request("POST", kind.path(namespace), body)
        return made

    async def replace(self, kind: Kind, namespace: str, name: str, body: Object) -> Object:
        """Replace one, if nobody changed it meanwhile (`metadata.resourceVersion`)."""
        made: Object = await self.request("PUT", kind.path(namespace, name), body)
        return made

    async def patch(self, kind: Kind, namespace: str, name: str, body: Object, sub: str = "") -> Object:
        """A merge patch of one, or of its `status`."""
        made: Object = await self.request("PATCH", kind.path(namespace, name, sub), body, kind=_MERGE)
        return made

    async def edit(self, kind: Kind, namespace: str, name: str, steps: list[Object], sub: str = "") -> Object:
        """A JSON patch: replaces what it names as a whole, so that nothing of others remains in it.

        Raises:
            KubeError: refused; code 409 where the first step tests the uid and another object has the name now.
        """
        try:
            made: Object = await self.request("PATCH", kind.path(namespace, name, sub), steps, kind=_STEPS)
        except KubeError as error:
            # A failed test is a 422, as what a schema refuses, with words that say nothing.
            if error.code == 422 and (uid := _tested_uid(steps)) is not None:
                found = await self.find(kind, namespace, name)
                if found is None or found["metadata"]["uid"] != uid:
                    raise KubeError(409, "Conflict", f"another {kind.plural} object is called {name} now") from error
            raise
        return made

    async def put_status(self, kind: Kind, namespace: str, name: str, uid: str, status: Object) -> Object:
        """Replace the status of the object with this uid.

        A merge patch is no way to do it: the status subresource of a custom resource does not compare `metadata.uid`
        in one, a null in a value counts as a removal, and objects are mixed with what was there before.

        Raises:
            KubeError: refused; code 409 where another object has the name now, 413 where it is too large for etcd.
        """
        steps: list[Object] = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/status", "value": status},
        ]
        return await self.edit(kind, namespace, name, steps, "status")

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Delete one, if it is still the one with this uid; no error where it is gone."""
        try:
            await self.request("DELETE", kind.path(namespace, name), {"preconditions": {"uid": uid}})
        except KubeError as error:
            if error.code not in (404, 409):
                raise


def _tested_uid(steps: list[Object]) -> str | None:
    """The uid that the first step of a JSON patch tests."""
    first = steps[0] if steps else {}
    return first["value"] if (first.get("op"), first.get("path")) == ("test", "/metadata/uid") else None


def _decoded(status: int, content: bytes) -> Any:
    try:
        body = orjson.loads(content) if content else {}
    except orjson.JSONDecodeError:
        body = {}
    if status < 400:
        return body
    message = str(body.get("message") or content[:200].decode(errors="replace"))
    if status == 500 and any(words in message for words in _TOO_LARGE):
        raise KubeError(413, "RequestEntityTooLarge", message)
    if status >= 500 or status in (401, 408):  # an expired token is read anew from its file soon
        raise KubeUnavailable(f"kubernetes is unavailable: {status} {message}")
    raise KubeError(status, str(body.get("reason") or "Refused"), message)
