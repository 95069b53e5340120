"""The command itself: start all parts, create one job of each built-in type at the first start, stay until Ctrl-C."""

import os
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape

from goqueue import settings
from goqueue.errors import GoQueueError
from goqueue.lifecycle import JobStatus
from goqueue.settings import DevSettings
from goqueue_cli.dev import demo, view
from goqueue_cli.dev.stack import Stack
from goqueue_cli.dev.surroundings import forget_stores

JOB_SECONDS = 30.0
"""Longest wait for the first jobs."""


def run(*, once: bool) -> None:
    """`goqueue dev`. With `once` it creates the first jobs at any start, and ends when they have.

    Raises:
        GoQueueError: a part did not start, or ended; with `once`, one of the first jobs did not complete.
    """
    console = Console(highlight=False, soft_wrap=True)
    began = time.monotonic()
    forget_stores(os.environ)
    stack = Stack(settings.load(DevSettings).dir, lambda text: console.print(f"[dim]{escape(text)}[/dim]"))
    with _interruptible():
        try:
            # A connection for each request: the API closes one that is idle for seconds, maybe as the next is sent.
            lone = httpx.Limits(max_keepalive_connections=0)
            with stack, httpx.Client(base_url=stack.api, timeout=10, trust_env=False, limits=lone) as api:
                api.headers.update(stack.headers)
                try:
                    _serve(console, stack, api, began, once=once)
                except KeyboardInterrupt:
                    console.print("stopping; running jobs have GOQUEUE_WORKER_GRACE_SECONDS to finish")
                    raise
                except httpx.HTTPError as error:
                    stack.check()  # while the parts run: after the block they have all ended
                    raise GoQueueError(f"the API does not answer as it should: {_words_of(error)}") from error
        except KeyboardInterrupt:
            console.print("stopped; the jobs are kept")


def _serve(console: Console, stack: Stack, api: httpx.Client, began: float, *, once: bool) -> None:
    _greet(console, stack)
    _tell_of_paused(console, api)
    if once or stack.newest_job is None:
        problems = _first_jobs(console, stack, api, began)
        if once and problems:
            raise GoQueueError("; ".join(problems))
    if not once:
        _hints(console, stack)
        view.watch(console, api, stack.check)


def _words_of(error: httpx.HTTPError) -> str:
    """What went wrong; where the API refused something, in its own words."""
    if not isinstance(error, httpx.HTTPStatusError):
        return str(error)
    request, answer = error.request, error.response
    return f"{request.method} {request.url.path}: {answer.status_code} {' '.join(answer.text.split())[:500]}"


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and SIGINT interrupt once; more of them do not disturb the orderly stop."""

    def interrupt(*_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _greet(console: Console, stack: Stack) -> None:
    console.print(f"GoQueue runs: [bold]{stack.api}[/bold], documentation at {stack.api}/docs")
    newest = stack.newest_job
    kept = f"; the jobs of earlier runs are there, the newest is {newest}" if newest else ""
    if stack.headers:
        console.print(f"Requests need the key in {escape(str(stack.key_file))}, as `Authorization: Bearer …`")
    else:
        console.print("Requests need no key; a key that they show is checked")
    console.print(f"PostgreSQL, Valkey, mails and logs are in {escape(str(stack.folder))}{kept}")


def _tell_of_paused(console: Console, api: httpx.Client) -> None:
    """A pause outlives a restart, and nothing else would say why jobs wait."""
    for queue in _get(api, "/queues")["queues"]:
        if queue["paused"]:
            name = escape(queue["name"])
            console.print(f"queue {name} is paused: its jobs wait until `goqueue queues resume {name}`")


def _first_jobs(console: Console, stack: Stack, api: httpx.Client, began: float) -> list[str]:
    """Create one job of each built-in type and see them through; return what went wrong."""
    waiting: dict[int, str] = {}
    for order in demo.orders(api, stack.webhooks, stack.received):
        if order.obstacle:
            console.print(f"{order.type}: no first job, {escape(order.obstacle)}")
        else:
            waiting[_create(api, order.body)] = order.type
    problems: list[str] = []
    deadline = time.monotonic() + JOB_SECONDS
    while waiting and time.monotonic() < deadline:
        stack.check()
        for job_id in sorted(waiting):
            job = _get(api, f"/jobs/{job_id}")
            if JobStatus(job["status"]).final:
                del waiting[job_id]
                console.print(f"job {job_id} {job['type']}: {job['status']} ({time.monotonic() - began:.1f} s)")
                if job["status"] != JobStatus.COMPLETED:
                    problems.append(f"job {job_id} ({job['type']}) {job['status']}: {job['error']}")
        time.sleep(0.02)
    for job_id, kind in waiting.items():
        problems.append(f"job {job_id} ({kind}) is not done after {JOB_SECONDS:.0f} s: `goqueue jobs get {job_id}`")
    for problem in problems:
        console.print(escape(problem))
    return problems


def _get(api: httpx.Client, path: str) -> Any:
    return api.get(path).raise_for_status().json()


def _create(api: httpx.Client, order: dict[str, Any]) -> int:
    return int(api.post("/jobs/create", json=order).raise_for_status().json()["id"])


def _hints(console: Console, stack: Stack) -> None:
    body = '{"queue": "email", "payload": {"to": "ada@example.org", "subject": "Hello", "body": "It works."}}'
    key = f' \\\n    -H "Authorization: Bearer $(cat {shlex.quote(str(stack.key_file))})"' if stack.headers else ""
    lines = [
        "Try:",
        f"  curl -X POST {stack.api}/jobs/create -H 'Content-Type: application/json' -d \\\n    '{body}'{key}",
        f"  curl '{stack.api}/jobs?queue=email&newest_first=true&limit=5'{key}",
        f"  curl {stack.api}/queues{key}",
        "For the console or a Python program in the shell of another folder:",
        f"  set -a; . {shlex.quote(str(stack.environment_file))}; set +a",
        "Changed code of job types is loaded at the next start.",
        f"{_where_jobs_go(stack)}Ctrl-C stops all of it.",
    ]
    for text in lines:
        console.print(escape(text))


def _where_jobs_go(stack: Stack) -> str:
    told = {
        "send_webhook": f"Webhooks may go to {stack.webhooks}. ",
        "send_email": "Mails are caught. ",
        "process_payment": "Payments charge nobody. ",
    }
    return "".join(text for kind, text in told.items() if kind in stack.received)
