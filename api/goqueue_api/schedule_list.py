"""The list of schedules, which comes in pages by name."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from goqueue.access import Scope
from goqueue.store import schedules
from goqueue_api.access import needs
from goqueue_api.bodies import json_response
from goqueue_api.context import caller, context
from goqueue_api.errors import documented
from goqueue_api.listing import MAX_PAGE, NEXT, Limit, Name, link
from goqueue_api.memory import paced
from goqueue_api.plans import is_within, schedule_view
from goqueue_api.routing import Guarded
from goqueue_api.views import ScheduleView

router = APIRouter(tags=["schedules"], route_class=Guarded)


class ScheduleQuery(BaseModel):
    """Which schedules to list. Pages by key: `after` is the name of the last one of the page before."""

    model_config = ConfigDict(extra="forbid")
    after: Name | None = Field(None, description="Where the page begins: taken from the `Link` of the page before.")
    limit: Limit = MAX_PAGE


@router.get(
    "/schedules",
    summary="List schedules",
    response_model=list[ScheduleView],
    responses={**documented(400), 200: {"headers": NEXT}},
)
@needs(Scope.JOBS_READ)
async def list_all(request: Request, query: Annotated[ScheduleQuery, Query()]) -> Response:
    """The schedules of the caller's tenant, by name.

    A `Link` header with `rel="next"` says that there may be more, and where; a page ends after some 4 MiB of payloads.
    """
    parts, reach = context(request), caller(request).reach
    async with parts.memory.making() as admit:
        await admit()
        async with parts.service.database.connection() as connection:
            found, following = await schedules.page(
                connection, parts.service.database.keyring, reach=reach, after=query.after, limit=query.limit
            )
        shown = [schedule_view(schedule) for schedule in found if is_within(schedule, reach)]
        answer = json_response(shown, headers=link(request, following))
    return paced(answer, parts.memory)
