"""`goqueue audit`."""

import click

from goqueue.job import MAX_ID
from goqueue.store import audit as store
from goqueue_cli.commands import output
from goqueue_cli.commands.session import STORES, Session, run, tenant_name

COLUMNS = ("id", "at", "actor", "action", "object", "tenant", "address", "request_id", "details")


@click.command(epilog=STORES)
@click.option("--tenant", callback=tenant_name, help="Only what was done with this tenant; default: with all.")
@click.option("--before", type=click.IntRange(1, MAX_ID), default=MAX_ID, help="Only entries with a lower id.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="As many at most.")
@output.option
def audit(tenant: str | None, before: int, limit: int, form: str) -> None:
    """Show who did what, the newest first: with keys, queues, schedules and jobs."""

    async def work(session: Session) -> None:
        async with session.service.database.connection() as connection:
            found = await store.find(connection, tenant=tenant, all_tenants=tenant is None, before=before, limit=limit)
        if form == "json":
            output.as_json(found)
            return
        output.as_table(COLUMNS, [[getattr(entry, column) for column in COLUMNS] for entry in found])

    run(work)
