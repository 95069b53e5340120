"""What `goqueue dev` shows while it stays up: the queues, live on a terminal, as lines elsewhere."""

import time
from collections.abc import Callable
from typing import Any

import httpx
from rich.console import Console
from rich.live import Live
from rich.table import Table

LIVE_SECONDS = 0.5
LINES_SECONDS = 5.0


def table(queues: list[dict[str, Any]]) -> Table:
    """The answer of GET /queues as a table."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("queue")
    for column in ("waiting", "oldest", "running", "in/s", "done/s"):
        shown.add_column(column, justify="right")
    for queue in queues:
        oldest = "" if queue["oldest_seconds"] is None else f"{queue['oldest_seconds']:.1f} s"
        rates = [_rate(queue["arrived_per_second"]), _rate(queue["finished_per_second"])]
        shown.add_row(_name(queue), str(queue["depth"]), oldest, str(queue["in_flight"]), *rates)
    return shown


def _name(queue: dict[str, Any]) -> str:
    return f"{queue['name']} (paused)" if queue["paused"] else str(queue["name"])


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def line(queues: list[dict[str, Any]]) -> str:
    """The same in one line: only queues in which something waits or runs."""
    busy = [
        f"{_name(queue)}: {queue['depth']} waiting, {queue['in_flight']} running"
        for queue in queues
        if queue["depth"] or queue["in_flight"]
    ]
    return "; ".join(busy) or "all queues are empty"


def watch(console: Console, api: httpx.Client, check: Callable[[], None]) -> None:
    """Show the queues until somebody interrupts; `check` raises when a part has ended."""
    if console.is_terminal:
        _watch_live(console, api, check)
    else:
        _watch_lines(console, api, check)


def _watch_live(console: Console, api: httpx.Client, check: Callable[[], None]) -> None:
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            check()
            queues = _queues(api)
            if queues is not None:
                live.update(table(queues), refresh=True)
            time.sleep(LIVE_SECONDS)


def _watch_lines(console: Console, api: httpx.Client, check: Callable[[], None]) -> None:
    before = ""
    while True:
        check()
        queues = _queues(api)
        if queues is not None and (now := line(queues)) != before:
            console.print(now)
            before = now
        time.sleep(LINES_SECONDS)


def _queues(api: httpx.Client) -> list[dict[str, Any]] | None:
    """None while the API does not answer, which `check` explains if it lasts."""
    try:
        answer = api.get("/queues")
        answer.raise_for_status()
    except httpx.HTTPError:
        return None
    queues: list[dict[str, Any]] = answer.json()["queues"]
    return queues
