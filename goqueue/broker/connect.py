"""Clients of Redis as the settings say: one server, the master behind Sentinels, or a cluster."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import redis.asyncio as aioredis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.connection import HiredisRespSerializer
from redis.exceptions import ReadOnlyError

from goqueue.broker.sentinels import Sentinels
from goqueue.settings import RedisSettings

BLOCK_SECONDS: Final = 1.0
"""How long one fetch waits for a job; a fetch loop that has not come round for several of these is deaf."""

_SOCKET: Final[dict[str, Any]] = {
    # Longer than a blocking fetch, short enough that a connection into the void is given up soon.
    "socket_timeout": BLOCK_SECONDS + 3.0,
    "socket_connect_timeout": 3.0,
    "socket_keepalive": True,
    "protocol": 2,
}


_OF_TCP: Final = ("socket_keepalive", "host", "port")
"""What a connection to a socket file does not know."""


class _Packing:
    """hiredis puts commands into bytes; redis-py's async connections do it in Python, five times slower."""

    pack_command = staticmethod(HiredisRespSerializer().pack)


def connect(settings: RedisSettings, greet: Callable[[Any], Awaitable[None]] | None = None) -> Any:
    """A client as the settings say: one server, behind Sentinel, or a cluster.

    `greet` is awaited with each new connection before it serves; its errors are those of the command that needed the
    connection. A cluster's connections are not greeted: a node answers for its own keys only.
    """
    url: dict[str, Any] = dict(parse_url(settings.url.get_secret_value()))
    secure = url.pop("connection_class", Connection) is SSLConnection
    tls = {name: value for name, value in url.items() if name.startswith("ssl_")} | _tls_files(settings)
    options: dict[str, Any] = {
        **url,
        **_SOCKET,
        **tls,
        **_login(settings.username, settings.password.get_secret_value()),
        "health_check_interval": 0,
        # Once more on a fresh connection, for those that a restart of Redis broke; waiting is the caller's business.
        "retry": Retry(NoBackoff(), 1),
    }
    if settings.cluster:
        return RedisCluster(**options | {"ssl": secure})
    if greet is not None:
        options["redis_connect_func"] = _greeted(greet)
    if settings.sentinel_hosts:
        client = _behind_sentinels(settings, options, tls, secure=secure)
    else:
        # Behind one address another server may be the master by now: a connection to the former one is given up.
        kind: type[Any] = SSLConnection if secure else Connection
        if "path" in url:
            kind = aioredis.UnixDomainSocketConnection
            options = {name: value for name, value in options.items() if name not in _OF_TCP}
        pool = ConnectionPool(connection_class=kind, retry_on_error=[ReadOnlyError], **options)
        client = aioredis.Redis.from_pool(pool)
    pool = client.connection_pool
    pool.connection_class = type("Connection", (_Packing, pool.connection_class), {})
    return client


async def close(client: Any) -> None:
    """Close a client's connections, those to Sentinels included, which redis-py leaves open."""
    await client.aclose()
    sentinels = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    for sentinel in sentinels.sentinels if sentinels is not None else ():
        await sentinel.aclose()


def _behind_sentinels(settings: RedisSettings, options: dict[str, Any], tls: dict[str, Any], *, secure: bool) -> Any:
    # Nothing but the URL says that TLS is to be spoken, to the Sentinels as to the master.
    scheme: dict[str, Any] = {"ssl": True} if secure else {}
    login = _login(settings.sentinel_username, settings.sentinel_password.get_secret_value())
    options = {name: value for name, value in options.items() if name not in ("host", "port", "path")}
    asking = {**_SOCKET, **tls, **login, **scheme, "retry": Retry(NoBackoff(), 0)}  # rather the next one than again
    sentinels = Sentinels(settings.sentinels, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
    return sentinels.master_for(settings.sentinel_master, **options, **scheme)


def _login(username: str, password: str) -> dict[str, str]:
    return {name: text for name, text in (("username", username), ("password", password)) if text}


def _tls_files(settings: RedisSettings) -> dict[str, str]:
    """The files by which the server is believed, and we to it."""
    files = {"ssl_ca_certs": settings.tls_ca, "ssl_certfile": settings.tls_cert, "ssl_keyfile": settings.tls_key}
    return {name: str(path) for name, path in files.items() if path is not None}


def secrets_of(settings: RedisSettings) -> list[str]:
    """What must not stand in a log line."""
    url = dict(parse_url(settings.url.get_secret_value()))
    given = [settings.password, settings.sentinel_password]
    return [str(url.get("password", "")), str(url.get("ssl_password", "")), *(one.get_secret_value() for one in given)]


def _greeted(greet: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    async def connected(connection: Any) -> None:
        await connection.on_connect()
        await greet(connection)

    return connected
