"""What is said about a Redis that cannot be used: the cause, once for each outage."""

import os
import re
import time
from collections.abc import Iterable
from typing import Final

import structlog
from redis.exceptions import ClusterDownError, OutOfMemoryError, ResponseError
from redis.exceptions import ConnectionError as NotConnected

SHORTEST: Final = 4
"""Characters of a password that is looked for in messages; a shorter one would take words apart."""

log = structlog.get_logger(__name__)

_NOT_CONNECTED = re.compile(r"Error (\d+) connecting to (\S+)\. Connect call failed \([^)]*\)\.?")
"""How redis-py tells a number of the operating system, without the words for it."""


def describe(error: BaseException, secrets: Iterable[str] = ()) -> str:
    """Class and text of an error in one line, without any of the secrets."""
    text = " ".join(str(error).split())
    text = _NOT_CONNECTED.sub(lambda match: f"cannot connect to {match[2]}: {os.strerror(int(match[1]))}", text)
    for secret in secrets:
        if len(secret) >= SHORTEST:
            text = text.replace(secret, "***")
    return f"{type(error).__name__}: {text or 'no answer'}"


def refused(error: BaseException) -> bool:
    """Whether Redis answered, and its answer is that it does not do this. A cluster that is down answers, too."""
    return isinstance(error, ResponseError) and not isinstance(error, NotConnected | ClusterDownError)


def full(error: BaseException) -> bool:
    """Whether Redis refused because its memory is used up; `error` or its cause is the client's."""
    return isinstance(error, OutOfMemoryError) or isinstance(error.__cause__, OutOfMemoryError)


def connection_lost(error: BaseException) -> bool:
    """Whether this is the error by which asyncio's streams say that a connection was closed before it was written to:
    `writelines` uses what is None by then (CPython 3.12 and 3.13, gh-136234)."""
    if isinstance(error, TypeError):
        return "'NoneType' object is not callable" in str(error)
    return isinstance(error, AttributeError) and "'NoneType' object has no attribute '_add_writer'" in str(error)


class Outage:
    """Logs the begin and the end of an outage of one process's Redis, however many commands fail in between."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._refused: set[str] = set()

    @property
    def over(self) -> bool:
        """Whether there is nothing to end: no outage, no refused command."""
        return self._since is None and not self._refused

    def failed(self, work: str, reason: str) -> None:
        """No answer came to `work`."""
        if self._since is None:
            self._since = time.monotonic()
            log.warning("redis is unavailable", during=work, reason=reason)

    def refused(self, work: str, reason: str) -> None:
        """Redis answered that it does not do what `work` needs."""
        if work not in self._refused:
            self._refused.add(work)
            log.warning("redis refuses a command", during=work, reason=reason)

    def succeeded(self, work: str) -> None:
        """Redis did `work`."""
        if self._since is not None:
            log.info("redis is available again", seconds=round(time.monotonic() - self._since, 1))
            self._since = None
        if work in self._refused:
            self._refused.remove(work)
            log.info("redis accepts the command again", during=work)
