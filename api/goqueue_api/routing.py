"""Routes that ask who calls, and then call their function straight away."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, cast
from urllib.parse import parse_qsl

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from goqueue.errors import InvalidInput
from goqueue_api.access import Gate, decision_of

Endpoint = Callable[..., Awaitable[Response]]


class Guarded(APIRoute):
    """Lets in whom the decision of its function (see `goqueue_api.access`) lets in, before it reads anything else."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **more: Any) -> None:
        """Raises Undecided where the function says not what it asks of its callers."""
        self.decision = decision_of(endpoint)
        super().__init__(path, endpoint, **more)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises:
            InvalidInput: a query parameter is given more than once: FastAPI would take the last one in silence.
        """
        await self.admit(scope)
        if b"&" in scope["query_string"]:
            refuse_repeated(scope["query_string"])
        await super().handle(scope, receive, send)

    async def admit(self, scope: Scope) -> None:
        """Put the caller into the scope.

        Raises:
            Unauthenticated: nobody knows who it is.
            Forbidden: it may not do this.
        """
        if scope["method"] not in (self.methods or ()):
            raise HTTPException(405)
        gate: Gate = scope["app"].state.context.gate
        scope["goqueue.caller"] = await gate.admit(scope, self.decision)


def refuse_repeated(query: bytes) -> None:
    """See that no query parameter is given twice.

    Raises:
        InvalidInput: one is.
    """
    seen: set[str] = set()
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name in seen:
            raise InvalidInput("validation failed", {name: "given more than once"})
        seen.add(name)


class Direct(Guarded):
    """Calls `endpoint(request, **path_params)` and sends the response that it returns.

    FastAPI still reads the signature for OpenAPI. What it would do at each request (dependencies, validation, exit
    stacks) takes longer than everything else about `POST /jobs/create`; so these routes cannot use `Depends`, and take
    their path parameters as text.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self.admit(scope)
        endpoint = cast(Endpoint, self.endpoint)
        response = await endpoint(Request(scope, receive, send), **scope["path_params"])
        await response(scope, receive, send)


def methods(route: APIRoute) -> frozenset[str]:
    """The methods that a route answers."""
    return frozenset(route.methods or ())


def all_routes(app: FastAPI) -> list[BaseRoute]:
    """The routes of an app, those of its routers included."""
    return [found.original_route for found in iter_route_contexts(app.routes)]


class Methods:
    """Which methods a path has, for the `Allow` header of a 405: one path has several routes."""

    def __init__(self, routes: list[APIRoute]) -> None:
        self._routes: Final = [(route.path_regex, methods(route)) for route in routes]

    def of(self, path: str) -> str:
        """The methods, sorted and separated by commas; HEAD wherever there is GET."""
        found: frozenset[str] = frozenset().union(*(methods for regex, methods in self._routes if regex.match(path)))
        return ", ".join(sorted(found | {"HEAD"} if "GET" in found else found))
