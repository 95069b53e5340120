"""What may be done with a schedule that is there, without its definition: pause, resume, run now.

The routes and the console commands share these.
"""

from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime

from goqueue import cron
from goqueue.access import Actor
from goqueue.encryption import MARK
from goqueue.errors import Conflict, NotFound
from goqueue.job import Enqueued, NewJob, Source
from goqueue.orders import accept
from goqueue.registry import Registry
from goqueue.service import JobService
from goqueue.store import audit, schedules
from goqueue.store.audit import Action
from goqueue.store.connect import Connection, Database
from goqueue.store.schedules import Schedule
from goqueue_api.plans import is_within


async def switch(database: Database, name: str, tenant: str | None, actor: Actor, *, enabled: bool) -> Schedule:
    """Pause or resume a schedule. A resumed one fires next at the first tick from now on; what it missed is not made up
    for. Nothing happens to one that is already as wanted.

    Raises:
        NotFound: there is no such schedule within the actor's reach.
        InvalidInput: it is to be resumed, and never fires again.
    """
    async with database.connection() as connection, connection.transaction():
        found = await _reached(connection, database, name, tenant, actor, lock=True)
        if found.enabled == enabled:
            return found
        tick = cron.next_tick(found.cron, found.time_zone, datetime.now(UTC)) if enabled else found.next_tick
        changed = await schedules.switch(connection, found, tick, database.keyring, enabled=enabled)
        action = Action.SCHEDULE_RESUMED if enabled else Action.SCHEDULE_PAUSED
        await audit.record(connection, actor, action, name, tenant=tenant)
    return changed


async def run_now(
    service: JobService,
    registry: Registry,
    queues: Collection[str],
    name: str,
    tenant: str | None,
    actor: Actor,
    *,
    trace_context: str | None = None,
    admit: Callable[[], Awaitable[None]] | None = None,
) -> tuple[NewJob, Enqueued]:
    """Create the job of a schedule now, paused or not; its ticks stay as they are.

    `admit` is asked before the job is created, and refuses it by an error of its own.

    Raises:
        NotFound: there is no such schedule within the actor's reach.
        InvalidInput: its job is not valid any more, as where the type is gone.
        Conflict: its payload is encrypted and cannot be read here.
    """
    async with service.database.connection() as connection:
        found = await _reached(connection, service.database, name, tenant, actor)
    payload = found.job.get("payload")
    if isinstance(payload, dict) and MARK in payload:
        raise Conflict("the payload of this schedule is encrypted with a key that this process does not have")
    order = accept(
        found.job, registry, queues, source=Source.SCHEDULE, trace_context=trace_context, tenant=found.tenant
    )
    if admit is not None:
        await admit()
    return order, await service.enqueue_as(actor, Action.SCHEDULE_RUN, name, order)


async def _reached(
    connection: Connection, database: Database, name: str, tenant: str | None, actor: Actor, *, lock: bool = False
) -> Schedule:
    found = await schedules.get(connection, name, database.keyring, tenant=tenant, lock=lock)
    if found is None or not (actor.reach is None or is_within(found, actor.reach)):
        raise NotFound("schedule not found")
    return found
