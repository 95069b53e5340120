"""What the commands print: tables for people, the REST API's JSON for machines."""

import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import click
import orjson

F = TypeVar("F", bound=Callable[..., Any])

GAP: Final = "  "


def option(command: F) -> F:
    """Add `--output` to a command, which gets it as `form`."""
    add = click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="`json` prints what the REST API answers; that is nothing for pause, delete and the like.",
    )
    return add(command)


def one(form: str, view: Mapping[str, Any]) -> None:
    """Print one thing in the chosen form."""
    if form == "json":
        as_json(view)
    else:
        as_list(view)


def done(form: str, what: str) -> None:
    """Say what was done; machines read it off the exit code."""
    if form == "table":
        click.echo(what)


def as_json(answer: Any) -> None:
    """Print an answer as the REST API would give it."""
    text = orjson.dumps(answer, option=orjson.OPT_UTC_Z | orjson.OPT_INDENT_2)
    click.echo(text.decode())


def as_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows under their columns; on a terminal the last column ends where the terminal does."""
    cells = [[name.upper() for name in columns], *([cell(value) for value in row] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    for row in cells:
        padded = [text.ljust(width) for text, width in zip(row[:-1], widths[:-1], strict=True)]
        click.echo(_fit(GAP.join([*padded, row[-1]]).rstrip()))


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows under their columns, as Markdown."""
    escaped = ([text.replace("|", r"\|") for text in row] for row in rows)
    head = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*head, *("| " + " | ".join(row) + " |" for row in escaped)])


def as_list(values: Mapping[str, Any]) -> None:
    """Print one thing: a line for each of its values that is not null, whole."""
    width = max(map(len, values))
    for name, value in values.items():
        if value is not None:
            click.echo(f"{name.ljust(width)}{GAP}{cell(value)}")


def cell(value: Any) -> str:
    """A value in one line, without anything that a terminal would obey."""
    if value is None:
        text = ""
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, datetime):
        text = value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    elif isinstance(value, dict | list):
        text = orjson.dumps(value, option=orjson.OPT_UTC_Z).decode()
    else:
        text = f"{value:.15g}" if isinstance(value, float) else str(value)
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _fit(line: str) -> str:
    if not sys.stdout.isatty():
        return line
    width = shutil.get_terminal_size().columns
    return line if len(line) <= width else line[: width - 1] + "…"
