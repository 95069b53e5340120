"""The OpenAPI document: what FastAPI cannot read off the routes, because they read their requests by hand."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute

from goqueue.job import MAX_ID
from goqueue.orders import Order
from goqueue_api import jobs
from goqueue_api.plans import SchedulePut

BODIES: Final = (Order, jobs.StatusChange, jobs.Outcome, SchedulePut)
"""Bodies that routes read by hand."""

PATH_PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "id": {"type": "integer", "format": "int64", "minimum": 1, "maximum": MAX_ID},
}

_REQUEST_ID: Final = {
    "description": "The request's own `X-Request-ID`, if it had a decent one, or a new one.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
}


def operation_id(route: APIRoute) -> str:
    """A name for clients made from the document: `jobs_create`."""
    return f"{route.tags[0]}_{route.name}"


def install(app: FastAPI) -> None:
    """Let the app complete the document that FastAPI makes."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(generate())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for model in BODIES:
        found = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(found.pop("$defs", {}))
        schemas[model.__name__] = found
    components["headers"] = {"RequestId": _REQUEST_ID}
    for path in document["paths"].values():
        for operation in path.values():
            _complete_operation(operation)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document


def _complete_operation(operation: dict[str, Any]) -> None:
    operation["responses"].pop("422", None)  # FastAPI's own answer to wrong parameters; ours is 400 in the one shape
    for response in operation["responses"].values():
        response.setdefault("headers", {})["X-Request-ID"] = {"$ref": "#/components/headers/RequestId"}
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path" and parameter["name"] in PATH_PARAMETERS:
            parameter["schema"] = PATH_PARAMETERS[parameter["name"]]
