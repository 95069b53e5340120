"""What every route works with."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import cast

from fastapi import Request

from goqueue.access import Actor
from goqueue.errors import InvalidInput
from goqueue.job import MAX_ID
from goqueue.registry import Registry
from goqueue.service import JobService
from goqueue_api.access import Caller, Gate
from goqueue_api.memory import Memory
from goqueue_api.quotas import Quotas
from goqueue_api.rates import Rates


@dataclass(frozen=True)
class Context:
    """The parts of a running API."""

    service: JobService
    registry: Registry
    queues: Collection[str]
    rates: Rates
    gate: Gate
    memory: Memory
    quotas: Quotas | None = None
    """None: any number of jobs may wait."""
    search_seconds: float = 1.5
    """How long a listing searches for the jobs of a page."""


def context(request: Request) -> Context:
    """The context of the app that serves this request."""
    return cast(Context, request.app.state.context)


def caller(request: Request) -> Caller:
    """Who sent this request."""
    return cast(Caller, request.scope["goqueue.caller"])


def actor(request: Request) -> Actor:
    """The same, as the audit log writes it down."""
    client = request.scope.get("client")
    who = caller(request)
    return Actor(who.id, who.reach, client[0] if client else None, request.scope.get("goqueue.request_id"))


def job_id(text: str) -> int:
    """A job's id from the path.

    Raises:
        InvalidInput: `invalid ID`: not a whole number from 1 to 2**63 - 1.
    """
    if text.isascii() and text.isdecimal() and len(text) <= 19 and 1 <= int(text) <= MAX_ID:
        return int(text)
    raise InvalidInput("invalid ID")


def known_queue(name: str, known: Collection[str]) -> str:
    """The queue of that name.

    Raises:
        InvalidInput: `invalid queue`.
    """
    if name not in known:
        raise InvalidInput("invalid queue", {"provided": name, "allowed": sorted(known)})
    return name
