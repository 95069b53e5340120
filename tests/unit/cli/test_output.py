"""Tables: aligned, and without anything that a terminal would obey."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from goqueue_cli.commands import output


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (True, "yes"),
        (0, "0"),
        (1.5, "1.5"),
        (86400.0, "86400"),
        (123456789.0, "123456789"),
        ("Zoë", "Zoë"),
        ("a\x1b[31mb\nc\t\x9b\u202e", r"a\x1b[31mb\nc\t\x9b\u202e"),
        ({"to": "ada"}, '{"to":"ada"}'),
        (datetime(2030, 1, 31, 9, tzinfo=timezone(timedelta(hours=1))), "2030-01-31 08:00:00Z"),
        (datetime(2030, 1, 31, 8, 0, 0, 999_999, UTC), "2030-01-31 08:00:00Z"),
    ],
)
def test_a_value_is_shown_in_one_printable_line(value: object, shown: str) -> None:
    assert output.cell(value) == shown


def test_columns_stand_under_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    output.as_table(("id", "error"), [(1, "x"), (1000, None)])
    assert capsys.readouterr().out == "ID    ERROR\n1     x\n1000\n"


def test_one_thing_is_shown_without_what_it_has_not(capsys: pytest.CaptureFixture[str]) -> None:
    output.as_list({"id": 1, "error": None, "status": "pending"})
    assert capsys.readouterr().out == "id      1\nstatus  pending\n"
