"""The connection on which a worker waits for jobs."""

from collections.abc import Sequence
from typing import Any, Final

import structlog
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import ResponseError

from goqueue.broker.outage import describe, refused

NOBODY: Final = 0
"""A client id that Redis gives to no connection: they count from 1."""

log = structlog.get_logger(__name__)


class Fetcher:
    """Waits for members of ready sets on a connection to itself; another connection of the process can wake it.

    For that it knows by which id Redis knows its connection. Redis counts connections anew after each start, and a new
    master counts for itself: the id is asked for at each connection, since one of before may be another client's.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._own: Any = None
        self._id: int | None = None
        self._waiting = False
        self._told = False

    async def pop(self, keys: Sequence[str], count: int, block: float) -> Any:
        """The reply of BZMPOP."""
        if self._own is None:
            self._own = await self._connect()
        self._waiting = True
        try:
            return await self._own.bzmpop(block, len(keys), keys, min=True, count=count)
        finally:
            self._waiting = False

    async def _connect(self) -> Any:
        if isinstance(self._client, RedisCluster):
            return self._client  # has no connection of one's own
        own = await self._client.client().initialize()
        connection = own.connection
        connection.register_connect_callback(self._connected)
        try:
            await self._connected(connection)
        except BaseException:
            connection.deregister_connect_callback(self._connected)
            await own.aclose()
            raise
        return own

    async def _connected(self, connection: Any) -> None:
        """Learn the connection's id, and whether it may be used."""
        self._id = None
        asked = (("CLIENT", "ID"), ("CLIENT", "UNBLOCK", str(NOBODY)))
        for command in asked:
            await connection.send_command(*command, check_health=False)
        replies: list[int] = []
        for command in asked:
            try:
                replies.append(int(await connection.read_response()))
            except ResponseError as error:
                if not refused(error):
                    raise
                self._tell(" ".join(command[:2]), error)
        if len(replies) == len(asked):
            self._id = replies[0]

    def _tell(self, missing: str, error: ResponseError) -> None:
        if not self._told:
            self._told = True
            log.warning(
                "redis user lacks a right; a stopping worker waits up to a second for its last fetch",
                missing=missing,
                reason=describe(error),
            )

    @property
    def can_be_woken(self) -> bool:
        """Whether a `pop` is blocked on a connection whose id is known."""
        return self._waiting and self._id is not None and bool(self._own.connection.is_connected)

    async def wake(self) -> None:
        """Let a blocked `pop` return at once with nothing, where it can be woken."""
        if self.can_be_woken:
            await self._client.client_unblock(self._id)

    async def close(self) -> None:
        """Give the connection back."""
        if self._own is not None and self._own is not self._client:
            await self._own.aclose()
