"""`goqueue enqueue` and `goqueue jobs`."""

from typing import Any, cast

import click

from goqueue.access import Reach
from goqueue.errors import Conflict, GoQueueError, NotFound
from goqueue.job import Job, JobFilter
from goqueue.library import Options, build
from goqueue.lifecycle import JobStatus
from goqueue_api.views import job_view
from goqueue_cli.commands import output
from goqueue_cli.commands.groups import Listing
from goqueue_cli.commands.session import STORES, Session, job_id, payload_of, run, span

MAX_PAGE = 1000


def order_options(command: output.F) -> output.F:
    """Add what may be said about a job beside its type and payload."""
    for option in (
        click.option("--unique-key", help="While a job with this key has not ended, no second one is made."),
        click.option("--timeout", type=span, help="Longest run of one attempt; default: the type's own."),
        click.option("--max-retries", type=int, help="Attempts beyond the first; default 5."),
        click.option("--priority", type=int, help="From -100 to 100, the higher the sooner; default 0."),
        click.option("--queue", help="Default: the type's own."),
    ):
        command = option(command)
    return command


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were named."""
    return {name: value for name, value in options.items() if value is not None}


@click.command(epilog=STORES)
@click.argument("type")
@click.argument("payload", default="{}")
@order_options
@click.option("--tenant", help="Whose job it is; default: the default tenant.")
@click.option("--available-at", metavar="TIME", help="Not before this time, e.g. 2030-01-31T08:00:00Z.")
@click.option("--wait", type=span, help="Wait so long for the job's end; exit 1 unless it completed.")
@output.option
def enqueue(type: str, payload: str, wait: float | None, form: str, **options: Any) -> None:
    """Enqueue a job.

    PAYLOAD is a JSON object, or - for standard input; left out it is {}.
    """
    content = payload_of(payload)

    async def work(session: Session) -> None:
        order = build(type, content, cast(Options, given(options)), session.types(type), session.queues)
        made = await session.service.enqueue(order)
        if form == "table":
            click.echo(f"job {made.id} " + (f"enqueued in {order.queue}" if made.created else "stood there already"))
        try:
            job = await session.client.get(made.id) if wait is None else await _end_of(session, made.id, wait)
        except NotFound:
            raise Conflict(f"job {made.id} was deleted") from None
        except GoQueueError as error:
            raise GoQueueError(f"job {made.id} was enqueued, but: {error.message}") from error
        if form == "json":
            output.as_json(job_view(job))
        elif wait is not None:
            output.as_list(job_view(job))
        if wait is not None and not job.status.final:
            raise GoQueueError(f"job {job.id} is {job.status} after {wait:g} s")
        if wait is not None and job.status is not JobStatus.COMPLETED:
            raise GoQueueError(f"job {job.id} is {job.status}")

    run(work)


async def _end_of(session: Session, job_id: int, seconds: float) -> Job:
    """The job once it has ended, or as it is after that time."""
    try:
        return await session.client.wait(job_id, seconds)
    except TimeoutError:
        return await session.client.get(job_id)


@click.group(cls=Listing, epilog=STORES)
def jobs() -> None:
    """Show and steer jobs; without a command: list the newest."""


@jobs.command("list", epilog=STORES)
@click.option("--queue", help="Only jobs of this queue.")
@click.option("--status", type=click.Choice([status.value for status in JobStatus]), help="Only jobs in this state.")
@click.option("--type", help="Only jobs of this type.")
@click.option("--tenant", help="Only jobs of this tenant; default: of all.")
@click.option("--limit", type=click.IntRange(1, MAX_PAGE), default=50, show_default=True, help="As many at most.")
@output.option
def find(queue: str | None, status: str | None, type: str | None, tenant: str | None, limit: int, form: str) -> None:
    """List jobs, the newest first."""
    reach = None if tenant is None else Reach(tenant)
    state = JobStatus(status) if status else None
    wanted = JobFilter(queue, type, state, newest_first=True, limit=limit, reach=reach)

    async def work(session: Session) -> None:
        found = [job_view(job) for job in await session.service.find(wanted)]
        if form == "json":
            output.as_json(found)
        else:
            columns = ("id", "status", "queue", "type", "attempts", "created_at", "finished_at", "error")
            output.as_table(columns, [[job[column] for column in columns] for job in found])

    run(work)


@jobs.command(epilog=STORES)
@click.argument("id", type=job_id)
@output.option
def get(id: int, form: str) -> None:
    """Show a job."""

    async def work(session: Session) -> None:
        output.one(form, job_view(await session.service.get(id)))

    run(work)


@jobs.command(epilog=STORES)
@click.argument("id", type=job_id)
@output.option
def attempts(id: int, form: str) -> None:
    """Show a job's finished attempts, and what its handler logged."""

    async def work(session: Session) -> None:
        _, lines = await session.service.history(id, limit=1)
        ended = await session.service.attempts(id)
        if form == "json":
            output.as_json({"attempts": ended, "logs": lines})
            return
        columns = ("round", "attempt", "outcome", "worker", "started_at", "finished_at", "error")
        output.as_table(columns, [[getattr(one, column) for column in columns] for one in ended])
        if lines:
            click.echo()
            parts = ("round", "attempt", "at", "level", "message")
            output.as_table(parts, [[line[part] for part in parts] for line in lines])

    run(work)


@jobs.command(epilog=STORES)
@click.argument("id", type=job_id)
@output.option
def cancel(id: int, form: str) -> None:
    """Cancel a job: at once if it waits; a running one is asked to stop."""

    async def work(session: Session) -> None:
        status = await session.service.cancel(id, session.actor)
        if form == "json":
            output.as_json({"status": status.value})
        else:
            done = "cancelled" if status is JobStatus.CANCELLED else "runs; its worker was asked to stop"
            click.echo(f"job {id} {done}")

    run(work)


@jobs.command(epilog=STORES)
@click.argument("id", type=job_id)
@output.option
def retry(id: int, form: str) -> None:
    """Give a failed or cancelled job a fresh set of attempts, at once."""

    async def work(session: Session) -> None:
        await session.service.retry(id, session.actor)
        if form == "json":
            output.as_json(job_view(await session.service.get(id)))
        else:
            click.echo(f"job {id} is pending again")

    run(work)


@jobs.command(epilog=STORES)
@click.argument("id", type=job_id)
@output.option
def delete(id: int, form: str) -> None:
    """Hide a job; an open one is cancelled first. Retention removes it for good."""

    async def work(session: Session) -> None:
        await session.service.delete(id, session.actor)
        output.done(form, f"job {id} deleted")

    run(work)
