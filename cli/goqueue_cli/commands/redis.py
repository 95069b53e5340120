"""`goqueue redis`."""

import click

from goqueue import settings
from goqueue.broker import acl
from goqueue.errors import GoQueueError
from goqueue.settings import RedisSettings
from goqueue.store import installation
from goqueue_cli.commands.session import STORES, Session, run


@click.group()
def redis() -> None:
    """What concerns Redis or Valkey itself."""


@redis.command("acl")
@click.option("--user", default="goqueue", show_default=True, help="Its name.")
def show(user: str) -> None:
    """Print the user that the processes need, as a line of an ACL file; its password is to be added.

    Keys and channels are those of GOQUEUE_REDIS_PREFIX. Nothing is connected to.
    """
    chosen = settings.load(RedisSettings)
    try:
        click.echo(acl.user(user, chosen.prefix, cluster=chosen.cluster))
    except ValueError as error:
        raise GoQueueError(str(error)) from None


@redis.command(epilog=STORES)
def adopt() -> None:
    """Make the ready queues in Redis those of this database's installation.

    For a database that takes the place of another one, which nothing uses any more. Ids of the other one's jobs that
    wait in Redis are left out when they are fetched; the scheduler adds those of this one.
    """

    async def work(session: Session) -> None:
        async with session.service.database.connection() as connection:
            own = await installation.read(connection)
        if own is None:
            raise GoQueueError("cannot read the id of this installation: run `goqueue migrate`")
        former = await session.service.broker.adopt(own)
        click.echo("unchanged" if former == own else f"now of installation {own} (before: {former or 'none'})")

    run(work)
