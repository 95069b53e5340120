"""Who calls, and whether it may: callers, ways to prove who one is, and the decision that each route carries.

- No credentials, or any that are not good: 401, always the same, before anything else of the request is looked at.
- Known, but without the route's scope; or it names a queue, type or tenant of its own accord that it may not use: 403.
- A job, schedule or key that is not within the caller's reach: 404, as if there was none.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol, TypeVar

from starlette.routing import BaseRoute, Route
from starlette.types import Scope as Connection

from goqueue import metrics
from goqueue.access import ALL_SCOPES, Reach, Scope
from goqueue.errors import Forbidden, GoQueueError
from goqueue_api.openness import Openness
from goqueue_api.throttle import Limits

F = TypeVar("F", bound=Callable[..., Any])


class Unauthenticated(GoQueueError):
    """Nobody knows who calls (HTTP 401). It never says why."""

    def __init__(self) -> None:
        super().__init__("unauthorized")


class Undecided(TypeError):
    """A route does not say what it asks of its callers; the program is wrong."""


@dataclass(frozen=True)
class Caller:
    """Who sent a request. `tenant` None is the default tenant; `queues` and `types` None are all."""

    id: str
    tenant: str | None
    scopes: frozenset[Scope]
    queues: frozenset[str] | None = None
    types: frozenset[str] | None = None

    @cached_property
    def reach(self) -> Reach:
        """The jobs that it may reach."""
        return Reach(self.tenant, self.queues, self.types)

    def check_use(self, queue: str, type: str | None = None) -> None:
        """See that the caller may use a queue, and a type, that it names.

        Raises:
            Forbidden: it may not; the fields name what.
        """
        if self.queues is not None and queue not in self.queues:
            raise Forbidden("forbidden", {"queue": queue})
        if self.types is not None and type is not None and type not in self.types:
            raise Forbidden("forbidden", {"type": type})


NOBODY: Final = Caller("nobody", None, frozenset())
"""Who calls a route that is open to all."""
ANYBODY: Final = Caller("anybody", None, ALL_SCOPES)
"""Who calls an API that asks for no credentials, and shows none."""

FOREIGN_SCHEMES: Final = frozenset((b"basic", b"digest", b"negotiate", b"ntlm"))
"""Schemes of `Authorization`, in lower case, that no authenticator here understands."""


class Authenticator(Protocol):
    """One way to prove who one is."""

    async def caller(self, credential: str) -> Caller | None:
        """Whose credential this is; None where it is no good one of this kind. What was wrong shall show nowhere.

        Raises:
            StoreUnavailable: it cannot be known now.
        """
        ...


@dataclass(frozen=True, slots=True)
class Decision:
    """What a route asks of its callers: a scope, or nothing (None)."""

    scope: Scope | None


_decisions: Final[dict[Callable[..., Any], Decision]] = {}


def needs(scope: Scope) -> Callable[[F], F]:
    """Decorate a route's function, below the route: its callers need this scope."""

    def decide(endpoint: F) -> F:
        _decisions[endpoint] = Decision(scope)
        return endpoint

    return decide


def open_to_all(endpoint: F) -> F:
    """Decorate a route's function, below the route: anybody may call it."""
    _decisions[endpoint] = Decision(None)
    return endpoint


def decision_of(endpoint: Callable[..., Any]) -> Decision:
    """What the route of this function asks of its callers.

    Raises:
        Undecided: it does not say.
    """
    if endpoint not in _decisions:
        raise Undecided(f"{endpoint.__module__}.{endpoint.__qualname__} needs @needs(scope) or @open_to_all")
    return _decisions[endpoint]


def check_decided(routes: Iterable[BaseRoute]) -> None:
    """See that each route has a decision, also one that is no `routing.Guarded`.

    Raises:
        Undecided: one has none.
    """
    for route in routes:
        if not isinstance(route, Route):
            raise Undecided(f"{route!r} is no route with a decision")
        decision_of(route.endpoint)


class Gate:
    """Asks each request for its credentials."""

    def __init__(
        self, authenticators: Sequence[Authenticator], *, openness: Openness | None = None, limits: Limits | None = None
    ) -> None:
        """`openness`: whether requests without credentials are let in; None: never. Those with some are always judged.

        `limits` hold on all routes that are not open to all.
        """
        self._authenticators = tuple(authenticators)
        self._openness = openness
        self._limits = limits

    async def admit(self, connection: Connection, decision: Decision) -> Caller:
        """Who calls.

        Raises:
            Unauthenticated: nobody knows.
            Forbidden: it lacks the scope.
            TooManyRequests: it, or its address, is over a limit.
            StoreUnavailable: it cannot be known now.
        """
        if decision.scope is None:
            return NOBODY
        if self._limits is not None:
            await self._limits.count_address(connection)  # first, so that guessing keys is bounded, too
        if self._openness is not None and not shows_credentials(connection["headers"]) and await self._openness.now():
            return ANYBODY
        caller = await self._identify(connection["headers"])
        if self._limits is not None:
            await self._limits.count_caller(connection, caller.id)
        if decision.scope not in caller.scopes:
            metrics.HTTP_REFUSED.inc(1, "forbidden")
            raise Forbidden("forbidden", {"scope": decision.scope.value})
        return caller

    async def _identify(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        credential = bearer(headers)
        if credential is not None:
            for authenticator in self._authenticators:
                caller = await authenticator.caller(credential)
                if caller is not None:
                    return caller
        metrics.HTTP_REFUSED.inc(1, "unauthorized")
        raise Unauthenticated


def shows_credentials(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request shows anything that is meant as a credential for this API, good or not.

    A proxy in front of an open API may ask for a password and pass it on, so schemes that are never ours do not count.
    """
    found = (value.strip() for name, value in headers if name == b"authorization")
    return any(value and value.split()[0].lower() not in FOREIGN_SCHEMES for value in found)


def bearer(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The credential of `Authorization: Bearer …`; None where there is none, or more than one."""
    found = [value for name, value in headers if name == b"authorization"]
    if len(found) != 1 or found[0][:7].lower() != b"bearer " or not found[0].isascii():
        return None
    return found[0][7:].strip().decode()
