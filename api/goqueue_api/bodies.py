"""Bodies in and out: read within a limit, decoded strictly, written by orjson."""

from collections.abc import Mapping
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from goqueue.errors import GoQueueError, InvalidInput
from goqueue.jsontext import decode
from goqueue.registry import field_errors

Model = TypeVar("Model", bound=BaseModel)


class BodyTooLarge(GoQueueError):
    """The request's body is over the limit (HTTP 413)."""


class UnknownEncoding(GoQueueError):
    """The request's body is compressed (HTTP 415)."""

    def __init__(self) -> None:
        super().__init__("unsupported content encoding", {"Content-Encoding": "must be absent or identity"})


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response; times are written in UTC with a `Z`."""
    body = orjson.dumps(content, option=orjson.OPT_UTC_Z)
    return Response(body, status, headers, media_type="application/json")


async def read_json(request: Request) -> Any:
    """The decoded body.

    Raises:
        InvalidInput: `invalid json: …`.
        BodyTooLarge: over the limit.
    """
    return decode(await request.body())


async def read(request: Request, model: type[Model]) -> Model:
    """The body as `model`.

    Raises:
        InvalidInput: `invalid json: …`, or `validation failed` with fields.
        BodyTooLarge: over the limit.
    """
    raw = await read_json(request)
    if not isinstance(raw, dict):
        raise InvalidInput("validation failed", {"body": "must be a JSON object"})
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise InvalidInput("validation failed", field_errors(error)) from None


def body_of(
    *models: type[BaseModel],
    media_type: str = "application/json",
    array: bool = False,
    examples: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """`openapi_extra` for a body that is read by hand; each model must stand in `openapi.BODIES`."""
    schemas = [{"$ref": f"#/components/schemas/{model.__name__}"} for model in models]
    schema: dict[str, Any] = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    if array:
        schema = {"type": "array", "items": schema}
    content = {"schema": schema, "examples": examples} if examples else {"schema": schema}
    return {"requestBody": {"required": True, "content": {media_type: content}}}
