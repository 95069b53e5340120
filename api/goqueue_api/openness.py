"""Whether the API may be used without credentials."""

import asyncio
import ipaddress
import time

import structlog

from goqueue.errors import SettingsError
from goqueue.settings import ApiSettings, OidcSettings
from goqueue.store import keys
from goqueue.store.connect import Connection, Database

log = structlog.get_logger(__name__)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Openness:
    """Whether an API that was open when it started still is. It closes for good when the first key is made.

    What was found is good for `seconds`; then the next request asks PostgreSQL before it is let in, once for all that
    come meanwhile. So each process is closed `seconds` after the first key, and nothing is asked while nobody calls.
    """

    def __init__(self, database: Database, seconds: float, *, open: bool, for_good: bool) -> None:
        """`open`: what was found now; `for_good`: the settings say so, and no key changes it."""
        self._database = database
        self._seconds = seconds
        self._open = open
        self._settled = for_good or not open
        self._until = time.monotonic() + seconds
        self._asking: asyncio.Task[None] | None = None

    async def now(self) -> bool:
        """Whether requests need no credentials.

        Raises:
            StoreUnavailable: it cannot be known now.
        """
        if self._settled:
            return self._open
        if time.monotonic() >= self._until:
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._ask(), name="openness")
                self._asking.add_done_callback(_looked_at)
            await asyncio.shield(self._asking)
        return self._open

    async def _ask(self) -> None:
        asked = time.monotonic()
        async with self._database.connection() as connection:
            made = await keys.exist(connection)
        if made:
            self._open, self._settled = False, True
            log.warning("a first API key was made: every request needs one from now on")
        self._until = asked + self._seconds


def _looked_at(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # where all who waited for it have left, nobody else looks


async def is_open(api: ApiSettings, oidc: OidcSettings | None, connection: Connection) -> bool:
    """Whether requests need no credentials. A key that was made once closes the API for good, revoked or not, and so
    does an issuer of tokens."""
    if api.auth == "auto":
        return not (oidc and oidc.issuer) and is_loopback(api.host) and not await keys.exist(connection)
    return api.auth == "off"


async def refuse_without_keys(api: ApiSettings, oidc: OidcSettings, connection: Connection) -> None:
    """See that an API that others reach has somebody to let in.

    Raises:
        SettingsError: it has nobody, and nothing says that this is meant.
    """
    if api.auth != "auto" or oidc.issuer or is_loopback(api.host):
        return
    if not await keys.exist(connection):
        raise SettingsError(
            f"GOQUEUE_API_HOST is {api.host}, and there is no API key: make one (`goqueue keys create`), name one in "
            "GOQUEUE_API_BOOTSTRAP_KEY or an issuer of tokens in GOQUEUE_OIDC_ISSUER, or let everybody in by "
            "GOQUEUE_API_AUTH=off"
        )
