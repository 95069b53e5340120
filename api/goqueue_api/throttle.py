"""Rate limits over all API processes, at the cost of a Redis command for every fiftieth part of a limit only.

Time is cut into windows by the clock (`1000/second`: each second from its beginning to its end), and Redis counts for
each caller what was *leased* in the window. A process takes permits in blocks, the first of one, each next one twice as
large, up to a fiftieth of the limit, and spends them by itself. So in one window never more than the limit is let
through, over all processes; a refusal may come early by the permits that other processes hold and do not use, each at
most as many as it has spent. See docs/decisions/0007-leased-permits.md.

While Redis is away each process goes on by itself, with the whole limit (fail open, with a bound).
"""

import asyncio
import ipaddress
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Protocol

import structlog
from limits import RateLimitItem, parse
from limits.aio.storage import RedisStorage
from starlette.types import Scope

from goqueue import metrics
from goqueue.broker.outage import connection_lost, describe
from goqueue.broker.redis import FAILURES
from goqueue.errors import GoQueueError

PARTS: Final = 50
"""A block is this part of the limit at most."""

PATIENCE: Final = 0.25
"""Seconds that a request waits for Redis to count it."""

AWAY: Final = 1.0
"""Seconds for which a Redis that did not answer is not asked again."""

HEADERS: Final = "goqueue.ratelimit"
"""Where a request's scope keeps what its answer says about limits."""

MOST: Final = 100_000
"""Callers of one window that are remembered; beyond that all are forgotten, which costs them what they have leased."""

log = structlog.get_logger(__name__)


class TooManyRequests(GoQueueError):
    """The caller is over a limit (HTTP 429). `wait`: whole seconds until it may try again."""

    def __init__(self, limit: str, wait: int) -> None:
        super().__init__("too many requests", {"limit": limit, "retry_after": wait})
        self.wait = wait


class Counter(Protocol):
    """Counts for all processes."""

    async def add(self, key: str, amount: int, expiry: int) -> int | None:
        """Add to a counter that is forgotten `expiry` seconds after its first use; its new value, None if unknown."""
        ...


class _Counters(RedisStorage):
    """`limits` on a client that stands already: with its TLS, its Sentinels, its cluster."""

    STORAGE_SCHEME = None  # type: ignore[assignment]  # made here only, never from a URL

    def __init__(self, client: Any, prefix: str) -> None:
        self._client = client
        super().__init__("redis://", implementation="redispy", key_prefix=prefix)

    def configure_bridge(self) -> None:
        """Called by the library: where it would connect."""
        bridge: Any = self.bridge
        bridge.storage = self._client
        bridge.connection_getter = lambda _: self._client


class RedisCounter:
    """Counters in Redis, which is asked with little patience."""

    def __init__(self, client: Any, prefix: str) -> None:
        self._counters = _Counters(client, f"{prefix}:limit")
        self._away_until = -math.inf

    async def add(self, key: str, amount: int, expiry: int) -> int | None:
        """The counter's new value, None while Redis is away."""
        if time.monotonic() < self._away_until:
            return None
        try:
            async with asyncio.timeout(PATIENCE):
                count = await self._counters.incr(key, expiry, amount)
        except (*FAILURES, TypeError, AttributeError) as error:
            if not isinstance(error, FAILURES) and not connection_lost(error):
                raise
            if self._away_until == -math.inf:
                reason = describe(error) if str(error) else f"no answer within {PATIENCE:g} s"
                log.warning("redis counts no requests; each process limits by itself", reason=reason)
            self._away_until = time.monotonic() + AWAY
            metrics.UNSHARED.inc()
            return None
        if self._away_until != -math.inf:
            self._away_until = -math.inf
            log.info("redis counts requests again")
        return count


@dataclass(slots=True)
class _Account:
    """What one caller has in this process in one window."""

    left: int = 0
    """Permits in hand."""
    taken: int = 0
    """Permits that it got."""
    rest: int = 0
    """What nobody had leased when it was asked last."""
    over: bool = False
    """Whether that was nothing."""
    leasing: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a caller stands after a request. `reset`: seconds until the window ends."""

    permitted: bool
    remaining: int
    reset: int


class Throttle:
    """One limit, the same for each key."""

    def __init__(self, name: str, limit: str, counter: Counter, clock: Callable[[], float] = time.time) -> None:
        """`limit` as `1000/second`; `clock` in seconds since the epoch."""
        item: RateLimitItem = parse(limit)
        self.name = name
        self.limit = item.amount
        self.seconds = item.get_expiry()
        self.label = name.encode()
        self.policy = f'"{name}";q={self.limit};w={self.seconds}'.encode()
        self._counter = counter
        self._clock = clock
        self._block = max(1, self.limit // PARTS)
        self._window = 0
        self._accounts: dict[str, _Account] = {}

    async def take(self, key: str) -> Standing:
        """Count one request."""
        now = self._clock()
        window = int(now // self.seconds)
        if window != self._window or len(self._accounts) > MOST:
            self._accounts.clear()  # what is left of permits ends with its window
            self._window = window
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = _Account()
        while account.left == 0 and not account.over:
            if account.leasing is None or account.leasing.done():
                account.leasing = asyncio.create_task(self._lease(account, f"{self.name}:{window}:{key}"))
            await asyncio.shield(account.leasing)
        permitted = account.left > 0
        account.left -= permitted
        return Standing(permitted, account.rest + account.left, math.ceil((window + 1) * self.seconds - now))

    async def _lease(self, account: _Account, key: str) -> None:
        block = min(account.taken or 1, self._block)
        total = await self._counter.add(key, block, 2 * self.seconds)
        if total is None:  # this process by itself, and what it got before counts
            total = account.taken + block
        granted = max(0, min(block, self.limit - (total - block)))
        account.left += granted
        account.taken += granted
        account.rest = max(0, self.limit - total)
        account.over = account.rest == 0


class Limits:
    """The limits of an API, and what answers say about them.

    Headers as in draft-ietf-httpapi-ratelimit-headers-10: `RateLimit-Policy: "caller";q=1000;w=1` is the quota and its
    window in seconds, `RateLimit: "caller";r=12;t=1` what is left of it and the seconds until it is whole again.
    """

    def __init__(self, caller: str, address: str, counter: Counter) -> None:
        """Limits as `1000/second`; empty: none."""
        self._caller = Throttle("caller", caller, counter) if caller else None
        self._address = Throttle("address", address, counter) if address else None

    async def count_address(self, scope: Scope) -> None:
        """Count a request of whoever connects.

        Raises:
            TooManyRequests: the address is over its limit.
        """
        if self._address is not None:
            client = scope.get("client")
            await _count(self._address, network_of(client[0] if client else ""), scope, "address_rate")

    async def count_caller(self, scope: Scope, caller: str) -> None:
        """Count a request of this caller.

        Raises:
            TooManyRequests: it is over its limit.
        """
        if self._caller is not None:
            await _count(self._caller, caller, scope, "rate")


async def _count(throttle: Throttle, key: str, scope: Scope, reason: str) -> None:
    standing = await throttle.take(key)
    # The scope's last word stands: the caller's limit, where the address's was no hindrance.
    scope[HEADERS] = (
        (b"ratelimit-policy", throttle.policy),
        (b"ratelimit", b'"%b";r=%d;t=%d' % (throttle.label, standing.remaining, standing.reset)),
    )
    if not standing.permitted:
        metrics.HTTP_REFUSED.inc(1, reason)
        raise TooManyRequests(throttle.name, standing.reset)


@lru_cache(maxsize=10_000)
def network_of(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 network of an IPv6 one, which is one customer's."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
