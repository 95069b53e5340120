"""Routes that call their function straight away."""

from collections.abc import Awaitable, Callable
from typing import Final, cast

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

Endpoint = Callable[..., Awaitable[Response]]


class Direct(APIRoute):
    """Calls `endpoint(request, **path_params)` and sends the response that it returns.

    FastAPI still reads the signature for OpenAPI. What it would do at each request (dependencies, validation, exit
    stacks) takes longer than everything else about `POST /jobs/create`; so these routes cannot use `Depends`, and take
    their path parameters as text.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] not in (self.methods or ()):
            raise HTTPException(405)
        endpoint = cast(Endpoint, self.endpoint)
        response = await endpoint(Request(scope, receive, send), **scope["path_params"])
        await response(scope, receive, send)


def methods(route: APIRoute) -> frozenset[str]:
    """The methods that a route answers."""
    return frozenset(route.methods or ())


class Methods:
    """Which methods a path has, for the `Allow` header of a 405: one path has several routes."""

    def __init__(self, routes: list[APIRoute]) -> None:
        self._routes: Final = [(route.path_regex, methods(route)) for route in routes]

    def of(self, path: str) -> str:
        """The methods, sorted and separated by commas."""
        found = (methods for regex, methods in self._routes if regex.match(path))
        return ", ".join(sorted(frozenset().union(*found)))
