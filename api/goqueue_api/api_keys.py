"""API keys as a way to prove who one is."""

import asyncio
import contextlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from goqueue.errors import StoreUnavailable
from goqueue.keys import NO_KEY, ApiKey, Token
from goqueue.store import keys
from goqueue.store.connect import Database
from goqueue_api.access import Caller

MOST: Final = 10_000
"""Keys that are remembered."""

NOTED: Final = 30.0
"""Seconds between two notes of which keys were used."""


@dataclass(slots=True)
class _Known:
    key: ApiKey
    caller: Caller
    until: float


class ApiKeys:
    """Callers by their keys. Good keys are remembered for `seconds`: so long may a revoked one still be used.

    What is not good is asked of PostgreSQL each time, and each time in the same way: with the key's row or without it,
    one statement by primary key and one comparison of digests. So neither the answer nor its time tells whether a
    prefix exists, and a key that was made just now is good at once.
    """

    def __init__(self, database: Database, seconds: float) -> None:
        self._database = database
        self._seconds = seconds
        self._known: dict[str, _Known] = {}
        self._asking: dict[str, asyncio.Task[ApiKey | None]] = {}
        self._used: set[str] = set()

    async def caller(self, credential: str) -> Caller | None:
        """Whose key this is, or None."""
        token = Token.read(credential)
        if token is None:
            return None
        digest, now = token.digest, datetime.now(UTC)
        known = self._known.get(token.prefix)
        if known is None or known.until < time.monotonic() or not known.key.opened_by(digest, now):
            key = await self._ask(token.prefix)
            if not (key or NO_KEY).opened_by(digest, now) or key is None:
                return None
            known = self._remember(key)
        self._used.add(token.prefix)
        return known.caller

    def _remember(self, key: ApiKey) -> _Known:
        if len(self._known) >= MOST:
            self._known.clear()
        reach = key.reach
        caller = Caller(f"key:{key.prefix}", reach.tenant, key.scopes, reach.queues, reach.types)
        known = self._known[key.prefix] = _Known(key, caller, time.monotonic() + self._seconds)
        return known

    async def _ask(self, prefix: str) -> ApiKey | None:
        """The row of a prefix. Requests that want the same one at the same time ask once."""
        asking = self._asking.get(prefix)
        if asking is None:
            asking = self._asking[prefix] = asyncio.create_task(self._find(prefix), name="key")
            asking.add_done_callback(self._asked)
        return await asyncio.shield(asking)

    def _asked(self, task: "asyncio.Task[ApiKey | None]") -> None:
        self._asking = {prefix: other for prefix, other in self._asking.items() if other is not task}
        if not task.cancelled():
            task.exception()  # where all who waited for it have left, nobody else looks

    async def _find(self, prefix: str) -> ApiKey | None:
        async with self._database.connection() as connection:
            return await keys.find(connection, prefix)

    async def watch(self) -> None:
        """Note now and then which keys were used, until cancelled, and then once more."""
        try:
            while True:
                await asyncio.sleep(NOTED)
                await self._note()
        finally:
            await self._note()

    async def _note(self) -> None:
        used, self._used = self._used, set()
        if not used:
            return
        with contextlib.suppress(StoreUnavailable):
            async with self._database.connection() as connection:
                await keys.note_use(connection, used, NOTED / 2)
