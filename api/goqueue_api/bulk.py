"""Many jobs in one request, all or none."""

import asyncio
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from goqueue.errors import InvalidInput
from goqueue.job import NewJob
from goqueue.jsontext import decode
from goqueue.orders import Order, accept
from goqueue_api.bodies import body_of, json_response
from goqueue_api.context import Context, context
from goqueue_api.errors import documented
from goqueue_api.middleware import traceparent
from goqueue_api.views import BulkView

router = APIRouter(tags=["jobs"])

MAX_ORDERS: Final = 10_000
TURN: Final = 200
"""Orders that are checked before other requests get a turn."""

MAX_NAMED: Final = 100
"""Wrong orders that an error names."""

_BODY: Final = body_of(Order, array=True)
_BODY["requestBody"]["content"]["application/x-ndjson"] = {"schema": {"type": "string"}}


@router.post(
    "/jobs/bulk",
    status_code=201,
    response_model=BulkView,
    responses=documented(400, 413),
    openapi_extra=_BODY,
)
async def create_many(request: Request) -> Response:
    """Accept up to 10,000 jobs, all or none: a JSON array, or one JSON object a line (NDJSON)."""
    parts = context(request)
    raw = _orders(await request.body(), request.headers.get("content-type", ""))
    orders = await _accept_all(raw, parts, traceparent(request.scope))
    made = await parts.service.enqueue_many(orders)
    return json_response({"ids": [one.id for one in made], "created": sum(one.created for one in made)}, 201)


def _orders(body: bytes, content_type: str) -> list[Any]:
    raw: Any = []
    if "ndjson" in content_type or not body.lstrip().startswith(b"["):
        for number, line in enumerate(body.splitlines()):
            if line.strip():
                try:
                    raw.append(decode(line))
                except InvalidInput as error:
                    raise InvalidInput(error.message, {"index": len(raw), "line": number + 1}) from None
    else:
        raw = decode(body)
    if not isinstance(raw, list) or not raw:
        raise InvalidInput("validation failed", {"body": "must be a JSON array or NDJSON with at least one job"})
    if len(raw) > MAX_ORDERS:
        raise InvalidInput("validation failed", {"body": f"at most {MAX_ORDERS} jobs in one request"})
    return raw


async def _accept_all(raw: list[Any], parts: Context, trace_context: str | None) -> list[NewJob]:
    orders: list[NewJob] = []
    wrong: dict[str, Any] = {}
    for index, one in enumerate(raw):
        if index % TURN == TURN - 1:
            await asyncio.sleep(0)
        try:
            orders.append(accept(one, parts.registry, parts.queues, trace_context=trace_context))
        except InvalidInput as error:
            wrong[str(index)] = error.as_dict()
            if len(wrong) == MAX_NAMED:
                break
    if wrong:
        raise InvalidInput("validation failed", wrong)
    return orders
