"""docs/schedules.md: what its tables say of GoQueue is what GoQueue does."""

from datetime import UTC, datetime
from itertools import islice, takewhile
from pathlib import Path

import pytest

from goqueue import cron
from goqueue.errors import InvalidInput

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "schedules.md").read_text()
REFUSED = "–"
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)
BERLIN = "Europe/Berlin"


def tables(header: str) -> list[list[list[str]]]:
    """The cells of each table whose header begins so."""
    found = [text.splitlines()[2:] for text in PAGE.split(f"\n{header}")[1:]]
    return [
        [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in takewhile(_is_row, lines)]
        for lines in found
    ]


def _is_row(line: str) -> bool:
    return line.startswith("|")


DAYS, NAMES = ([row[:2] for row in found] for found in tables("| Line | GoQueue |"))
(CHANGES,) = tables("| Line | 28 March 2027 | 25 October 2026 |")


def fires(line: str, form: str, count: int) -> str:
    try:
        cron.check(line)
        return " ".join(f"{tick:{form}}" for tick in islice(cron.ticks(line, "UTC", DECEMBER), count))
    except InvalidInput:
        return REFUSED


@pytest.mark.parametrize(("line", "said"), DAYS)
def test_a_line_fires_on_the_days_that_the_page_says(line: str, said: str) -> None:
    assert fires(line, "%m-%d", 3) == said
    if said != REFUSED:
        assert fires(line, "%H:%M", 1) == "09:00"


@pytest.mark.parametrize(("line", "said"), NAMES)
def test_names_steps_and_prefixes_are_as_the_page_says(line: str, said: str) -> None:
    assert fires(line, "%m-%dT%H:%M", 2) == said


@pytest.mark.parametrize(("line", "gap", "twice"), CHANGES)
def test_the_clock_changes_of_berlin_are_as_the_page_says(line: str, gap: str, twice: str) -> None:
    zone = cron.zone(BERLIN)
    for said, day in ((gap, datetime(2027, 3, 28, tzinfo=zone)), (twice, datetime(2026, 10, 25, tzinfo=zone))):
        before = datetime.fromtimestamp(day.timestamp() - 1, UTC)
        ticks = islice(cron.ticks(line, BERLIN, before), 12)
        assert " ".join(f"{tick:%H:%M}" for tick in ticks if tick < day.replace(hour=4).astimezone(UTC)) == said


def test_the_comparison_of_clock_changes_has_our_values() -> None:
    ours = next(line for line in PAGE.splitlines() if line.startswith("| GoQueue |"))
    _, gap, twice, hourly = (cell.strip() for cell in ours.strip("|").split("|"))
    changes = {line: rest for line, *rest in CHANGES}
    assert changes["30 2 * * *"] == [gap, twice]
    assert hourly in changes["30 * * * *"][1]
