"""Every error leaves in the one shape `{"error": …, "fields": {…}}`, whatever raised it."""

from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from goqueue.errors import (
    BrokerUnavailable,
    Conflict,
    Forbidden,
    GoQueueError,
    InvalidInput,
    KeyReused,
    NotFound,
    StaleSchema,
    StoreRefused,
    StoreTimeout,
    StoreUnavailable,
    UnfitDatabase,
)
from goqueue_api.access import Unauthenticated
from goqueue_api.bodies import BodyTooLarge, UnknownEncoding, json_response
from goqueue_api.memory import Overloaded
from goqueue_api.routing import Methods
from goqueue_api.throttle import TooManyRequests

log = structlog.get_logger(__name__)

STATUS: Final[dict[type[GoQueueError], int]] = {
    InvalidInput: 400,
    StoreRefused: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    StoreTimeout: 408,
    Conflict: 409,
    BodyTooLarge: 413,
    UnknownEncoding: 415,
    KeyReused: 422,
    TooManyRequests: 429,
    StoreUnavailable: 503,
    BrokerUnavailable: 503,
    Overloaded: 503,
    StaleSchema: 503,
    UnfitDatabase: 503,
}


class Error(BaseModel):
    """The one error shape. `fields` is there only where there is something to name."""

    error: str
    fields: dict[str, Any] | None = None


_MEANING: Final = {
    400: "The request is wrong; nothing was changed.",
    401: "The credentials are missing or not good.",
    403: "The caller may not do this.",
    404: "There is no such thing, or not for this caller.",
    408: "The request took too long; whether it took effect is unknown.",
    409: "The state forbids the change.",
    413: "The body is too large.",
    415: "The body is compressed.",
    422: "The `Idempotency-Key` came with another request before; nothing was changed.",
    429: "The caller, or its address, sent too many requests, or too many jobs of its tenant wait: see `Retry-After`.",
    500: "The server failed.",
    503: "PostgreSQL cannot be reached, or large requests use all the memory for them: see `Retry-After`.",
}


_HEADERS: Final = {401: {"WWW-Authenticate": "Bearer"}, 415: {"Accept-Encoding": "identity"}}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route, for OpenAPI; every route can also time out and lose its database, and one that
    reads a body (413) refuses compressed ones."""
    always = {408, 500, 503} | ({415} if 413 in statuses else set())
    return {status: {"model": Error, "description": _MEANING[status]} for status in sorted({*statuses, *always})}


def status_of(error: GoQueueError) -> int:
    """The status of the nearest class that has one."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def error_response(status: int, error: GoQueueError) -> Response:
    """An error as a response."""
    return json_response(error.as_dict(), status, _HEADERS.get(status))


def install(app: FastAPI, methods: Methods) -> None:
    """Map exceptions to responses. What nobody expected is answered by `middleware.Boundary`."""

    async def ours(_: Request, error: Exception) -> Response:
        assert isinstance(error, GoQueueError)  # noqa: S101 - registered for it alone
        response = error_response(status_of(error), error)
        if isinstance(error, UnfitDatabase):
            log.error(error.message)
        if isinstance(error, TooManyRequests | Overloaded):
            response.headers["Retry-After"] = str(error.wait)
        return response

    async def parameters(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it alone
        fields = {".".join(str(part) for part in item["loc"][1:]): item["msg"] for item in error.errors()}
        return json_response({"error": "validation failed", "fields": fields}, 400)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for it alone
        headers = dict(error.headers or {})
        if error.status_code == 405:
            # Routes that are not ours, as the one of the OpenAPI document, tell their methods in no order.
            headers["Allow"] = methods.of(request.scope["path"]) or ", ".join(sorted(headers["Allow"].split(", ")))
        return json_response({"error": str(error.detail).lower()}, error.status_code, headers)

    app.add_exception_handler(GoQueueError, ours)
    app.add_exception_handler(RequestValidationError, parameters)
    app.add_exception_handler(HTTPException, http)
