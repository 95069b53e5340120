"""Lists that come in pages by key: jobs, and what a job's handler logged."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import Response

from goqueue.access import Scope
from goqueue.errors import InvalidInput
from goqueue.job import MAX_ID, JobFilter
from goqueue.lifecycle import JobStatus
from goqueue_api.access import needs
from goqueue_api.bodies import json_response
from goqueue_api.context import caller, context, job_id
from goqueue_api.errors import documented
from goqueue_api.memory import paced
from goqueue_api.routing import Guarded
from goqueue_api.views import AttemptsView, JobView, LogLine, job_view

router = APIRouter(tags=["jobs"], route_class=Guarded)

MAX_PAGE: Final = 1000

NEXT: Final = {
    "Link": {"description": 'The next page, `<?…>; rel="next"`, where there may be one.', "schema": {"type": "string"}}
}

Name = Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\x00]*$")]
"""A name to compare with; PostgreSQL's text holds no NUL."""


Id = Annotated[int, Field(ge=0, le=MAX_ID)]
Limit = Annotated[int, Field(ge=1, le=MAX_PAGE)]


class ListQuery(BaseModel):
    """Which jobs to list. Pages by key: `after` is the id of the last job of the page before.

    An id is drawn before its job is committed, so a job can appear behind one with a higher id. Who follows the list to
    its end asks with `settled`.
    """

    model_config = ConfigDict(extra="forbid")
    queue: Name = Field("", description="Jobs of this queue. Without it: 400 `queue parameter is required`.")
    type: Name | None = Field(None, description="Only jobs of this type.")
    status: JobStatus | None = Field(None, description="Only jobs in this state.")
    created_after: AwareDatetime | None = Field(None, description="Created at this time or later.")
    created_before: AwareDatetime | None = Field(None, description="Created before this time.")
    after: Id | None = Field(
        None,
        description="Last id of the page before. Without `settled`, jobs that are committed late may be skipped.",
    )
    limit: Limit = Field(100, description="As many at most.")
    newest_first: bool = Field(False, description="The newest first; pages then go to lower ids.")
    settled: bool = Field(
        False,
        description="Only jobs below the first id that a transaction under way may still add: pages by `after` then "
        "skip no job. A page may be empty though there are newer jobs; ask again.",
    )


class AttemptQuery(BaseModel):
    """Which attempts to list."""

    model_config = ConfigDict(extra="forbid")
    after: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        None, description="Where the page begins: taken from the `Link` of the page before."
    )
    limit: Limit = MAX_PAGE


class LogQuery(BaseModel):
    """Which lines to list. Pages by key: `after` is the id of the last line of the page before."""

    model_config = ConfigDict(extra="forbid")
    after: Id = Field(0, description="Last id of the page before.")
    limit: Limit = MAX_PAGE


@router.get(
    "/jobs", summary="List jobs", response_model=list[JobView], responses={**documented(400), 200: {"headers": NEXT}}
)
@router.get(
    "/jobs/", summary="List jobs", response_model=list[JobView], responses=documented(400), include_in_schema=False
)
@needs(Scope.JOBS_READ)
async def find(request: Request, query: Annotated[ListQuery, Query()]) -> Response:
    """The jobs of a queue, newest last; 100 of them unless `limit` says otherwise.

    A `Link` header with `rel="next"` says that there may be more, and where. A page can be short, or empty, and have
    one: the search ends after a time, whatever it has found, and a page after some 4 MiB of payloads and results.
    """
    if not query.queue:
        raise InvalidInput("queue parameter is required")
    who = caller(request)
    who.check_use(query.queue, query.type)
    wanted = JobFilter(**query.model_dump(), reach=who.reach)
    parts = context(request)
    async with parts.memory.making() as admit:
        page = await parts.service.page(wanted, parts.search_seconds, admit)
        answer = json_response([job_view(job) for job in page.jobs], headers=link(request, page.next))
        del page
    return paced(answer, parts.memory)


def link(request: Request, after: int | str | None) -> dict[str, str] | None:
    """The header that names the next page, relative to this address, whatever a proxy shows of it (RFC 8288, 3986)."""
    if after is None:
        return None
    return {"Link": f'<?{request.url.include_query_params(after=after).query}>; rel="next"'}


@router.get(
    "/jobs/{id}/attempts",
    summary="List a job's attempts and log lines",
    response_model=AttemptsView,
    responses={**documented(400, 404), 200: {"headers": NEXT}},
)
@needs(Scope.JOBS_READ)
async def attempts(request: Request, id: str, query: Annotated[AttemptQuery, Query()]) -> Response:
    """The finished attempts of a job with their errors, and on the first page the lines its handler logged.

    A `Link` header with `rel="next"` says that there are more, and where; a page ends after some 1 MiB of errors, too.
    """
    page, lines = await context(request).service.history(job_id(id), caller(request).reach, query.after, query.limit)
    answer = json_response({"attempts": page.attempts, "logs": lines}, headers=link(request, page.next))
    return paced(answer, context(request).memory)


@router.get(
    "/jobs/{id}/logs",
    summary="List a job's log lines",
    response_model=list[LogLine],
    responses={**documented(400, 404), 200: {"headers": NEXT}},
)
@needs(Scope.JOBS_READ)
async def logs(request: Request, id: str, query: Annotated[LogQuery, Query()]) -> Response:
    """What the job's handler logged, oldest first. A `Link` header with `rel="next"` says that there may be more."""
    lines = await context(request).service.logs(job_id(id), query.after, query.limit, caller(request).reach)
    return json_response(lines, headers=link(request, lines[-1]["id"] if len(lines) == query.limit else None))
