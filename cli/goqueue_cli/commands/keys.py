"""`goqueue keys`."""

from typing import Any

import click
from pydantic import ValidationError

from goqueue import key_management
from goqueue.access import Scope
from goqueue.errors import InvalidInput
from goqueue.key_management import GRACE, NewKey, Rotation
from goqueue.keys import ApiKey, Token
from goqueue.registry import field_errors
from goqueue_api.views import key_view
from goqueue_cli.commands import output
from goqueue_cli.commands.groups import Listing
from goqueue_cli.commands.session import STORES, Session, run, span


@click.group(cls=Listing, epilog=STORES)
def keys() -> None:
    """Make, list, change and revoke API keys; without a command: list them."""


@keys.command(epilog=STORES)
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice([scope.value for scope in Scope]),
    help="What it may do; may be given several times.",
)
@click.option("--tenant", help="Whose jobs it sees and makes; default: the default tenant.")
@click.option("--queue", "queues", multiple=True, help="Only this queue; may be given several times.")
@click.option("--type", "types", multiple=True, help="Only this job type; may be given several times.")
@click.option("--expires-in", type=span, help="Time span after which it ends, e.g. 720h; default: never.")
@output.option
def create(
    name: str,
    scopes: tuple[str, ...],
    tenant: str | None,
    queues: tuple[str, ...],
    types: tuple[str, ...],
    expires_in: float | None,
    form: str,
) -> None:
    """Make a key. It is printed this once."""
    try:
        wanted = NewKey.model_validate(
            {
                "name": name,
                "scopes": list(scopes),
                "tenant": tenant,
                "queues": list(queues) or None,
                "types": list(types) or None,
                "expires_in": expires_in,
            }
        )
    except ValidationError as error:
        raise InvalidInput("validation failed", field_errors(error)) from None

    async def work(session: Session) -> None:
        _show(form, *await key_management.create(session.service.database, wanted, session.actor))

    run(work)


@keys.command("list", epilog=STORES)
@output.option
def find(form: str) -> None:
    """List the keys, the oldest first; never their secrets. A use is written down within half a minute."""

    async def work(session: Session) -> None:
        found = [key_view(key) for key in await key_management.find_all(session.service.database, session.actor)]
        if form == "json":
            output.as_json(found)
            return
        columns = (
            "prefix",
            "name",
            "tenant",
            "queues",
            "types",
            "created_at",
            "expires_at",
            "revoked_at",
            "last_used_at",
            "scopes",
        )
        output.as_table(columns, [[_flat(view)[column] for column in columns] for view in found])

    run(work)


def _flat(view: dict[str, Any]) -> dict[str, Any]:
    restrictions = {name: "all" if view[name] is None else " ".join(view[name]) for name in ("queues", "types")}
    return {**view, **restrictions, "scopes": " ".join(view["scopes"])}


@keys.command(epilog=STORES)
@click.argument("prefix")
@output.option
def revoke(prefix: str, form: str) -> None:
    """Close a key for good. Running API processes notice within GOQUEUE_API_KEY_CACHE (5 s)."""

    async def work(session: Session) -> None:
        await key_management.revoke(session.service.database, prefix, session.actor)
        output.done(form, f"key {prefix} revoked")

    run(work)


@keys.command(epilog=STORES)
@click.argument("prefix")
@click.option("--grace", type=span, help=f"How long the former secret stays good; default {GRACE / 60:.0f}m.")
@click.option("--at-once", is_flag=True, help="The former secret ends now.")
@output.option
def rotate(prefix: str, grace: float | None, at_once: bool, form: str) -> None:
    """Give a key another secret. It is printed this once."""
    try:
        wanted = Rotation(grace=0.0 if at_once else GRACE if grace is None else grace)
    except ValidationError as error:
        raise InvalidInput("validation failed", field_errors(error)) from None

    async def work(session: Session) -> None:
        _show(form, *await key_management.rotate(session.service.database, prefix, wanted, session.actor))

    run(work)


def _show(form: str, key: ApiKey, token: Token) -> None:
    output.one(form, key_view(key, token))
