"""Jobs: create, show, and everything that steers one."""

from typing import Annotated, Any, Final

import orjson
import structlog
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from goqueue.access import Scope
from goqueue.errors import (
    Conflict,
    GoQueueError,
    InvalidInput,
    KeyReused,
    NotFound,
    StoreContended,
    StoreRefused,
    StoreTimeout,
)
from goqueue.idempotency import RequestKey, request_key
from goqueue.job import MAX_KEY_LENGTH, Enqueued, NewJob
from goqueue.lifecycle import JobStatus
from goqueue.orders import Order, accept
from goqueue_api import examples
from goqueue_api.access import needs
from goqueue_api.bodies import body_of, json_response, read, read_json
from goqueue_api.context import Context, actor, caller, context, job_id
from goqueue_api.errors import documented, error_response
from goqueue_api.middleware import traceparent
from goqueue_api.routing import Direct
from goqueue_api.throttle import TooManyRequests
from goqueue_api.views import CancelView, JobView, created_view, job_view

router = APIRouter(tags=["jobs"], route_class=Direct)

log = structlog.get_logger(__name__)

IDEMPOTENCY_KEY: Final[dict[str, Any]] = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "The same key of the same caller gives the same job, until 24 hours after its end at the "
            "earliest. With another request it is refused (422).",
            "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_LENGTH},
        }
    ]
}


class StatusChange(BaseModel):
    """The body of `PUT /jobs/{id}/status`."""

    model_config = ConfigDict(extra="forbid")
    status: JobStatus


class Outcome(BaseModel):
    """The body of `POST /jobs/{id}/save`; what is absent becomes null."""

    model_config = ConfigDict(extra="forbid", strict=True)
    result: Any = None
    error: Annotated[str, Field(max_length=65_536)] | None = None


def idempotency_key(request: Request) -> str | None:
    """The `Idempotency-Key` header.

    Raises:
        InvalidInput: it is empty, too long, holds control characters, or there are two.
    """
    value = request.headers.get("idempotency-key")
    if value is None:
        return None
    if len(request.headers.getlist("idempotency-key")) > 1:
        raise InvalidInput("validation failed", {"Idempotency-Key": "given more than once"})
    if not value or len(value) > MAX_KEY_LENGTH or not value.isprintable():
        raise InvalidInput(
            "validation failed", {"Idempotency-Key": f"must be 1 to {MAX_KEY_LENGTH} printable characters"}
        )
    return value


@router.post(
    "/jobs/create",
    summary="Create a job",
    status_code=201,
    response_model=JobView,
    responses={
        **documented(400, 409, 413, 422),
        200: {"model": JobView, "description": "The key's job, which was made before."},
    },
    openapi_extra={**body_of(Order, examples=examples.CREATE), **IDEMPOTENCY_KEY},
)
@needs(Scope.JOBS_WRITE)
async def create(request: Request) -> Response:
    """Accept a job. `GET /types` lists the job types, each with the schema of its payload.

    The same `Idempotency-Key` header gives the same job, also after its end; the same `unique_key` does until the job
    ends. No quota refuses a job that was made before.
    """
    parts, who = context(request), caller(request)
    value = idempotency_key(request)
    order = accept(
        await read_json(request),
        parts.registry,
        parts.queues,
        trace_context=traceparent(request.scope),
        tenant=who.tenant,
    )
    who.check_use(order.queue, order.type)
    key = None if value is None else request_key(value, who.id, order)
    try:
        made = await _make(parts, order, key)
        standing = None if made.created else await parts.service.get(made.id, who.reach)
    except (StoreRefused, StoreTimeout, StoreContended, Conflict, KeyReused, TooManyRequests):
        raise
    except NotFound:
        raise Conflict("the job with this key was deleted", {"id": made.id}) from None
    except Exception as error:
        log.error("failed to add job to database", exc_info=None if isinstance(error, GoQueueError) else error)
        return error_response(500, GoQueueError("failed to add job to database"))
    return json_response(created_view(order, made), 201) if standing is None else json_response(job_view(standing))


async def _make(parts: Context, order: NewJob, key: RequestKey | None) -> Enqueued:
    """Make the job, or find the one that was made before."""
    if parts.quotas is None or await parts.quotas.has_room(order.tenant, 1):
        return await parts.service.enqueue(order, key)
    made = await parts.service.find_made(order, key) if key or order.unique_key else None
    if made is None:
        raise parts.quotas.refusal()
    return made


@router.get("/jobs/{id}", summary="Show a job", response_model=JobView, responses=documented(400, 404))
@needs(Scope.JOBS_READ)
async def get(request: Request, id: str) -> Response:
    """One job."""
    return json_response(job_view(await context(request).service.get(job_id(id), caller(request).reach)))


@router.put(
    "/jobs/{id}/status",
    summary="Set a job's status by hand",
    status_code=204,
    responses=documented(400, 404, 409, 413),
    openapi_extra=body_of(StatusChange),
)
@needs(Scope.JOBS_WRITE)
async def set_status(request: Request, id: str) -> Response:
    """Move a job by hand, as far as the state machine allows. For workers outside GoQueue."""
    number = job_id(id)
    change = await read(request, StatusChange)
    await context(request).service.set_status(number, change.status, actor(request))
    return Response(status_code=204)


@router.post("/jobs/{id}/increment", summary="Count one more attempt", status_code=204, responses=documented(400, 404))
@needs(Scope.JOBS_WRITE)
async def increment(request: Request, id: str) -> Response:
    """attempts + 1, atomically."""
    await context(request).service.increment_attempts(job_id(id), actor(request))
    return Response(status_code=204)


@router.post(
    "/jobs/{id}/save",
    summary="Store a result or an error",
    status_code=204,
    responses=documented(400, 404, 413),
    openapi_extra=body_of(Outcome),
)
@needs(Scope.JOBS_WRITE)
async def save(request: Request, id: str) -> Response:
    """Store a result and an error."""
    number = job_id(id)
    outcome = await read(request, Outcome)
    result = None if outcome.result is None else orjson.dumps(outcome.result).decode()
    await context(request).service.save_result(number, result, outcome.error or None, actor(request))
    return Response(status_code=204)


@router.post(
    "/jobs/{id}/cancel",
    summary="Cancel a job",
    response_model=CancelView,
    responses={**documented(400, 404, 409), 202: {"model": CancelView, "description": "Its worker was asked to stop."}},
)
@needs(Scope.JOBS_WRITE)
async def cancel(request: Request, id: str) -> Response:
    """Cancel a job: at once if it waits; a running one is asked to stop and ends within about a second."""
    status = await context(request).service.cancel(job_id(id), actor(request))
    return json_response({"status": status.value}, 200 if status is JobStatus.CANCELLED else 202)


@router.post(
    "/jobs/{id}/retry", summary="Retry a job by hand", response_model=JobView, responses=documented(400, 404, 409)
)
@needs(Scope.JOBS_WRITE)
async def retry(request: Request, id: str) -> Response:
    """Give a failed or cancelled job a fresh set of attempts, at once."""
    number = job_id(id)
    await context(request).service.retry(number, actor(request))
    return json_response(job_view(await context(request).service.get(number)))


@router.delete("/jobs/{id}", summary="Delete a job", status_code=204, responses=documented(400, 404))
@needs(Scope.JOBS_WRITE)
async def delete(request: Request, id: str) -> Response:
    """Hide a job; an open one is cancelled first. Retention removes it for good."""
    await context(request).service.delete(job_id(id), actor(request))
    return Response(status_code=204)
