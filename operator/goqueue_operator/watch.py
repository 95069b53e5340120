"""Watching, by kopf: lists, watches and their renewal. Only events; nothing of kopf's is written to any object.

No finalizer, no annotation, no index and no timer per object: with thousands of GoQueueJobs each of those costs writes
or seconds. What an event means is decided elsewhere; a handler only hands it on and cannot fail.

kopf reads a whole list before its watch, and holds each object of it in a task for a while: with thousands of payloads
more memory than a pod has (docs/decisions/0021-memory.md). Of a kind that somebody else lists, it gets an empty list
with the version from which it watches.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
import kopf
import structlog

from goqueue.tasks import wait_at_most
from goqueue_operator.access import Access
from goqueue_operator.kube import PAGE, Kind

Heard = Callable[[str | None, dict[str, Any]], None]
"""Takes an event's kind (`ADDED`, `MODIFIED`, `DELETED`; None: it was there already) and its object."""

Listed = Callable[[], None]
"""Called when the watch of a kind begins anew: what happened before is to be listed by whoever takes this call."""

CONNECTIONS: Final = 20

NOTHING: Final = "metadata.name=-"
"""Field selector of no object: no name begins with a hyphen."""

STOP_SECONDS: Final = 3.0
"""Longest wait for kopf to stop."""

log = structlog.get_logger(__name__)


def _lists(request: aiohttp.ClientRequest, kind: Kind) -> bool:
    """Whether a request is for a list of this kind, in a namespace or everywhere."""
    url = request.url
    root, _, plural = url.path.rpartition("/")
    return (
        request.method == "GET"
        and plural == kind.plural
        and kind.path().rpartition("/")[0] in root
        and "watch" not in url.query
    )


def _only_the_version(
    kind: Kind, listed: Listed, loop: asyncio.AbstractEventLoop
) -> Callable[[aiohttp.ClientRequest, aiohttp.ClientHandlerType], Awaitable[aiohttp.ClientResponse]]:
    """A middleware that makes lists of the kind empty; `listed` is called in `loop` once one was read."""

    async def middleware(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        if not _lists(request, kind):
            return await handler(request)
        request.url = request.url.update_query(fieldSelector=NOTHING)
        answer = await handler(request)
        if answer.status == 200:
            with contextlib.suppress(RuntimeError):  # the loop is closed: we are ending
                loop.call_soon_threadsafe(listed)
        return answer

    return middleware


def _session(access: Access, listed: Mapping[Kind, Listed], loop: asyncio.AbstractEventLoop) -> aiohttp.ClientSession:
    """A session whose every request says who we are at that time: tokens of pods are renewed."""

    async def sign(_: aiohttp.ClientSession, __: SimpleNamespace, params: aiohttp.TraceRequestStartParams) -> None:
        params.headers.update(access.headers())

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(sign)
    session = access.session(CONNECTIONS, [_only_the_version(kind, call, loop) for kind, call in listed.items()])
    session.trace_configs.append(trace)
    trace.freeze()
    return session


class _NoDiffBase(kopf.DiffBaseStorage):
    """Compares no object with what it was before: kopf copies each one for that, and fails at one nested deeply."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        pass


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.peering.standalone = True
    settings.scanning.disabled = True  # neither CRDs nor namespaces need to be watched, so nobody must allow it
    settings.process.ultimate_exiting_timeout = None
    settings.watching.server_timeout = 300
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = PAGE
    settings.queueing.idle_timeout = 0.05  # a task holds its object for so long after its event
    settings.networking.request_timeout = 60
    settings.execution.max_workers = 1  # all handlers are coroutines
    return settings


async def watch(
    access: Access, namespace: str | None, kinds: Mapping[Kind, Heard], listed: Mapping[Kind, Listed]
) -> None:
    """Hand on what happens to objects of these kinds, until cancelled. `namespace` None: everywhere.

    Of the kinds in `listed` only what happens from now on; each call there says from when.

    kopf lives in a thread and an event loop of its own: in the main thread it would take over SIGTERM.

    Raises:
        RuntimeError: kopf has stopped by itself.
    """
    logging.getLogger("kopf").setLevel(logging.ERROR)  # it warns that it leaves our signals alone
    loop = asyncio.get_running_loop()
    stop, ended = threading.Event(), asyncio.Event()

    def watching() -> None:
        try:
            asyncio.run(_watch(access, namespace, kinds, listed, loop, stop))
        except Exception as error:
            log.error("watching has failed", exc_info=error)
        finally:
            with contextlib.suppress(RuntimeError):  # our own loop is closed already
                loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=watching, name="watch", daemon=True).start()
    try:
        await ended.wait()
        raise RuntimeError("watching has ended by itself")
    finally:
        stop.set()
        await wait_at_most(ended, STOP_SECONDS)


async def _watch(
    access: Access,
    namespace: str | None,
    kinds: Mapping[Kind, Heard],
    listed: Mapping[Kind, Listed],
    loop: asyncio.AbstractEventLoop,
    stop: threading.Event,
) -> None:
    registry = kopf.OperatorRegistry()
    session = _session(access, listed, loop)

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=access.server, aiohttp_session=session)

    for kind, heard in kinds.items():
        kopf.on.event(kind.group, kind.version, kind.plural, registry=registry)(_handler(heard, loop))
    try:
        await kopf.operator(
            registry=registry,
            settings=_settings(),
            standalone=True,
            clusterwide=namespace is None,
            namespaces=[namespace] if namespace else [],
            stop_flag=stop,
        )
    finally:
        await session.close()
        await asyncio.sleep(0.1)  # TLS says goodbye in its own time, and the loop ends now


def _handler(heard: Heard, loop: asyncio.AbstractEventLoop) -> Any:
    async def on_event(event: Any, **_: Any) -> None:
        event["object"].get("metadata", {}).pop("managedFields", None)
        loop.call_soon_threadsafe(heard, event["type"], event["object"])

    return on_event
