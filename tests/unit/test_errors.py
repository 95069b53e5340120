"""What an error says of itself: whole in tracebacks and logs, in two parts over the API."""

import pickle

import pytest

from goqueue.errors import MAX_TEXT, Conflict, GoQueueError, InvalidInput


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InvalidInput("invalid ID"), "invalid ID"),
        (
            InvalidInput("invalid queue", {"provided": "lemon", "allowed": ["default", "email"]}),
            "invalid queue: provided lemon; allowed default, email",
        ),
        (
            InvalidInput("payload validation failed", {"to": "Field required", "index": 3}),
            "payload validation failed: to Field required; index 3",
        ),
        (Conflict("a completed job cannot be retried", {"status": "completed"}), None),
        (
            InvalidInput("validation failed", {"a\nb\x1b[31m": "x\u2028y"}),
            "validation failed: a\\nb\\x1b[31m x\\u2028y",
        ),
    ],
)
def test_the_text_names_the_fields_in_one_line(error: GoQueueError, text: str | None) -> None:
    assert str(error) == (text or "a completed job cannot be retried: status completed")


def test_the_answer_of_the_api_keeps_message_and_fields_apart() -> None:
    error = InvalidInput("invalid queue", {"provided": "lemon"})
    assert error.as_dict() == {"error": "invalid queue", "fields": {"provided": "lemon"}}
    assert error.message == "invalid queue"


def test_an_error_with_a_hundred_fields_is_cut() -> None:
    text = str(InvalidInput("validation failed", {f"field{number}": "x" * 50 for number in range(100)}))
    assert len(text) == MAX_TEXT
    assert text.endswith("…")


def test_an_error_that_comes_back_from_another_process_is_whole() -> None:
    error = pickle.loads(pickle.dumps(InvalidInput("invalid queue", {"provided": "lemon"})))  # noqa: S301 - our own
    assert (type(error), str(error), error.fields) == (
        InvalidInput,
        "invalid queue: provided lemon",
        {"provided": "lemon"},
    )
