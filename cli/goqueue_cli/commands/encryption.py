"""`goqueue encryption`: keys, and what in the database is under which."""

import click

from goqueue.encryption import Keyring, new_key
from goqueue.errors import GoQueueError, SettingsError
from goqueue.store import rotation
from goqueue_cli.commands import output
from goqueue_cli.commands.session import STORES, Session, run


@click.group(epilog=STORES)
def encryption() -> None:
    """Encrypt what jobs hold while it is stored (GOQUEUE_ENCRYPTION_KEYS)."""


@encryption.command()
def generate() -> None:
    """Make a key. It goes to standard output and nowhere else: keep it as you keep passwords."""
    click.echo(new_key())


@encryption.command(epilog=STORES)
@output.option
def status(form: str) -> None:
    """Count what is under which key; exit 1 where a key is needed that is not here. Reads all of the tables."""

    async def work(session: Session) -> None:
        keyring = session.service.database.keyring
        ids = keyring.ids if keyring else []
        async with session.service.database.connection() as connection:
            found = await rotation.census(connection)
        rows = [{"kind": kind, "key": kid, "values": count, "state": _state(kid, ids)} for kind, kid, count in found]
        if form == "json":
            output.as_json({"keys": ids, "stored": rows})
        else:
            output.as_table(("kind", "key", "values", "state"), [list(row.values()) for row in rows])
        if missing := sorted({kid for _, kid, _ in found if kid and kid not in ids}):
            raise GoQueueError(f"keys that are needed and not here: {', '.join(missing)}")

    run(work)


def _state(kid: str | None, ids: list[str]) -> str:
    if kid is None:
        return "plain"
    if kid not in ids:
        return "key missing"
    return "current" if kid == ids[0] else "old key"


@encryption.command(epilog=STORES)
@output.option
def rotate(form: str) -> None:
    """Bring everything under the first key, what is not encrypted too.

    First give the new key to all processes, behind the old one; then put it first, and restart them; then rotate.
    Jobs go on running meanwhile. May be stopped and started again. Exit 1 where something cannot be read.
    """

    async def work(session: Session) -> None:
        database = session.service.database
        keyring: Keyring | None = database.keyring
        if keyring is None:
            raise SettingsError("GOQUEUE_ENCRYPTION_KEYS: no key to rotate to")
        done = [one async for one in rotation.rotate(database, keyring)]
        if form == "json":
            output.as_json({"key": keyring.first, "rotated": done})
        else:
            output.as_table(("kind", "rotated", "unreadable", "left"), [_cells(one) for one in done])
        if any(one.unreadable or one.left for one in done):
            raise GoQueueError("some values are not under the first key; see `goqueue encryption status`")

    run(work)


def _cells(done: rotation.Rotated) -> list[object]:
    return [done.name, done.sealed, done.unreadable, done.left]
