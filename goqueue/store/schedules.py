"""Cron schedules."""

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from psycopg.rows import class_row

from goqueue.encryption import Keyring, shown, template_of
from goqueue.store import sql
from goqueue.store.connect import Connection, fetch_all


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


def _sealed(name: str, job: dict[str, Any], keyring: Keyring | None) -> dict[str, Any]:
    """The template as it is stored: queue and type stay readable."""
    if keyring is None or "payload" not in job:
        return job
    sealed = keyring.seal(template_of(name), orjson.dumps(job["payload"]))
    return {**job, "payload": orjson.loads(sealed)}


def _revealed(schedule: Schedule, keyring: Keyring | None) -> Schedule:
    if keyring is None or "payload" not in schedule.job:
        return schedule
    payload = shown(keyring, template_of(schedule.name), schedule.job["payload"])
    return dataclasses.replace(schedule, job={**schedule.job, "payload": payload})


async def list_all(connection: Connection, keyring: Keyring | None = None) -> list[Schedule]:
    """All schedules, by name."""
    cursor = connection.cursor(row_factory=class_row(Schedule))
    await cursor.execute(sql.LIST_SCHEDULES)
    return [_revealed(schedule, keyring) for schedule in await cursor.fetchall()]


async def get(connection: Connection, name: str, keyring: Keyring | None = None) -> Schedule | None:
    """The schedule of that name, or None."""
    cursor = connection.cursor(row_factory=class_row(Schedule))
    await cursor.execute(sql.GET_SCHEDULE, (name,))
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
) -> tuple[Schedule, bool]:
    """Create or replace a schedule; True where it is new. A keyring encrypts the template's payload."""
    rows = await fetch_all(
        connection,
        sql.PUT_SCHEDULE,
        {
            "name": name,
            "cron": cron,
            "time_zone": time_zone,
            "job": orjson.dumps(_sealed(name, job, keyring)).decode(),
            "enabled": enabled,
            "next_tick": next_tick,
        },
    )
    *row, created = rows[0]
    return _revealed(Schedule(*row), keyring), created


async def delete(connection: Connection, name: str) -> bool:
    """Remove a schedule; False where there is none. Jobs it made stay."""
    return bool(await fetch_all(connection, sql.DELETE_SCHEDULE, (name,)))


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
