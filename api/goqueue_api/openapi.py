"""The OpenAPI document: what FastAPI cannot read off the routes, because they read their requests by hand."""

from collections.abc import Iterator
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute

from goqueue.job import MAX_ID
from goqueue.key_management import NewKey, Rotation
from goqueue.orders import Order
from goqueue_api import jobs
from goqueue_api.errors import documented
from goqueue_api.plans import SchedulePut
from goqueue_api.routing import Guarded, all_routes, methods

BODIES: Final = (Order, jobs.StatusChange, jobs.Outcome, SchedulePut, NewKey, Rotation)
"""Bodies that routes read by hand."""

PATH_PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "id": {"type": "integer", "format": "int64", "minimum": 1, "maximum": MAX_ID},
}

REQUIRED_QUERY: Final = {("/jobs", "get"): ("queue",)}
"""Query parameters that a route checks by itself, since their absence has an error message of its own."""

DESCRIPTION: Final = """\
A job has a type, a payload and a queue. Workers run it, retry it when it fails, and keep its result or error.

1. `GET /types` lists the job types, each with its own queue and the JSON Schema of its payload.
2. `POST /jobs/create` creates a job and answers with its `id`.
3. `GET /jobs/{id}` shows its status; `GET /jobs/{id}/attempts` shows each attempt's error and the log lines.

Every error has the form `{"error": "one line", "fields": {…}}`; `fields` names what is wrong with the request.

Requests carry an API key as `Authorization: Bearer gq_…`, unless the API is open (`GOQUEUE_API_AUTH`). Each operation
names the scope that it needs. Times are RFC 3339 in UTC, durations are seconds.
"""

ANSWERS_422: Final = ("jobs_create",)
"""Operations with a 422 of ours."""

_REQUEST_ID: Final = {
    "description": "The request's own `X-Request-ID`, if it had a decent one, or a new one.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
}

SECURITY: Final = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key: `gq_<prefix>_<secret>`, made by `goqueue keys create` or `POST /admin/keys`.",
    }
}


def operation_id(route: APIRoute) -> str:
    """A name for clients made from the document: `jobs_create`."""
    return f"{route.tags[0]}_{route.name}"


def install(app: FastAPI) -> None:
    """Let the app complete the document that FastAPI makes."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(generate(), list(_guarded(app)))
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _guarded(app: FastAPI) -> Iterator[Guarded]:
    return (route for route in all_routes(app) if isinstance(route, Guarded) and route.include_in_schema)


def _complete(document: dict[str, Any], routes: list[Guarded]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for model in BODIES:
        found = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(found.pop("$defs", {}))
        schemas[model.__name__] = found
    components["headers"] = {"RequestId": _REQUEST_ID}
    components["securitySchemes"] = SECURITY
    for route in routes:
        for method in methods(route):
            _say_who_may(document["paths"][route.path_format][method.lower()], route)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _complete_operation(operation, REQUIRED_QUERY.get((path, method), ()))
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document


def _say_who_may(operation: dict[str, Any], route: Guarded) -> None:
    scope = route.decision.scope
    if scope is None:
        operation["security"] = []
        return
    operation["security"] = [{"bearer": [scope.value]}]
    operation["description"] = f"{operation.get('description', '')}\n\nNeeds the scope `{scope.value}`.".strip()
    for status in (401, 403, 429):
        error = documented(status)[status]
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        operation["responses"][str(status)] = {"description": error["description"], "content": content}


def _complete_operation(operation: dict[str, Any], required: tuple[str, ...]) -> None:
    if operation["operationId"] not in ANSWERS_422:
        operation["responses"].pop("422", None)  # FastAPI's own answer to wrong parameters; ours is 400
    for response in operation["responses"].values():
        response.setdefault("headers", {})["X-Request-ID"] = {"$ref": "#/components/headers/RequestId"}
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path" and parameter["name"] in PATH_PARAMETERS:
            parameter["schema"] = PATH_PARAMETERS[parameter["name"]]
        if parameter["in"] == "query" and parameter["name"] in required:
            parameter["required"] = True
            parameter["schema"].pop("default", None)
