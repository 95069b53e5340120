"""Serve the API by uvicorn."""

import asyncio
import contextlib
import signal
import sys
from typing import Any

import uvicorn
from prometheus_client import REGISTRY

from goqueue import settings, tracing
from goqueue.broker import Broker
from goqueue.errors import SettingsError
from goqueue.gauges import check_owner
from goqueue.instruments import shared
from goqueue.key_management import add_bootstrap
from goqueue.keys import Token
from goqueue.listening import any_host, bind
from goqueue.probes import Probes
from goqueue.settings import ApiSettings, DatabaseSettings, OidcSettings, PostgresSettings, RedisSettings
from goqueue.store import installation, migrate
from goqueue.store.connect import Database, dsn
from goqueue_api.openness import refuse_without_keys


def serve() -> None:
    """Run until SIGTERM or SIGINT; requests in flight are finished.

    Raises:
        SettingsError: a setting is wrong.
        StoreUnavailable: PostgreSQL does not answer.
        StaleSchema: migrations are missing.
        ForeignBroker: the ready queues in Redis are another installation's.
    """
    api = settings.load(ApiSettings)
    redis = settings.load(RedisSettings)
    tracing.check()
    asyncio.run(_check_stores(api, settings.load(OidcSettings), redis))
    # These hear a signal that comes before uvicorn has handlers of its own. When all requests are finished uvicorn
    # sends its signal on to them: the process ends as one that did its work.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    with contextlib.ExitStack() as stack:
        # Several server processes count together, and this one, which watches over them, shows the sum.
        registry = stack.enter_context(shared()) if api.processes > 1 else REGISTRY
        probes = Probes(api.health_host, api.health_port, lambda: {}, None, registry)
        probes.start()
        stack.callback(probes.stop)
        _run(api)


def _run(api: ApiSettings) -> None:
    options: dict[str, Any] = {
        "app": "goqueue_api.app:from_environment",
        "factory": True,
        "host": any_host(api.host),
        "port": api.port,
        "workers": api.processes,
        "loop": "uvloop",
        "http": "goqueue_api.connections:Connection",
        "ws": "none",
        "access_log": False,
        "server_header": False,
        "proxy_headers": bool(api.trusted_proxies),
        "forwarded_allow_ips": api.trusted_proxies,
        "log_config": None,
        "timeout_graceful_shutdown": int(api.request_timeout) + 1,
        "timeout_keep_alive": 65,
    }
    if api.processes > 1 or ":" not in api.host:
        uvicorn.run(**options)
        return
    try:
        bound = bind(api.host, api.port)  # uvicorn would have a single process take IPv6 alone
    except OSError as error:
        raise SettingsError(f"cannot serve the API on [{api.host}]:{api.port}: {error.strerror}") from error
    server = uvicorn.Server(uvicorn.Config(**options))
    server.run(sockets=[bound])
    if not server.started:
        sys.exit(3)  # as uvicorn.run does


async def _check_stores(api: ApiSettings, oidc: OidcSettings, redis: RedisSettings) -> None:
    """Find out here what would stop each server process: once, and in one line. Lets the bootstrap key in."""
    connect = settings.load(DatabaseSettings)
    database, broker = Database(dsn(settings.load(PostgresSettings), connect), connect, maximum=1), Broker(redis)
    await database.open(connect)
    try:
        async with database.connection() as connection:
            await migrate.check(connection)
        if bootstrap := Token.read(api.bootstrap_key.get_secret_value()):
            await add_bootstrap(database, bootstrap)
        async with database.connection() as connection:
            await refuse_without_keys(api, oidc, connection)
            broker.installation = await installation.read(connection)
        await check_owner(broker)
    finally:
        await broker.close()
        await database.close()
