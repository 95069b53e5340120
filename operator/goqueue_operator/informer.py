"""A local copy of the objects of one kind that have one label, kept by list and watch as client-go's informers do.

The protocol is that of https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes:
list page by page, watch from the list's resourceVersion with bookmarks, list again after 410 Gone.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

import aiohttp
import orjson
import structlog

from goqueue_operator.kube import PAGE, Kind, Kube, KubeError, KubeUnavailable, Object

SERVER_SECONDS: Final = 300
"""Seconds after which the API server ends one watch request; the next one goes on where it ended."""

SILENT_SECONDS: Final = 150.0
"""Seconds without data after which a connection counts as broken: bookmarks come about once a minute."""

PAUSE_SECONDS: Final = 0.1
"""Seconds between the end of one watch request and the next one."""

BACKOFF_SECONDS: Final = 30.0
"""Longest wait in seconds before the next try."""

Changed = Callable[[Object | None, Object | None], None]
"""Takes an object as it was known and as it is; None: it was or is not there."""

log = structlog.get_logger(__name__)


class _Expired(Exception):
    """The API server no longer has the changes since our resourceVersion."""


class Informer:
    """The objects of a kind with the label `label`. `namespace` None: everywhere. `trim`: what is kept of an object."""

    def __init__(
        self,
        kube: Kube,
        kind: Kind,
        namespace: str | None,
        label: str,
        trim: Callable[[Object], Object],
        changed: Changed,
    ) -> None:
        self._kube = kube
        self._kind = kind
        self._path = kind.path(namespace)
        self._label = label
        self._trim = trim
        self._changed = changed
        self._objects: dict[tuple[str, str], Object] = {}
        self._groups: dict[tuple[str, str], set[str]] = {}
        self.synced = asyncio.Event()
        """Set as soon as all objects have been listed once."""

    def get(self, namespace: str, name: str) -> Object | None:
        """One object."""
        return self._objects.get((namespace, name))

    def labelled(self, namespace: str, value: str) -> list[Object]:
        """The objects whose label has this value, by name."""
        names = self._groups.get((namespace, value), ())
        return [self._objects[namespace, name] for name in sorted(names)]

    def put(self, item: Object) -> None:
        """Take in an object as the API server answered a write of ours, before the watch shows it."""
        self._store(item, tell=False)

    async def run(self) -> None:
        """List and watch until cancelled."""
        session = self._kube.access.session(1)
        failures = 0
        try:
            while True:
                try:
                    version = await self._list()
                    self.synced.set()
                    failures = 0
                    await self._follow(session, version)
                except _Expired:
                    log.debug("watch expired, listing again", kind=self._kind.plural)
                except (KubeError, KubeUnavailable) as error:
                    failures += 1
                    log.warning("objects not watched", kind=self._kind.plural, error=str(error))
                    await asyncio.sleep(min(0.5 * 2**failures, BACKOFF_SECONDS))
        finally:
            await session.close()

    async def _list(self) -> str:
        """Read all objects; the resourceVersion from which a watch goes on."""
        query = {"limit": str(PAGE), "labelSelector": self._label}
        seen: set[tuple[str, str]] = set()
        while True:
            page = await self._kube.request("GET", self._path, flow=f"LIST {self._kind.plural}", **query)
            for item in page["items"] or ():
                seen.add(_place(item))
                self._store(item)
            mark = page["metadata"].get("continue")
            if not mark:
                break
            query["continue"] = mark
        for place in [place for place in self._objects if place not in seen]:
            self._remove(place)
        return str(page["metadata"]["resourceVersion"])

    async def _follow(self, session: aiohttp.ClientSession, version: str) -> None:
        """Watch, one request after the other.

        Raises:
            _Expired: the objects must be listed again.
            KubeError: the API server refuses the watch.
        """
        failures = 0
        while True:
            try:
                async with contextlib.aclosing(self._watch(session, version)) as events:
                    async for event in events:
                        failures = 0
                        version = self._take(event) or version
                await asyncio.sleep(PAUSE_SECONDS)
            except (aiohttp.ClientError, OSError, TimeoutError, KubeUnavailable) as error:
                failures += 1
                log.debug("watch broken", kind=self._kind.plural, error=type(error).__name__)
                await asyncio.sleep(min(0.25 * 2**failures, BACKOFF_SECONDS))

    async def _watch(self, session: aiohttp.ClientSession, version: str) -> AsyncGenerator[Any, None]:
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "labelSelector": self._label,
            "resourceVersion": version,
            "timeoutSeconds": str(SERVER_SECONDS),
        }
        access = self._kube.access
        async with session.get(
            access.server + self._path,
            params=query,
            headers=access.headers(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=SILENT_SECONDS),
        ) as answer:
            if answer.status == 410:
                raise _Expired
            if answer.status in (401, 408, 429) or answer.status >= 500:
                raise KubeUnavailable(f"kubernetes is unavailable: {answer.status}")
            if answer.status >= 400:
                raise KubeError(answer.status, str(answer.reason), "the watch is refused")
            rest = b""
            async for part in answer.content.iter_any():
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    if line:
                        yield orjson.loads(line)

    def _take(self, event: Any) -> str | None:
        """Apply one event; the resourceVersion that it brings."""
        item, kind = event["object"], event["type"]
        if kind == "ERROR":
            if item.get("code") == 410:
                raise _Expired
            raise KubeUnavailable(f"watch: {item.get('message')}")
        if kind == "DELETED":
            self._remove(_place(item))
        elif kind in ("ADDED", "MODIFIED"):
            self._store(item)
        version: str | None = item["metadata"].get("resourceVersion")
        return version

    def _store(self, item: Object, *, tell: bool = True) -> None:
        item = self._trim(item)
        place = _place(item)
        old = self._objects.get(place)
        if old is not None:
            if _is_older(item, old):
                return
            self._groups[place[0], self._value(old)].discard(place[1])
        self._objects[place] = item
        self._groups.setdefault((place[0], self._value(item)), set()).add(place[1])
        if tell:
            self._changed(old, item)

    def _remove(self, place: tuple[str, str]) -> None:
        old = self._objects.pop(place, None)
        if old is not None:
            names = self._groups[place[0], self._value(old)]
            names.discard(place[1])
            if not names:
                del self._groups[place[0], self._value(old)]
            self._changed(old, None)

    def _value(self, item: Object) -> str:
        return str((item["metadata"].get("labels") or {}).get(self._label, ""))


def _place(item: Object) -> tuple[str, str]:
    metadata = item["metadata"]
    return metadata["namespace"], metadata["name"]


def _is_older(item: Object, known: Object) -> bool:
    """Whether this is the state before a write whose answer is known already."""
    new, old = item["metadata"], known["metadata"]
    return bool(new.get("uid") == old.get("uid") and new.get("generation", 0) < old.get("generation", 0))
