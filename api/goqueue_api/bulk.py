"""Many jobs in one request, all or none."""

import asyncio
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from goqueue.access import Scope
from goqueue.errors import InvalidInput
from goqueue.job import NewJob
from goqueue.jsontext import decode
from goqueue.orders import Order, accept, accept_all
from goqueue_api import examples
from goqueue_api.access import needs
from goqueue_api.bodies import body_of, json_response
from goqueue_api.context import Context, caller, context
from goqueue_api.errors import documented
from goqueue_api.middleware import traceparent
from goqueue_api.routing import Direct
from goqueue_api.views import BulkView

router = APIRouter(tags=["jobs"], route_class=Direct)

MAX_ORDERS: Final = 10_000
TURN: Final = 200
"""Orders that are checked before other requests get a turn."""

MAX_NAMED: Final = 100
"""Wrong orders that an error names."""

_BODY: Final = body_of(Order, array=True, examples=examples.BULK)
_BODY["requestBody"]["content"]["application/x-ndjson"] = {
    "schema": {"type": "string", "description": "One body of `POST /jobs/create` a line."}
}


@router.post(
    "/jobs/bulk",
    summary="Create many jobs",
    status_code=201,
    response_model=BulkView,
    responses=documented(400, 413),
    openapi_extra=_BODY,
)
@needs(Scope.JOBS_WRITE)
async def create_many(request: Request) -> Response:
    """Accept up to 10,000 jobs, all or none: a JSON array, or one JSON object a line (NDJSON)."""
    if "idempotency-key" in request.headers:
        raise InvalidInput("validation failed", {"Idempotency-Key": "names one job; give each job its unique_key"})
    parts = context(request)
    # In a thread: other requests need not wait until megabytes are parsed.
    raw = await asyncio.to_thread(decode_many, await request.body(), request.headers.get("content-type", ""))
    orders = await _accept_all(raw, parts, traceparent(request.scope), caller(request).tenant)
    who = caller(request)
    for order in orders:
        who.check_use(order.queue, order.type)
    if parts.quotas is not None:
        await parts.quotas.admit(who.tenant, len(orders))
    made = await parts.service.enqueue_many(orders)
    return json_response({"ids": [one.id for one in made], "created": sum(one.created for one in made)}, 201)


def decode_many(body: bytes, content_type: str) -> list[Any]:
    """The decoded orders of a bulk request, unchecked: a JSON array, or NDJSON if it says or looks so.

    Raises:
        InvalidInput: `invalid json: …` (of NDJSON with `index` and `line`), or there are none or too many.
    """
    array = body.lstrip().startswith(b"[") and "ndjson" not in content_type
    raw: list[Any] = decode(body) if array else _lines(body)
    if not raw:
        raise InvalidInput("validation failed", {"body": "must be a JSON array or NDJSON with at least one job"})
    if len(raw) > MAX_ORDERS:
        raise InvalidInput("validation failed", {"body": f"at most {MAX_ORDERS} jobs in one request"})
    return raw


def _lines(body: bytes) -> list[Any]:
    raw: list[Any] = []
    for number, line in enumerate(body.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            raw.append(decode(line))
        except InvalidInput as error:
            raise InvalidInput(error.message, {"index": len(raw), "line": number}) from None
        if len(raw) > MAX_ORDERS:
            break
    return raw


async def _accept_all(raw: list[Any], parts: Context, trace_context: str | None, tenant: str | None) -> list[NewJob]:
    orders: list[NewJob] = []
    wrong: dict[str, Any] = {}
    for first in range(0, len(raw), TURN):
        await asyncio.sleep(0)
        turn = raw[first : first + TURN]
        if accepted := accept_all(turn, parts.registry, parts.queues, trace_context=trace_context, tenant=tenant):
            orders += accepted
            continue
        for index, one in enumerate(turn, start=first):
            try:
                orders.append(accept(one, parts.registry, parts.queues, trace_context=trace_context, tenant=tenant))
            except InvalidInput as error:
                wrong[str(index)] = error.as_dict()
                if len(wrong) == MAX_NAMED:
                    raise InvalidInput("validation failed", wrong) from None
    if wrong:
        raise InvalidInput("validation failed", wrong)
    return orders
