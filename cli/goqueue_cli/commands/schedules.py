"""`goqueue schedules`."""

from typing import Any, Final

import click
from pydantic import ValidationError

from goqueue.errors import InvalidInput, NotFound
from goqueue.registry import Registry, field_errors
from goqueue.store import schedules as store
from goqueue.store.schedules import Schedule
from goqueue_api.plans import SchedulePut, first_tick, schedule_name, schedule_view
from goqueue_api.schedule_acts import run_now, switch
from goqueue_api.views import job_view
from goqueue_cli.commands import output
from goqueue_cli.commands.groups import Listing
from goqueue_cli.commands.jobs import given, order_options
from goqueue_cli.commands.session import STORES, Session, payload_of, run, tenant_name

TENANT: Final = click.option(
    "--tenant", callback=tenant_name, help="Whose schedule it is; default: the default tenant."
)


@click.group(cls=Listing, epilog=STORES)
def schedules() -> None:
    """Show and change cron schedules; without a command: list them."""


@schedules.command("list", epilog=STORES)
@output.option
def find(form: str) -> None:
    """List the schedules by name."""

    async def work(session: Session) -> None:
        database = session.service.database
        async with database.connection() as connection:
            found = [schedule_view(schedule) for schedule in await store.list_all(connection, database.keyring)]
        if form == "json":
            output.as_json(found)
            return
        columns = (
            "name",
            "tenant",
            "enabled",
            "cron",
            "time_zone",
            "queue",
            "type",
            "last_job_id",
            "last_tick",
            "next_tick",
        )
        output.as_table(columns, [[_flat(view)[column] for column in columns] for view in found])

    run(work)


def _flat(view: dict[str, Any]) -> dict[str, Any]:
    job = view["job"]
    return {
        **view,
        "queue": job.get("queue"),
        "type": job.get("type"),
        "next_tick": next(iter(view["next_ticks"]), view["cannot_fire"]),
    }


@schedules.command(epilog=STORES)
@click.argument("name")
@click.option("--cron", required=True, help="Five fields, e.g. '0 6 * * 1-5', or a name, e.g. @daily.")
@click.option("--time-zone", default="UTC", show_default=True, help="IANA name, e.g. Europe/Berlin.")
@click.option("--type", required=True, help="Type of the job that it makes.")
@click.option("--payload", default="{}", show_default=True, help="JSON object, or - for standard input.")
@click.option("--enabled/--disabled", default=True, help="Whether it fires.")
@TENANT
@order_options
@output.option
def put(
    name: str,
    cron: str,
    time_zone: str,
    type: str,
    payload: str,
    enabled: bool,
    tenant: str | None,
    form: str,
    **options: Any,
) -> None:
    """Create or replace a schedule. It fires next at the first time from now on, or as before if its times stay."""
    job = {"type": type, "payload": payload_of(payload), **given(options)}

    async def work(session: Session) -> None:
        chosen = schedule_name(name)
        types = session.types(type)
        body = {
            "cron": cron,
            "time_zone": time_zone,
            "job": {"queue": _queue_of(type, types), **job},
            "enabled": enabled,
        }
        try:
            wanted = SchedulePut.model_validate(body)
        except ValidationError as error:
            raise InvalidInput("validation failed", field_errors(error)) from None
        tick, _ = first_tick(wanted, types, session.queues)
        database = session.service.database
        async with database.connection() as connection:
            schedule, created = await store.put(
                connection,
                chosen,
                cron,
                time_zone,
                wanted.job,
                enabled,
                tick,
                database.keyring,
                tenant=tenant,
                actor=session.actor,
            )
        if form == "json":
            output.as_json(schedule_view(schedule))
            return
        fires = f"it fires next at {output.cell(schedule.next_tick)}" if enabled else "it is disabled"
        click.echo(f"schedule {chosen} {'created' if created else 'replaced'}; {fires}")

    run(work)


def _queue_of(type: str, types: Registry) -> str:
    kind = types.get(type)
    if kind is None:
        raise InvalidInput("invalid job type", {"provided": type, "allowed": types.names()})
    return kind.queue


@schedules.command(epilog=STORES)
@click.argument("name")
@TENANT
@output.option
def pause(name: str, tenant: str | None, form: str) -> None:
    """Let a schedule fire no more until it is resumed; its definition stays."""

    async def work(session: Session) -> None:
        changed = await _switched(session, name, tenant, enabled=False)
        if form == "json":
            output.as_json(schedule_view(changed))
        else:
            click.echo(f"schedule {changed.name} paused")

    run(work)


@schedules.command(epilog=STORES)
@click.argument("name")
@TENANT
@output.option
def resume(name: str, tenant: str | None, form: str) -> None:
    """Let a paused schedule fire again, next at the first time from now on."""

    async def work(session: Session) -> None:
        changed = await _switched(session, name, tenant, enabled=True)
        if form == "json":
            output.as_json(schedule_view(changed))
        else:
            click.echo(f"schedule {changed.name} resumed; it fires next at {output.cell(changed.next_tick)}")

    run(work)


async def _switched(session: Session, name: str, tenant: str | None, *, enabled: bool) -> Schedule:
    return await switch(session.service.database, schedule_name(name), tenant, session.actor, enabled=enabled)


@schedules.command("run", epilog=STORES)
@click.argument("name")
@TENANT
@output.option
def fire(name: str, tenant: str | None, form: str) -> None:
    """Create a schedule's job now, paused or not. When it fires next does not change."""

    async def work(session: Session) -> None:
        chosen, types = schedule_name(name), session.types()
        _, made = await run_now(session.service, types, session.queues, chosen, tenant, session.actor)
        if form == "json":
            output.as_json(job_view(await session.service.get(made.id)))
        else:
            how = "created" if made.created else "of an earlier run has not ended yet"
            click.echo(f"job {made.id} of schedule {chosen} {how}")

    run(work)


@schedules.command(epilog=STORES)
@click.argument("name")
@TENANT
@output.option
def delete(name: str, tenant: str | None, form: str) -> None:
    """Remove a schedule; the jobs it made stay."""

    async def work(session: Session) -> None:
        chosen = schedule_name(name)
        async with session.service.database.connection() as connection:
            if not await store.delete(connection, chosen, tenant=tenant, actor=session.actor):
                raise NotFound("schedule not found")
        output.done(form, f"schedule {chosen} deleted")

    run(work)
