"""Cron schedules."""

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
from psycopg.rows import class_row

from goqueue.access import Actor, Reach
from goqueue.encryption import Keyring, shown, template_of
from goqueue.store import audit, sql
from goqueue.store.audit import Action
from goqueue.store.connect import Connection, fetch_all

MOST: Final = 4 * 1024 * 1024
"""Bytes of job templates as text after which a page ends."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A row of `schedules`; `job` is the template, shaped like the body of POST /jobs/create. Times in UTC."""

    id: int
    name: str
    cron: str
    time_zone: str
    job: dict[str, Any]
    enabled: bool
    last_tick: datetime | None
    last_job_id: int | None
    next_tick: datetime
    created_at: datetime
    updated_at: datetime
    tenant: str | None

    @property
    def stored_name(self) -> str:
        """The name in the table, where those of all tenants meet."""
        return _stored(self.name, self.tenant)


def _stored(name: str, tenant: str | None) -> str:
    return name if tenant is None else f"{tenant}/{name}"


def _sealed(stored_name: str, job: dict[str, Any], keyring: Keyring | None) -> dict[str, Any]:
    """The template as it is stored: queue and type stay readable."""
    if keyring is None or "payload" not in job:
        return job
    sealed = keyring.seal(template_of(stored_name), orjson.dumps(job["payload"]))
    return {**job, "payload": orjson.loads(sealed)}


def _revealed(schedule: Schedule, keyring: Keyring | None) -> Schedule:
    if keyring is None or "payload" not in schedule.job:
        return schedule
    payload = shown(keyring, template_of(schedule.stored_name), schedule.job["payload"])
    return dataclasses.replace(schedule, job={**schedule.job, "payload": payload})


async def list_all(connection: Connection, keyring: Keyring | None = None) -> list[Schedule]:
    """The schedules of all tenants by name."""
    found, after = await page(connection, keyring)
    while after is not None:
        more, after = await page(connection, keyring, after=after)
        found += more
    return found


async def page(
    connection: Connection,
    keyring: Keyring | None = None,
    *,
    reach: Reach | None = None,
    after: str | None = None,
    limit: int = 1000,
) -> tuple[list[Schedule], str | None]:
    """Schedules by name, of so many as fit into memory, and what `after` must be for the next page, if there is one.

    Args:
        connection: Where to ask.
        keyring: Decrypts the payloads.
        reach: Only those of its tenant; None: those of all.
        after: Only those behind this name, as it is stored where there is no reach.
        limit: As many at most.
    """
    tenant = None if reach is None else reach.tenant
    values = {
        "all": reach is None,
        "tenant": tenant,
        "after": None if after is None else _stored(after, tenant),
        "limit": limit,
        "bytes": MOST,
    }
    rows = await fetch_all(connection, sql.LIST_SCHEDULES, values)
    found = [Schedule(*row[:-1]) for row in rows]
    last = found[-1] if rows and rows[-1][-1] else None
    following = None if last is None else last.stored_name if reach is None else last.name
    return [_revealed(schedule, keyring) for schedule in found], following


async def get(
    connection: Connection,
    name: str,
    keyring: Keyring | None = None,
    *,
    tenant: str | None = None,
    lock: bool = False,
) -> Schedule | None:
    """The tenant's schedule of that name, or None. With `lock` nobody else changes it before the transaction ends."""
    cursor = connection.cursor(row_factory=class_row(Schedule))
    await cursor.execute(sql.LOCK_SCHEDULE if lock else sql.GET_SCHEDULE, (_stored(name, tenant),))
    found = await cursor.fetchone()
    return _revealed(found, keyring) if found else None


async def put(
    connection: Connection,
    name: str,
    cron: str,
    time_zone: str,
    job: dict[str, Any],
    enabled: bool,
    next_tick: datetime,
    keyring: Keyring | None = None,
    *,
    tenant: str | None = None,
    actor: Actor | None = None,
) -> tuple[Schedule, bool]:
    """Create or replace a schedule; True where it is new. A keyring encrypts the template's payload.

    `next_tick` counts where the schedule is new, its cron expression or time zone changes, or it is switched on or off.
    Otherwise the tick of before stays: a change of the job does not lose one that is due.
    """
    async with connection.transaction():
        rows = await fetch_all(
            connection,
            sql.PUT_SCHEDULE,
            {
                "name": _stored(name, tenant),
                "cron": cron,
                "time_zone": time_zone,
                "job": orjson.dumps(_sealed(_stored(name, tenant), job, keyring)).decode(),
                "enabled": enabled,
                "next_tick": next_tick,
                "tenant": tenant,
            },
        )
        if actor is not None:
            details = {"cron": cron, "time_zone": time_zone, "enabled": enabled}
            await audit.record(connection, actor, Action.SCHEDULE_PUT, name, tenant=tenant, details=details)
    *row, created = rows[0]
    return _revealed(Schedule(*row), keyring), created


async def switch(
    connection: Connection, schedule: Schedule, next_tick: datetime, keyring: Keyring | None = None, *, enabled: bool
) -> Schedule:
    """Let a schedule fire or not, the rest of it unchanged."""
    values = {"id": schedule.id, "enabled": enabled, "next_tick": next_tick}
    [row] = await fetch_all(connection, sql.SWITCH_SCHEDULE, values)
    return _revealed(Schedule(*row), keyring)


async def delete(connection: Connection, name: str, tenant: str | None = None, actor: Actor | None = None) -> bool:
    """Remove a schedule; False where there is none. Jobs it made stay."""
    async with connection.transaction():
        gone = bool(await fetch_all(connection, sql.DELETE_SCHEDULE, (_stored(name, tenant),)))
        if gone and actor is not None:
            await audit.record(connection, actor, Action.SCHEDULE_DELETED, name, tenant=tenant)
    return gone


async def due(connection: Connection) -> list[tuple[Schedule, datetime]]:
    """Enabled schedules whose next tick has come, each with PostgreSQL's time now; templates as they are stored."""
    return [(Schedule(*row), now) for *row, now in await fetch_all(connection, sql.SCHEDULES_DUE)]


async def advance(
    connection: Connection, schedule: Schedule, tick: datetime, job_id: int | None, next_tick: datetime
) -> None:
    """Note that `tick` was dealt with; does nothing where somebody else did it first."""
    await connection.execute(
        sql.ADVANCE_SCHEDULE,
        {
            "id": schedule.id,
            "tick": tick,
            "job_id": job_id,
            "next_tick": next_tick,
            "was": schedule.next_tick,
        },
    )


async def ahead(connection: Connection, after: int, limit: int) -> list[tuple[Schedule, datetime]]:
    """Enabled schedules in zones other than UTC with ids above `after`, by id, like those of `due`."""
    rows = await fetch_all(connection, sql.SCHEDULES_AHEAD, {"after": after, "limit": limit})
    return [(Schedule(*row), now) for *row, now in rows]


async def move(connection: Connection, schedule: Schedule, next_tick: datetime) -> None:
    """Replace the next tick; does nothing where the schedule fired or was put in the meantime."""
    await connection.execute(
        sql.MOVE_SCHEDULE,
        {
            "id": schedule.id,
            "next_tick": next_tick,
            "was": schedule.next_tick,
            "updated_at": schedule.updated_at,
        },
    )
