"""The `goqueue` command. Every part is imported by the subcommand that needs it, so that each process stays lean."""

import importlib
import signal
import sys
from typing import Any, Final

import click

OPERATING: Final = {
    "audit": "goqueue_cli.commands.audit",
    "encryption": "goqueue_cli.commands.encryption",
    "enqueue": "goqueue_cli.commands.jobs",
    "jobs": "goqueue_cli.commands.jobs",
    "keys": "goqueue_cli.commands.keys",
    "metrics": "goqueue_cli.commands.metrics",
    "queues": "goqueue_cli.commands.queues",
    "redis": "goqueue_cli.commands.redis",
    "schedules": "goqueue_cli.commands.schedules",
    "settings": "goqueue_cli.commands.settings",
}
"""Commands that stand in modules of their own, imported when one is called."""

EXTRAS: Final = {
    "api": ("api",),
    "dev": ("api", "embedded", "worker"),
    "operator": ("operator",),
    "worker": ("worker",),
}
"""Commands that need more than `pip install goqueue` brings, and the extras that bring it."""


class _Group(click.Group):
    """Errors that we raise on purpose, and packages that are not installed, end the process with one line, not with a
    traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *OPERATING])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in OPERATING:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(importlib.import_module(OPERATING[cmd_name]), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            from goqueue.errors import GoQueueError  # brings pydantic along: not before SIGTERM is heard

            if isinstance(error, ModuleNotFoundError) and ctx.invoked_subcommand in EXTRAS:
                click.echo(f"goqueue: {_missing(ctx.invoked_subcommand, error)}", err=True)
                sys.exit(1)
            if not isinstance(error, GoQueueError):
                raise
            detail = f" {error.fields}" if error.fields else ""
            click.echo(f"goqueue: {error.message}{detail}", err=True)
            sys.exit(1)


def _missing(command: str, error: ModuleNotFoundError) -> str:
    extras = EXTRAS[command]
    named = f"extra {extras[0]}" if len(extras) == 1 else f"extras {', '.join(extras[:-1])} and {extras[-1]}"
    return f"`goqueue {command}` needs the {named}: pip install 'goqueue[{','.join(extras)}]' ({error})"


def _hear_sigterm() -> None:
    """End on SIGTERM from here on, until the process has a handler of its own.

    In a container it is process 1, to which Linux delivers no signal that it does not handle: a pod that is deleted
    while it imports would go on, take jobs, and be killed with them when its grace period is over.
    """
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def _say_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from importlib.metadata import version

    from goqueue import zonedata

    click.echo(f"goqueue, version {version('goqueue')}")
    click.echo(f"zone data {zonedata.release()}")
    context.exit()


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_say_version,
    help="Show the version and the release of the time zone data, and exit.",
)
def main() -> None:
    """Background jobs on PostgreSQL and Redis."""


@main.command()
def api() -> None:
    """Serve the REST API."""
    _hear_sigterm()
    from goqueue_cli import processes

    processes.api()


@main.command()
def worker() -> None:
    """Run jobs."""
    _hear_sigterm()
    from goqueue_cli import processes

    processes.worker()


@main.command()
def scheduler() -> None:
    """Dispatch, rescue, fire schedules, prune (one leader among any number)."""
    _hear_sigterm()
    from goqueue_cli import processes

    processes.scheduler()


@main.command()
def operator() -> None:
    """Make custom resources of Kubernetes work (one leader among any number)."""
    _hear_sigterm()
    from goqueue_cli import processes

    processes.operator()


@main.command()
@click.option(
    "--check", is_flag=True, help="Change no table, only say whether the schema is current; exit 1 where it is not."
)
@click.option("--to", "revision", default="head", show_default=True, help="Revision to go to.")
@click.option(
    "--grant-to",
    "roles",
    multiple=True,
    metavar="ROLE",
    envvar="GOQUEUE_MIGRATE_GRANT_TO",
    help="Give this role the rights on rows that the processes need, and no others; with --check, too.",
)
def migrate(check: bool, revision: str, roles: tuple[str, ...]) -> None:
    """Bring the database schema to this version."""
    _hear_sigterm()
    from goqueue_cli import processes

    processes.migrate(revision, only_check=check, grant_to=roles)


@main.command()
@click.option("--once", is_flag=True, help="Create a job of each built-in type, and end when they are done.")
def dev(once: bool) -> None:
    """Run everything on an embedded PostgreSQL and Valkey, for development."""
    from goqueue_cli.dev.run import run

    run(once=once)
