"""The command itself: start all parts, send one job of each built-in type, stay up until Ctrl-C."""

import secrets
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
from goqueue_cli.dev import view
from goqueue_cli.dev.stack import Stack

JOB_SECONDS = 30.0
"""Longest wait for the first jobs."""


def run(*, once: bool) -> None:
    """`goqueue dev`. With `once` it ends when the first jobs have.

    Raises:
        GoQueueError: a part did not start, or ended; or one of the first jobs did not complete.
    """
    console = Console(highlight=False, soft_wrap=True)
    began = time.monotonic()
    stack = Stack(settings.load(DevSettings).dir, lambda text: console.print(f"[dim]{escape(text)}[/dim]"))
    with _interruptible():
        try:
            with stack, httpx.Client(base_url=stack.api, timeout=10, trust_env=False) as api:
                api.headers.update(stack.headers)
                _greet(console, stack, api)
                _first_jobs(console, stack, api, began)
                if not once:
                    _hints(console, stack)
                    view.watch(console, api, stack.check)
        except httpx.HTTPError as error:
            stack.check()
            raise GoQueueError(f"the API does not answer as it should: {error}") from error
        except KeyboardInterrupt:
            console.print("stopped; the jobs are kept")


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


def _greet(console: Console, stack: Stack, api: httpx.Client) -> None:
    names = [queue["name"] for queue in _get(api, "/queues")["queues"]]
    newest = [job["id"] for name in names for job in _get(api, f"/jobs?queue={name}&limit=1&newest_first=true")]
    console.print(f"GoQueue runs: [bold]{stack.api}[/bold], documentation at {stack.api}/docs")
    kept = f"; the jobs of earlier runs are there, the newest is {max(newest)}" if newest else ""
    if stack.headers:
        console.print(f"Requests need the key in {escape(str(stack.key_file))}, as `Authorization: Bearer …`")
    console.print(f"PostgreSQL, Valkey, mails and logs are in {escape(str(stack.folder))}{kept}")


def _first_jobs(console: Console, stack: Stack, api: httpx.Client, began: float) -> None:
    """Send one job of each built-in type and see them through."""
    waiting = {_create(api, order) for order in _orders(stack.webhooks)}
    failed: list[str] = []
    deadline = time.monotonic() + JOB_SECONDS
    while waiting:
        stack.check()
        for job_id in sorted(waiting):
            job = _get(api, f"/jobs/{job_id}")
            if JobStatus(job["status"]).final:
                waiting.remove(job_id)
                console.print(f"job {job_id} {job['type']}: {job['status']} ({time.monotonic() - began:.1f} s)")
                if job["status"] != JobStatus.COMPLETED:
                    failed.append(f"job {job_id} ({job['type']}) {job['status']}: {job['error']}")
        if time.monotonic() > deadline:
            raise GoQueueError(f"jobs {sorted(waiting)} are not done after {JOB_SECONDS:.0f} s")
        time.sleep(0.02)
    if failed:
        raise GoQueueError("; ".join(failed))


def _get(api: httpx.Client, path: str) -> Any:
    return api.get(path).raise_for_status().json()


def _create(api: httpx.Client, order: dict[str, Any]) -> int:
    return int(api.post("/jobs/create", json=order).raise_for_status().json()["id"])


def _orders(webhooks: str) -> list[dict[str, Any]]:
    return [
        {
            "queue": "email",
            "type": "send_email",
            "payload": {"to": "you@example.org", "subject": "GoQueue runs", "body": "This mail went nowhere."},
        },
        {
            "queue": "webhooks",
            "type": "send_webhook",
            "payload": {"url": f"{webhooks}/hello", "method": "POST", "body": {"from": "goqueue dev"}},
        },
        {
            "queue": "payment",
            "type": "process_payment",
            "payload": {
                "payment_id": f"dev-{secrets.token_hex(6)}",
                "user_id": "you",
                "amount": 12.5,
                "currency": "EUR",
                "method": "card",
            },
        },
    ]


def _hints(console: Console, stack: Stack) -> None:
    body = '{"queue": "email", "payload": {"to": "ada@example.org", "subject": "Hello", "body": "It works."}}'
    lines = [
        "Try:",
        f"  curl -X POST {stack.api}/jobs/create -H 'Content-Type: application/json' -d \\\n    '{body}'",
        f"  curl '{stack.api}/jobs?queue=email&newest_first=true&limit=5'",
        f"  curl {stack.api}/queues",
        f"Webhooks may go to {stack.webhooks}, mails are caught, payments charge nobody. Ctrl-C stops all of it.",
    ]
    for text in lines:
        console.print(escape(text))
