"""A span for each request, where the process makes spans."""

from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from goqueue import spans as shapes
from goqueue.spans import Spans
from goqueue_api.middleware import METHODS, trace_context

PROBES: Final = frozenset({"/", "/health", "/health/db"})
"""Paths that are asked every few seconds, and tell nobody anything."""


class Traced:
    """Around everything else, so that all lines of a request are within its span."""

    def __init__(self, app: ASGIApp, spans: Spans) -> None:
        self._app = app
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        answer: dict[str, Any] = {"status": 0, "headers": ()}

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.update(message)
            await send(message)

        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        with self._spans.serving(method, trace_context(scope), _attributes(scope, method)) as span:
            await self._app(scope, receive, noted)
            # The router has left its route in the scope, if there is one. The path itself may hold anything.
            route = getattr(scope.get("route"), "path", None)
            if route is not None:
                span.update_name(f"{method} {route}")
                span.set_attribute("http.route", route)
            for name, value in answer["headers"]:
                if name == b"x-request-id":
                    span.set_attribute("goqueue.request.id", value.decode())
            if answer["status"]:
                shapes.answered(span, answer["status"], least=500)


def _attributes(scope: Scope, method: str) -> dict[str, Any]:
    attributes = {
        "http.request.method": method,
        "url.scheme": scope.get("scheme", "http"),
        "network.protocol.version": scope.get("http_version", "1.1"),
    }
    if scope.get("server"):
        host, port = scope["server"]
        attributes |= {"server.address": host} | ({"server.port": port} if port else {})
    if scope.get("client"):
        attributes["client.address"] = scope["client"][0]
    return attributes
