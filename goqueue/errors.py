"""What can go wrong, in the terms of the caller. The API maps each class to one HTTP status."""

from collections.abc import Mapping
from typing import Any, Final

MAX_TEXT: Final = 1_000
"""Characters of an error's text; an order may have a hundred wrong fields."""


class GoQueueError(Exception):
    """Base of all errors that GoQueue raises on purpose.

    `message` is one line fit for an API response; `fields` names the offending inputs, where there are any. The text of
    the error (`str`) has both, in one line: `invalid queue: provided lemon; allowed default, email`.
    """

    def __init__(self, message: str, fields: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fields: dict[str, Any] = dict(fields or {})

    def __str__(self) -> str:
        if not self.fields:
            return self.message
        details = "; ".join(f"{name} {_told(value)}" for name, value in self.fields.items())
        text = _in_one_line(f"{self.message}: {details}")
        return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"

    def as_dict(self) -> dict[str, Any]:
        """The one error shape: `{"error": …, "fields": {…}}`, `fields` only where there is something to name."""
        return {"error": self.message, "fields": self.fields} if self.fields else {"error": self.message}


def _told(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple | set | frozenset) else str(value)


def _in_one_line(text: str) -> str:
    """The text without line breaks and control characters: names of fields may come from outside."""
    return text if text.isprintable() else "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class InvalidInput(GoQueueError):
    """The request cannot be accepted as it is; nothing was changed (HTTP 400)."""


class Forbidden(GoQueueError):
    """The caller may not do this (HTTP 403)."""


class NotFound(GoQueueError):
    """There is no such job, schedule or key, or it is not within the caller's reach (HTTP 404)."""


class Conflict(GoQueueError):
    """The state of the job forbids the change (HTTP 409)."""


class KeysHeld(Conflict):
    """Another transaction has written a key of these orders and is not over yet; nothing was written."""


class KeyReused(GoQueueError):
    """An idempotency key came with another request before; nothing was changed (HTTP 422)."""

    def __init__(self) -> None:
        super().__init__(
            "idempotency key was used with another request",
            {"Idempotency-Key": "names the job of another request body"},
        )


class StoreUnavailable(GoQueueError):
    """PostgreSQL cannot be reached or refused the statement; try again (HTTP 503)."""


class StoreContended(StoreUnavailable):
    """Another transaction holds a row for longer than this one waits, or PostgreSQL ended one of two that waited for
    each other. Nothing was written; try again."""


class StoreTimeout(StoreUnavailable):
    """A statement took longer than allowed; whether it took effect is unknown (HTTP 408)."""


class StoreRefused(GoQueueError):
    """PostgreSQL refused a value that passed all our checks; nothing was written (HTTP 400)."""


class BrokerUnavailable(GoQueueError):
    """Redis cannot be used. Jobs are still accepted: the dispatcher pushes them later.

    `reason` is the cause in one line, for logs: it may name hosts, which an API response shall not.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(f"redis is unavailable: {reason}" if reason else "redis is unavailable")
        self.reason = reason

    def as_dict(self) -> dict[str, Any]:
        """The one error shape, without the cause."""
        return {"error": "redis is unavailable"}


class ForeignBroker(BrokerUnavailable):
    """The ready queues in Redis are those of another installation. A process ends by it."""

    def __init__(self, prefix: str) -> None:
        super().__init__("its keys belong to another installation")
        self.message = (
            f"Redis holds the ready queues of another installation under GOQUEUE_REDIS_PREFIX={prefix}: set another "
            "prefix or, in GOQUEUE_REDIS_URL, another database number; if that installation is gone, run "
            "`goqueue redis adopt`"
        )
        self.args = (self.message,)


class StaleSchema(GoQueueError):
    """The database is not at the migration this code needs; run `goqueue migrate`."""


class UnfitDatabase(GoQueueError):
    """The database, the role, or the pooler before it is set up in a way that GoQueue cannot work with; repeating does
    not help. The message says what to change (HTTP 503)."""


class SettingsError(GoQueueError):
    """A setting has a wrong value; the message is one line that names it."""


# What a handler raises to say how its attempt ended.


class HandlerSignal(Exception):
    """Base of the exceptions by which a handler tells the worker what to do with the job."""


class Snooze(HandlerSignal):
    """Run the job again after `seconds` (0 or more), without charging an attempt."""

    def __init__(self, seconds: float, reason: str = "") -> None:
        if not 0 <= seconds <= 366 * 86400:
            raise ValueError("snooze must lie between 0 seconds and a year")
        super().__init__(reason or f"snoozed for {seconds:g} s")
        self.seconds = seconds


class RetryIn(HandlerSignal):
    """This attempt failed; run the job again after `seconds` instead of the usual backoff."""

    def __init__(self, seconds: float, reason: str) -> None:
        if not 0 <= seconds <= 366 * 86400:
            raise ValueError("retry delay must lie between 0 seconds and a year")
        super().__init__(reason)
        self.seconds = seconds


class NeverRetry(HandlerSignal):
    """This attempt failed and another would not help: the job ends in `failed` at once."""
