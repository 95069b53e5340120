"""Whether an API that others reach starts, and when an open one closes, on a real PostgreSQL."""

import contextlib
import time
from typing import Any

import pytest

from goqueue import key_management
from goqueue.access import Scope
from goqueue.errors import SettingsError
from goqueue.keys import Token
from goqueue.settings import ApiSettings, OidcSettings
from goqueue_api.openness import is_open, refuse_without_keys
from tests.integration.api.serving import OWNER, app_on, new_key, serving
from tests.integration.engine import Engine, eventually


async def test_an_issuer_of_tokens_lets_an_api_without_keys_start_and_closes_it(engine: Engine) -> None:
    reached = ApiSettings(host="0.0.0.0")
    issuer = OidcSettings(issuer="https://issuer.example.org", audience="goqueue")
    async with engine.service.database.connection() as connection:
        with pytest.raises(SettingsError, match="GOQUEUE_OIDC_ISSUER"):
            await refuse_without_keys(reached, OidcSettings(), connection)
        await refuse_without_keys(reached, issuer, connection)
        assert not await is_open(reached, issuer, connection)
        assert not await is_open(ApiSettings(host="127.0.0.1"), issuer, connection)
        assert await is_open(ApiSettings(host="127.0.0.1"), OidcSettings(), connection)


async def test_all_running_processes_close_within_the_time_of_the_cache_once_a_first_key_is_made(
    engine: Engine,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(serving(app_on(engine, auth="auto", host="127.0.0.1", key_cache=1.0)))
            for _ in range(2)
        ]
        for client in clients:
            assert (await client.get("/types")).status_code == 200
        headers = await new_key(engine, Scope.JOBS_READ)
        made_at = time.monotonic()
        let_in = [made_at for _ in clients]

        async def closed(number: int) -> bool:
            asked = time.monotonic()
            if (await clients[number].get("/types")).status_code == 401:
                return True
            let_in[number] = asked
            return False

        for number, client in enumerate(clients):
            await eventually(lambda number=number: closed(number))  # type: ignore[misc]
            assert (await client.get("/types", headers=headers)).status_code == 200
            assert (await client.get("/livez")).status_code == 200
        took = max(let_in) - made_at  # the last time that it was asked and said yes
        print(f"last let in {took:.2f} s after the first key, cache 1 s")
        assert took < 1.0


async def test_an_api_that_closed_stays_closed_when_the_last_key_is_revoked_and_when_it_starts_again(
    engine: Engine,
) -> None:
    token = Token.read((await new_key(engine, Scope.JOBS_READ))["Authorization"].removeprefix("Bearer "))
    assert token is not None
    settings: dict[str, Any] = {"auth": "auto", "host": "127.0.0.1", "key_cache": 0.05}
    async with serving(app_on(engine, **settings)) as client:
        await key_management.revoke(engine.database, token.prefix, OWNER)
        for _ in range(3):
            assert (await client.get("/types")).status_code == 401
    async with serving(app_on(engine, **settings)) as client:
        assert (await client.get("/types")).status_code == 401


async def test_an_api_that_is_open_by_its_settings_stays_open_when_keys_are_made(engine: Engine) -> None:
    async with serving(app_on(engine, auth="off", key_cache=0.001)) as client:
        await new_key(engine, Scope.JOBS_READ)
        for _ in range(3):
            assert (await client.get("/types")).status_code == 200
