"""Jobs: create, show, list, and everything that steers one."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.responses import Response

from goqueue.errors import GoQueueError, InvalidInput, StoreRefused, StoreTimeout
from goqueue.job import MAX_ID, JobFilter
from goqueue.lifecycle import JobStatus
from goqueue.orders import Key, Order, accept
from goqueue_api.bodies import body_of, json_response, read, read_json
from goqueue_api.context import context, job_id
from goqueue_api.errors import documented, error_response
from goqueue_api.middleware import traceparent
from goqueue_api.views import AttemptsView, CancelView, JobView, created_view, job_view

router = APIRouter(tags=["jobs"])

MAX_PAGE = 1000


class StatusChange(BaseModel):
    """The body of `PUT /jobs/{id}/status`."""

    model_config = ConfigDict(extra="forbid")
    status: JobStatus


class Outcome(BaseModel):
    """The body of `POST /jobs/{id}/save`; what is absent becomes null."""

    model_config = ConfigDict(extra="forbid", strict=True)
    result: Any = None
    error: Annotated[str, Field(max_length=65_536)] | None = None


class _Key(BaseModel):
    key: Key


class ListQuery(BaseModel):
    """Which jobs to list. Pages by key: `after` is the id of the last job of the page before."""

    model_config = ConfigDict(extra="forbid")
    queue: Annotated[str, Field(max_length=255)] = ""
    type: Annotated[str, Field(max_length=255)] | None = None
    status: JobStatus | None = None
    created_after: AwareDatetime | None = None
    created_before: AwareDatetime | None = None
    after: Annotated[int, Field(ge=0, le=MAX_ID)] | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 100
    newest_first: bool = False


def idempotency_key(request: Request) -> str | None:
    """The `Idempotency-Key` header.

    Raises:
        InvalidInput: it is empty, too long or holds control characters.
    """
    value = request.headers.get("idempotency-key")
    if value is None:
        return None
    if not value or len(value) > 255 or not value.isprintable():
        raise InvalidInput("validation failed", {"Idempotency-Key": "must be 1 to 255 printable characters"})
    return value


@router.post(
    "/jobs/create",
    status_code=201,
    response_model=JobView,
    responses={**documented(400, 413), 200: {"model": JobView, "description": "The key's job stood there already."}},
    openapi_extra=body_of(Order),
)
async def create(request: Request) -> Response:
    """Accept a job. The same `Idempotency-Key` header (or `unique_key`) gives the same job until it ends."""
    parts = context(request)
    order = accept(
        await read_json(request),
        parts.registry,
        parts.queues,
        unique_key=idempotency_key(request),
        trace_context=traceparent(request.scope),
    )
    try:
        made = await parts.service.enqueue(order)
    except (StoreRefused, StoreTimeout):
        raise
    except GoQueueError:
        return error_response(500, GoQueueError("failed to add job to database"))
    if made.created:
        return json_response(created_view(order, made), 201)
    return json_response(job_view(await parts.service.get(made.id)))


@router.get("/jobs", response_model=list[JobView], responses=documented(400))
@router.get("/jobs/", response_model=list[JobView], responses=documented(400), include_in_schema=False)
async def find(request: Request, query: Annotated[ListQuery, Query()]) -> Response:
    """The jobs of a queue, newest last."""
    if not query.queue:
        raise InvalidInput("queue parameter is required")
    if "\0" in query.queue or (query.type and "\0" in query.type):
        raise InvalidInput("validation failed", {"queue": "must not contain NUL"})
    found = await context(request).service.find(JobFilter(**query.model_dump()))
    return json_response([job_view(job) for job in found])


@router.get("/jobs/{id}", response_model=JobView, responses=documented(400, 404))
async def get(request: Request, id: str) -> Response:
    """One job."""
    return json_response(job_view(await context(request).service.get(job_id(id))))


@router.put(
    "/jobs/{id}/status", status_code=204, responses=documented(400, 404, 409, 413), openapi_extra=body_of(StatusChange)
)
async def set_status(request: Request, id: str) -> Response:
    """Move a job by hand, as far as the state machine allows. For workers outside GoQueue."""
    number = job_id(id)
    change = await read(request, StatusChange)
    await context(request).service.set_status(number, change.status)
    return Response(status_code=204)


@router.post("/jobs/{id}/increment", status_code=204, responses=documented(400, 404))
async def increment(request: Request, id: str) -> Response:
    """attempts + 1, atomically."""
    await context(request).service.increment_attempts(job_id(id))
    return Response(status_code=204)


@router.post("/jobs/{id}/save", status_code=204, responses=documented(400, 404, 413), openapi_extra=body_of(Outcome))
async def save(request: Request, id: str) -> Response:
    """Store a result and an error."""
    number = job_id(id)
    outcome = await read(request, Outcome)
    result = None if outcome.result is None else orjson.dumps(outcome.result).decode()
    await context(request).service.save_result(number, result, outcome.error or None)
    return Response(status_code=204)


@router.post("/jobs/{id}/cancel", response_model=CancelView, responses=documented(400, 404, 409))
async def cancel(request: Request, id: str) -> Response:
    """Cancel a job: at once if it waits; a running one is asked to stop and ends within about a second."""
    status = await context(request).service.cancel(job_id(id))
    return json_response({"status": status.value}, 200 if status is JobStatus.CANCELLED else 202)


@router.post("/jobs/{id}/retry", response_model=JobView, responses=documented(400, 404, 409))
async def retry(request: Request, id: str) -> Response:
    """Give a failed or cancelled job a fresh set of attempts, at once."""
    number = job_id(id)
    await context(request).service.retry(number)
    return json_response(job_view(await context(request).service.get(number)))


@router.delete("/jobs/{id}", status_code=204, responses=documented(400, 404))
async def delete(request: Request, id: str) -> Response:
    """Hide a job; an open one is cancelled first. Retention removes it for good."""
    await context(request).service.delete(job_id(id))
    return Response(status_code=204)


@router.get("/jobs/{id}/attempts", response_model=AttemptsView, responses=documented(400, 404))
async def attempts(request: Request, id: str) -> Response:
    """The finished attempts of a job with their errors, and the lines its handler logged."""
    ended, lines = await context(request).service.history(job_id(id))
    return json_response({"attempts": ended, "logs": lines})
