"""Retries of GoQueueJobs by annotation."""

from collections.abc import Callable
from typing import Any

import structlog

from goqueue.errors import Conflict, NotFound
from goqueue.service import JobService
from goqueue_operator import rows
from goqueue_operator.entries import Entry
from goqueue_operator.jobevents import JobEvents

log = structlog.get_logger(__name__)


class Retries:
    """Follows the annotation: one new round of attempts for each of its values. `note` writes a status soon."""

    def __init__(self, service: JobService, events: JobEvents, note: Callable[[Entry], None]) -> None:
        self._service = service
        self._events = events
        self._note = note

    async def follow(self, entry: Entry) -> dict[str, Any] | None:
        """Give a failed or cancelled job all of its attempts again; what cannot be retried is said in an event.

        A job without a row of its own, as one that was refused, is to be accepted again.

        Returns:
            The status from which the resource is to be taken up again; None where nothing has changed.

        Raises:
            StoreUnavailable: to be tried again.
        """
        token = entry.retry
        if token is None or token == entry.retried:
            return None
        async with self._service.database.connection() as connection:
            found = list((await rows.by_key(connection, entry.keys)).values())
        try:
            if found:
                await self._service.retry(found[0][0])
            elif entry.status.get("state") not in ("failed", "cancelled"):
                raise Conflict("a job that has not failed cannot be retried")
        except (Conflict, NotFound) as error:
            entry.retried = token
            self._note(entry)
            await self._events.warn(entry, "CannotRetry", error.message)
            return None
        log.info("job retried as its annotation asks", name=entry.name, namespace=entry.namespace)
        return {"retry": token, "jobID": found[0][0]} if found else {"retry": token}
