"""`goqueue redis`."""

import click

from goqueue import settings
from goqueue.broker import acl
from goqueue.errors import GoQueueError
from goqueue.settings import RedisSettings


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
