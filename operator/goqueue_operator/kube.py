"""The Kubernetes API as the operator writes to it: a few verbs, and errors by kind. Watching is kopf's part."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson

from goqueue_operator.access import Access
from goqueue_operator.crds.schema import GROUP, VERSION

Object = dict[str, Any]
"""A Kubernetes object, as JSON has it."""

PAGE: Final = 500
"""Most objects in one page of a list."""
FIRST_PAGE: Final = 25
"""Objects in the first page of a list, when their size is not known yet."""
PAGE_BYTES: Final = 2 * 2**20
"""Size of a page of JSON; decoded it takes several times as much memory."""
SLOW_PAGE: Final = 5.0
"""Seconds after which a page counts as slow, and the next one has fewer objects.

Metadata of large objects is little to send but much for the API server to read.
"""
MAX_PAGE_BYTES: Final = 8 * 2**20
"""Size at which a page is given up and asked for again with fewer objects."""

UNREADABLE: Final = "Unreadable"
"""Reason of the KubeError for an answer that is not JSON that can be read."""

_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, connect=10)
_ATTEMPTS: Final = 8
"""How often one request is sent where the server asks to come again later."""

_TOO_LARGE: Final = ("etcdserver: request is too large", "trying to send message larger than max")
"""What etcd (by default from 1.5 MiB on) and its client (from 2 MiB on) say of an object; the API server passes it on
as an internal error."""

_MERGE: Final = "application/merge-patch+json"
_STEPS: Final = "application/json-patch+json"
_METADATA: Final = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"


_WARNINGS: ContextVar[list[str] | None] = ContextVar("warnings", default=None)


@contextlib.contextmanager
def warnings() -> Iterator[list[str]]:
    """Gather what the API server warns of in its answers to this task, while the block lasts (RFC 7234, 5.5)."""
    heard: list[str] = []
    token = _WARNINGS.set(heard)
    try:
        yield heard
    finally:
        _WARNINGS.reset(token)


class KubeError(Exception):
    """The API server refused; `code` is its HTTP status."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code, self.reason, self.message = code, reason, message


class KubeUnavailable(Exception):
    """The API server did not answer, or wants to be left alone for now; try again later."""


class _TooLarge(Exception):
    """The answer is larger than the caller takes."""


class KubeSlow(KubeUnavailable):
    """The API server did not answer in time."""


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


def _hear(headers: Iterable[str]) -> None:
    if (heard := _WARNINGS.get()) is not None:
        for header in headers:  # 299 - "unknown field \"spec.x\""
            text = header.split(" ", 2)[-1][1:-1].replace('\\"', '"')
            if text not in heard:
                heard.append(text)


def _retry_after(headers: Mapping[str, str], attempt: int) -> float:
    """Seconds to wait before coming again."""
    with contextlib.suppress(KeyError, ValueError):
        return max(0.05, min(float(headers["Retry-After"]), 60.0))
    return float(min(0.1 * 2**attempt, 5.0))


class _Flow:
    """Requests of one verb to one kind: they share a limit, and wait together where the server asks one to wait.

    Not those of other flows: the API server limits by user and resource as well (API priority and fairness), and a
    status that may wait must not hold back a scaling decision.
    """

    def __init__(self, requests: int) -> None:
        self.free = asyncio.Semaphore(requests)
        self.quiet_until = 0.0

    async def wait(self) -> None:
        """Wait until the server wants to see this flow again."""
        while (wait := self.quiet_until - asyncio.get_running_loop().time()) > 0:  # noqa: ASYNC110 - the wait may have grown
            await asyncio.sleep(wait)


class Kube:
    """A client. Every method raises KubeError where the server refuses and KubeUnavailable where it cannot answer.

    `requests`: how many of one verb and kind go out at the same time. Where the server answers 429, all of that verb
    and kind wait as long as it asks for. `attempts`: how often one request is sent then; with 1 nothing waits here,
    the caller tries again in its own time.
    """

    def __init__(self, access: Access, requests: int = 16, attempts: int = _ATTEMPTS) -> None:
        self.access = access
        self._session = access.session(connections=0)  # each flow has its own limit
        self._requests, self._attempts = requests, attempts
        self._flows: dict[str, _Flow] = {}
        self._limits: dict[tuple[Kind, bool], int] = {}
        """Objects in the next page, by kind, of whole ones (False) or of their metadata."""
        self.throttled = 0
        """How often the server asked to come again later."""

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        kind: str = "application/json",
        flow: str = "",
        **query: str,
    ) -> Any:
        """One request, sent again where the server asks for that; the decoded answer.

        `flow`: names the requests with which it shares a limit; by default all of this verb that name none.
        """
        return _decoded(*await self._send(method, path, body, kind, flow or method, query))

    async def _send(
        self, method: str, path: str, body: Any, kind: str, flow_name: str, query: dict[str, str], most: int = 0
    ) -> tuple[int, bytes]:
        """Status and content of the answer.

        Raises:
            _TooLarge: the content has more than `most` bytes (0: no limit); the rest of it was not read.
        """
        flow = self._flows.get(flow_name) or self._flows.setdefault(flow_name, _Flow(self._requests))
        data = None if body is None else orjson.dumps(body)
        headers = {"Accept": query.pop("accept", "application/json")}
        if data is not None:
            headers["Content-Type"] = kind
        for attempt in range(self._attempts):
            await flow.wait()
            try:
                async with (
                    flow.free,
                    self._session.request(
                        method,
                        self.access.server + path,
                        data=data,
                        params=query,
                        headers=headers | self.access.headers(),
                        timeout=_TIMEOUT,
                    ) as answer,
                ):
                    content = await _content(answer, most)
                    _hear(answer.headers.getall("Warning", ()))
            except TimeoutError as error:
                raise KubeSlow("kubernetes is unavailable: it did not answer in time") from error
            except (aiohttp.ClientError, OSError) as error:
                raise KubeUnavailable(f"kubernetes is unavailable: {type(error).__name__}") from error
            if answer.status == 429 or (answer.status == 503 and "Retry-After" in answer.headers):
                self.throttled += 1
                wait = _retry_after(answer.headers, attempt)
                if self._attempts > 1:
                    flow.quiet_until = max(flow.quiet_until, asyncio.get_running_loop().time() + wait)
                continue
            return answer.status, content
        raise KubeUnavailable("kubernetes asks to come again later")

    # --- verbs -------------------------------------------------------------------------------------------------------

    async def get(self, kind: Kind, namespace: str, name: str, sub: str = "") -> Object:
        """One object."""
        found: Object = await self.request("GET", kind.path(namespace, name, sub), flow=f"GET {kind.plural}")
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
        """All objects, page by page, without `managedFields`; pages have some PAGE_BYTES, whatever an object's size.

        A list that takes longer than the API server keeps its version (five minutes) goes on with the state of then.
        An object whose JSON is nested too deeply to be read comes with its metadata only.

        Raises:
            KubeUnavailable: the list grew too old while it was read.
        """
        query = {"accept": _METADATA} if metadata_only else {}
        if labels:
            query["labelSelector"] = labels
        limit = self._limits.get((kind, metadata_only), FIRST_PAGE)
        while True:
            page, limit = await self._page(kind, namespace, query, limit)
            self._limits[kind, metadata_only] = limit
            items = (page["items"] or [])[::-1]
            mark = page["metadata"].get("continue")
            del page  # each object can go when it was handled
            while items:
                item = items.pop()
                item.get("metadata", {}).pop("managedFields", None)
                yield item
            if not mark:
                return
            query["continue"] = mark

    async def _page(
        self, kind: Kind, namespace: str | None, query: dict[str, str], limit: int
    ) -> tuple[dict[str, Any], int]:
        """One page of at most `limit` objects, and the limit for the next one."""
        path, flow = kind.path(namespace), f"LIST {kind.plural}"
        while True:
            began = asyncio.get_running_loop().time()
            try:
                most = MAX_PAGE_BYTES if limit > 1 else 0
                asked = query | {"limit": str(limit)}
                code, content = await self._send("GET", path, None, "", flow, asked, most)
                if code == 410 and (mark := _new_mark(content)) and mark != query.get("continue"):
                    query = query | {"continue": mark}
                    continue
                page = _decoded(code, content)
            except _TooLarge:  # larger objects than those before
                limit = max(1, limit // 8)
                continue
            except KubeSlow:
                if limit <= FIRST_PAGE:
                    raise
                limit = max(FIRST_PAGE, limit // 4)
                continue
            except KubeError as error:
                if error.code == 410:
                    raise KubeUnavailable("the list grew too old while it was read") from error
                if error.reason != UNREADABLE or "accept" in query:
                    raise
                if limit == 1:  # this one is for whoever needs it
                    query = query | {"accept": _METADATA}
                limit = 1
                continue
            if asyncio.get_running_loop().time() - began > SLOW_PAGE:
                return page, max(1, limit // 2)
            fitting = PAGE_BYTES * len(page["items"] or ()) // max(len(content), 1)
            return page, max(1, min(PAGE, fitting or limit, 4 * limit))

    async def create(self, kind: Kind, namespace: str, body: Object) -> Object:
        """Make one."""
        made: Object = await self.request("POST", kind.path(namespace), body, flow=f"POST {kind.plural}")
        return made

    async def replace(self, kind: Kind, namespace: str, name: str, body: Object) -> Object:
        """Replace one, if nobody changed it meanwhile (`metadata.resourceVersion`)."""
        made: Object = await self.request("PUT", kind.path(namespace, name), body, flow=f"PUT {kind.plural}")
        return made

    async def patch(self, kind: Kind, namespace: str, name: str, body: Object, sub: str = "") -> Object:
        """A merge patch of one, or of its `status`."""
        path, flow = kind.path(namespace, name, sub), f"PATCH {kind.plural}/{sub}"
        made: Object = await self.request("PATCH", path, body, kind=_MERGE, flow=flow)
        return made

    async def edit(self, kind: Kind, namespace: str, name: str, steps: list[Object], sub: str = "") -> Object:
        """A JSON patch: replaces what it names as a whole, so that nothing of others remains in it.

        Raises:
            KubeError: refused; code 409 where the first step tests the uid and another object has the name now.
        """
        path, flow = kind.path(namespace, name, sub), f"PATCH {kind.plural}/{sub}"
        try:
            made: Object = await self.request("PATCH", path, steps, kind=_STEPS, flow=flow)
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
            path, flow = kind.path(namespace, name), f"DELETE {kind.plural}"
            await self.request("DELETE", path, {"preconditions": {"uid": uid}}, flow=flow)
        except KubeError as error:
            if error.code not in (404, 409):
                raise


def _tested_uid(steps: list[Object]) -> str | None:
    """The uid that the first step of a JSON patch tests."""
    first = steps[0] if steps else {}
    return first["value"] if (first.get("op"), first.get("path")) == ("test", "/metadata/uid") else None


async def _content(answer: aiohttp.ClientResponse, most: int) -> bytes:
    if not most:
        return await answer.read()
    parts, size = [], 0
    async for part in answer.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > most:
            raise _TooLarge
    return b"".join(parts)


def _new_mark(content: bytes) -> str:
    """Where to go on, by what the API server says when the version of a list is not stored any more.

    The rest of the list is of now: what was there all the time is in one part or the other.
    """
    with contextlib.suppress(ValueError, AttributeError):
        return str((_parsed(content).get("metadata") or {}).get("continue") or "")
    return ""


def _parsed(content: bytes) -> Any:
    """The JSON of an answer.

    Raises:
        ValueError: it is none, or is nested more deeply than can be read.
    """
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(content)  # reads ten times as deep as orjson
    except RecursionError as error:
        raise ValueError(str(error)) from None


def _decoded(status: int, content: bytes) -> Any:
    try:
        body = _parsed(content) if content else {}
    except ValueError as error:
        if status < 400:
            raise KubeError(status, UNREADABLE, "the object is not JSON that can be read") from error
        body = {}
    if status < 400:
        return body
    message = str(body.get("message") or content[:200].decode(errors="replace"))
    if status == 500 and any(words in message for words in _TOO_LARGE):
        raise KubeError(413, "RequestEntityTooLarge", message)
    if status >= 500 or status in (401, 408):  # an expired token is read anew from its file soon
        raise KubeUnavailable(f"kubernetes is unavailable: {status} {message}")
    raise KubeError(status, str(body.get("reason") or "Refused"), message)
