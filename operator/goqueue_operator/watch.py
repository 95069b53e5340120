"""Watching, by kopf: lists, watches and their renewal. Only events; nothing of kopf's is written to any object.

No finalizer, no annotation, no index and no timer per object: with thousands of GoQueueJobs each of those costs writes
or seconds. What an event means is decided elsewhere; a handler only hands it on and cannot fail.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
import kopf

from goqueue_operator.access import Access
from goqueue_operator.kube import Kind

Heard = Callable[[str | None, dict[str, Any]], None]
"""Takes an event's kind (`ADDED`, `MODIFIED`, `DELETED`; None: it was there already) and its object."""

CONNECTIONS: Final = 20


def _session(access: Access) -> aiohttp.ClientSession:
    """A session whose every request says who we are at that time: tokens of pods are renewed."""

    async def sign(_: aiohttp.ClientSession, __: SimpleNamespace, params: aiohttp.TraceRequestStartParams) -> None:
        params.headers.update(access.headers())

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(sign)
    session = access.session(CONNECTIONS)
    session.trace_configs.append(trace)
    trace.freeze()
    return session


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True  # neither CRDs nor namespaces need to be watched, so nobody must allow it
    settings.process.ultimate_exiting_timeout = None
    settings.watching.server_timeout = 300
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 60
    settings.execution.max_workers = 1  # all handlers are coroutines
    return settings


async def watch(access: Access, namespace: str | None, kinds: Mapping[Kind, Heard], ready: asyncio.Event) -> None:
    """Hand on what happens to objects of these kinds, until cancelled. `namespace` None: everywhere.

    Raises:
        Exception: kopf has stopped by itself.
    """
    logging.getLogger("kopf").setLevel(logging.WARNING)
    registry = kopf.OperatorRegistry()
    session = _session(access)

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=access.server, aiohttp_session=session)

    for kind, heard in kinds.items():
        kopf.on.event(kind.group, kind.version, kind.plural, registry=registry)(_handler(heard))
    try:
        await kopf.operator(
            registry=registry,
            settings=_settings(),
            standalone=True,
            clusterwide=namespace is None,
            namespaces=[namespace] if namespace else [],
            ready_flag=ready,
        )
        raise RuntimeError("watching has ended by itself")
    finally:
        await session.close()


def _handler(heard: Heard) -> Any:
    async def on_event(event: Any, **_: Any) -> None:
        heard(event["type"], event["object"])

    return on_event
