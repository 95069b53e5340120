"""`goqueue queues`."""

import click

from goqueue.errors import InvalidInput, SettingsError
from goqueue.overview import seen
from goqueue_api.overview import overview
from goqueue_api.rates import Rates
from goqueue_cli.commands import output
from goqueue_cli.commands.groups import Listing
from goqueue_cli.commands.session import STORES, Session, run


@click.group(cls=Listing, epilog=STORES)
def queues() -> None:
    """Show, pause and resume queues; without a command: list them."""


@queues.command("list", epilog=STORES)
@output.option
def find(form: str) -> None:
    """List the queues: how much waits, how much runs."""

    async def work(session: Session) -> None:
        # Rates are measured over time, by the API; here they are null.
        _load_types(session)
        found = await overview(session.service, session.queues, Rates())
        if form == "json":
            output.as_json(found)
            return
        columns = ("name", "paused", "depth", "oldest_seconds", "in_flight", "workers")
        output.as_table(columns, [[queue[column] for column in columns] for queue in found["queues"]])
        if found["degraded"]:
            click.echo("goqueue: redis is away; the depths are PostgreSQL's count", err=True)

    run(work)


@queues.command(epilog=STORES)
@click.argument("name")
@output.option
def pause(name: str, form: str) -> None:
    """Let no worker fetch from a queue; running jobs go on, new ones are accepted."""

    async def work(session: Session) -> None:
        await session.service.pause(await _existing(name, session), session.actor)
        output.done(form, f"queue {name} paused")

    run(work)


@queues.command(epilog=STORES)
@click.argument("name")
@output.option
def resume(name: str, form: str) -> None:
    """Let workers fetch from a queue again."""

    async def work(session: Session) -> None:
        await session.service.resume(await _existing(name, session), session.actor)
        output.done(form, f"queue {name} resumed")

    run(work)


async def _existing(name: str, session: Session) -> str:
    _load_types(session)
    if name not in session.queues and name not in (others := await seen(session.service)):
        raise InvalidInput("invalid queue", {"provided": name, "allowed": sorted({*session.queues, *others})})
    return name


def _load_types(session: Session) -> None:
    """Learn the queues of all types. In an incident this console must work even where a module of them does not."""
    try:
        session.types()
    except SettingsError as error:
        click.echo(f"goqueue: {error.message}; queues of its types are known only where they are in use", err=True)
