"""A command's connection to the stores, opened once and closed whatever happens."""

import asyncio
import getpass
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import click
import structlog

from goqueue import registry, settings
from goqueue.access import TENANT, Actor
from goqueue.client import AsyncClient
from goqueue.job import MAX_ID
from goqueue.jsontext import decode
from goqueue.queues import Queues
from goqueue.registry import REGISTRY, Registry
from goqueue.service import JobService
from goqueue.settings import DatabaseSettings, EngineSettings, PostgresSettings, RedisSettings
from goqueue.settings.kinds import seconds as seconds_of
from goqueue.store import migrate
from goqueue.store.connect import dsn
from goqueue_cli.commands import environment

STORES: Final = (
    "Settings come from the environment. Where that names no POSTGRES_* and `goqueue dev` runs in this folder or above "
    "it, its stores are used: the file `environment` in GOQUEUE_DEV_DIR (.goqueue)."
)
"""What the help of every command says of where it goes."""


@dataclass(frozen=True)
class Session:
    """What a command works with."""

    client: AsyncClient
    engine: EngineSettings

    @property
    def service(self) -> JobService:
        """The same door through which the API's requests go."""
        return self.client.service

    @property
    def actor(self) -> Actor:
        """Who works on this console, for the audit log. It reaches everything: it has the database itself."""
        try:
            return Actor(f"cli:{getpass.getuser()}")
        except (KeyError, OSError):  # a user id without a name, as in a container
            return Actor("cli")

    @property
    def queues(self) -> Queues:
        """The queues that this process knows: more once the job types are loaded."""
        return Queues(REGISTRY, self.engine.queues)

    def types(self, wanted: str | None = None) -> Registry:
        """All job types; with `wanted`, those that are loaded if it is among them. Commands that need none of your
        modules must work where they are not installed.

        Raises:
            SettingsError: a module of GOQUEUE_JOBS cannot be imported.
        """
        if wanted is None or REGISTRY.get(wanted) is None:
            registry.load(self.engine.jobs)
        return REGISTRY


def run(work: Callable[[Session], Awaitable[None]]) -> None:
    """Do the work of a command on open stores.

    Raises:
        SettingsError: a setting is wrong.
        StoreUnavailable: PostgreSQL does not answer. A person waits: it is asked once, whatever DB_MAX_RETRIES says.
        StaleSchema: the schema is not that of this version.
    """

    async def main() -> None:
        async with _session() as session:
            await work(session)

    asyncio.run(main())


@asynccontextmanager
async def _session() -> AsyncIterator[Session]:
    environment.adopt()
    _configure_logs()
    engine = settings.load(EngineSettings)
    database = settings.load(DatabaseSettings).model_copy(update={"max_retries": 0})
    conninfo = dsn(settings.load(PostgresSettings), database)
    client = AsyncClient(conninfo, settings.load(RedisSettings), queues=engine.queues, database=database)
    async with client:
        async with client.service.database.connection() as connection:
            await migrate.check(connection)
        yield Session(client, engine)


def _configure_logs() -> None:
    """Warnings are lines for a person, on standard error."""

    def line(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
        said = event.pop("event")
        if said == "redis is unavailable":  # what was not done for it is told with its cause
            raise structlog.DropEvent
        details = ", ".join(f"{name}: {value}" for name, value in event.items())
        return f"goqueue: {said} ({details})" if details else f"goqueue: {said}"

    structlog.configure(
        processors=[line],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    # A connection that fails is told by the command's own error, once.
    logging.getLogger("psycopg.pool").addHandler(logging.NullHandler())


def job_id(text: str) -> int:
    """A job's id on the command line; anything else is wrong usage."""
    if text.isascii() and text.isdecimal() and len(text) <= 19 and 1 <= int(text) <= MAX_ID:
        return int(text)
    raise click.BadParameter("a job's id is a whole number from 1")


def tenant_name(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """A tenant on the command line; what cannot be the name of one is wrong usage."""
    if text is None or TENANT.fullmatch(text):
        return text
    raise click.BadParameter("lower case letters, digits, '-', '_' and '.', at most 63")


def span(text: str) -> float:
    """A time span on the command line, in seconds; anything else is wrong usage."""
    try:
        seconds = float(seconds_of(text))
    except ValueError:
        seconds = 0.0
    if 0 < seconds < float("inf"):
        return seconds
    raise click.BadParameter("not a time span like 30, 1.5, 500ms or 2m")


def payload_of(text: str) -> Any:
    """A payload from the command line, or from standard input where that says `-`.

    Raises:
        InvalidInput: `invalid json: …`.
    """
    if text == "-":
        return decode(sys.stdin.buffer.read())
    return decode(os.fsencode(text))
