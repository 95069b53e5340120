"""What is stored comes under the first key: old keys can then be given up. Runs beside everything else.

Rows are locked a few hundred at a time, for milliseconds; those that somebody else has locked are skipped and looked
at again in the next pass, so that no worker ever waits for us while we wait for it. What has been done needs no note:
a value says itself under which key it is, so a rotation that was stopped goes on where it stood.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import orjson

from goqueue import encryption
from goqueue.encryption import FORM, MARK, TEXT_START, KeyMissing, Keyring, Unreadable
from goqueue.store.connect import Connection, Database, fetch_all

BATCH: Final = 500
"""Rows in one transaction, at most."""

FIRST_BATCH: Final = 16

ROOM: Final = 4 * 1024 * 1024
"""Bytes of values in one transaction, about."""

PASSES: Final = 5
"""Walks through a table until no row was skipped; more would mean that a process still writes with another key."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value: where it is stored, and what it is bound to (`owner`: a job's id or a schedule's name)."""

    name: str
    table: LiteralString
    value: LiteralString
    owner: LiteralString
    place: Callable[[Any], str]
    assignment: LiteralString
    json: bool
    key: tuple[LiteralString, ...] = ("id",)


KINDS: Final = (
    Kind("payloads", "jobs", "payload", "id", encryption.payload_of, "payload = %s::jsonb", True),
    Kind("results", "jobs", "result", "id", encryption.result_of, "result = %s::jsonb", True),
    Kind("errors", "jobs", "error", "id", encryption.error_of, "error = %s", False),
    Kind(
        "errors of attempts",
        "job_attempts",
        "error",
        "job_id",
        encryption.error_of,
        "error = %s",
        False,
        ("job_id", "lease"),
    ),
    Kind("log lines", "job_logs", "message", "job_id", encryption.log_of, "message = %s", False),
    Kind(
        "schedules",
        "schedules",
        "job -> 'payload'",
        "name",
        encryption.template_of,
        "job = jsonb_set(job, '{payload}', %s::jsonb)",
        True,
    ),
)
"""Everything that is encrypted."""


@dataclass(slots=True)
class Rotated:
    """What became of one kind of value."""

    name: str
    sealed: int = 0
    """Values that are under the first key now and were not before."""
    unreadable: int = 0
    """Values that no key opens; they stay as they are."""
    left: int = 0
    """Values that a process wrote with another key meanwhile, or held locked all the time."""


async def rotate(database: Database, keyring: Keyring) -> AsyncIterator[Rotated]:
    """Bring every value under the first key, plain ones too; yields each kind when it is done.

    Raises:
        StoreUnavailable: PostgreSQL is away; what was done stays done.
    """
    for kind in KINDS:
        done = Rotated(kind.name)
        for _ in range(PASSES):
            if not await _walk(database, keyring, kind, done):
                break
        yield done


async def _walk(database: Database, keyring: Keyring, kind: Kind, done: Rotated) -> bool:
    """One pass; whether rows were skipped."""
    after = [0] * len(kind.key)
    unreadable, batch = 0, FIRST_BATCH
    while True:
        async with database.connection() as connection, connection.transaction():
            rows = await fetch_all(connection, _select(kind), [_current(keyring, kind), *after, batch])
            changed = [
                (new, *key) for *key, owner, value in rows if (new := _sealed(keyring, kind, owner, value)) is not None
            ]
            if changed:
                await connection.cursor().executemany(_update(kind), changed)
        if not rows:
            break
        size = sum(len(new) for new, *_ in changed)
        batch = min(BATCH, 4 * batch, max(1, ROOM * len(changed) // size)) if size else batch
        done.sealed += len(changed)
        unreadable += len(rows) - len(changed)
        after = list(rows[-1][: len(kind.key)])
    done.unreadable = unreadable
    async with database.connection() as connection:
        ((left,),) = await fetch_all(connection, _left(kind), [_current(keyring, kind)])
    done.left = max(0, left - unreadable)
    return done.left > 0


def _sealed(keyring: Keyring, kind: Kind, owner: Any, value: Any) -> str | None:
    """A value under the first key; None where no key opens it."""
    place = kind.place(owner)
    try:
        if kind.json and encryption.is_sealed(value):
            return keyring.rewrap(place, value).decode()
        if not kind.json and encryption.is_sealed_text(value):
            return keyring.rewrap(place, orjson.loads(value)).decode()
    except (KeyMissing, Unreadable, ValueError):
        return None
    return keyring.seal(place, orjson.dumps(value) if kind.json else value.encode()).decode()


async def census(connection: Connection) -> list[tuple[str, str | None, int]]:
    """How many values of each kind are under which key (None: not encrypted): (kind, key id, values)."""
    found: list[tuple[str, str | None, int]] = []
    for kind in KINDS:
        if kind.json:
            kid = f"CASE WHEN value ->> '{MARK}' = '{FORM}' THEN value ->> 'kid' END"
        else:
            kid = f"CASE WHEN starts_with(value, '{TEXT_START}') THEN value::jsonb ->> 'kid' END"
        query = (
            f"SELECT {kid} AS kid, count(*) FROM (SELECT {kind.value} AS value FROM {kind.table}) AS stored "  # noqa: S608 - put together from the constants above
            "WHERE value IS NOT NULL GROUP BY 1 ORDER BY 1"
        )
        found += [(kind.name, kid, count) for kid, count in await fetch_all(connection, query)]
    return found


def _current(keyring: Keyring, kind: Kind) -> str:
    """How a value under the first key looks: what its JSON contains, or how its text begins."""
    own = orjson.dumps({MARK: FORM, "kid": keyring.first}).decode()
    return own if kind.json else f'{TEXT_START}{keyring.first}"'


def _stale(kind: Kind) -> LiteralString:
    """The condition on values that are not under the first key."""
    if kind.json:
        return f"{kind.value} IS NOT NULL AND NOT {kind.value} @> %s::jsonb"
    return f"{kind.value} IS NOT NULL AND NOT starts_with({kind.value}, %s)"


def _select(kind: Kind) -> LiteralString:
    key: LiteralString = ", ".join(kind.key)
    after: LiteralString = ", ".join(["%s::bigint"] * len(kind.key))
    return (
        f"SELECT {key}, {kind.owner}, {kind.value} FROM {kind.table} WHERE {_stale(kind)} AND ({key}) > ({after}) "  # noqa: S608 - put together from the constants above
        f"ORDER BY {key} LIMIT %s FOR NO KEY UPDATE SKIP LOCKED"
    )


def _update(kind: Kind) -> LiteralString:
    mine: LiteralString = " AND ".join([f"{column} = %s" for column in kind.key])
    return f"UPDATE {kind.table} SET {kind.assignment} WHERE {mine}"  # noqa: S608 - put together from the constants above


def _left(kind: Kind) -> LiteralString:
    return f"SELECT count(*) FROM {kind.table} WHERE {_stale(kind)}"  # noqa: S608 - put together from the constants above
