"""Rate limits of several real API processes on one real Valkey, and on one that goes away."""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from goqueue_cli.embedded import EmbeddedValkey
from tests.integration.api.serving import new_key
from tests.integration.engine import Engine
from tests.integration.scraping import Processes, Scraped, Serving, processes
from tests.servers.stores import FreshDatabase, FreshRedis

PARTS = 50
KEYED = {"GOQUEUE_API_AUTH": "required"}


@pytest.fixture
def own(database: FreshDatabase, ready_queues: FreshRedis, tmp_path: Path) -> Processes:
    return processes(database, ready_queues, tmp_path)


@contextlib.contextmanager
def replicas(own: Processes, count: int, **settings: str) -> Iterator[list[Serving]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(own.start("api", **settings)) for _ in range(count)]


@contextlib.asynccontextmanager
async def clients(servers: list[Serving], headers: dict[str, str]) -> AsyncIterator[list[httpx.AsyncClient]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(httpx.AsyncClient(base_url=one.url, headers=headers, timeout=20))
            for one in servers
        ]


async def statuses(clients: list[httpx.AsyncClient], requests: int, **more: dict[str, str]) -> Counter[int]:
    """Requests to all of them in turn, twenty at the same time."""
    turn = asyncio.Semaphore(20)

    async def one(number: int) -> int:
        async with turn:
            return (await clients[number % len(clients)].get("/jobs/999999999", **more)).status_code  # type: ignore[arg-type]

    return Counter(await asyncio.gather(*(one(number) for number in range(requests))))


async def test_three_replicas_let_through_one_limit_together(own: Processes, engine: Engine) -> None:
    limit = 200
    with replicas(own, 3, GOQUEUE_API_RATE_LIMIT=f"{limit}/day", **KEYED) as servers:
        first, second = await new_key(engine), await new_key(engine)
        async with clients(servers, first) as callers:
            seen = await statuses(callers, 300)
        assert set(seen) == {404, 429}, seen  # there is no such job, which only those learn who are let in
        held = len(servers) * (limit // PARTS - 1)
        print(f"{seen[404]} of {limit} let through by {len(servers)} replicas, at least {limit - held}")
        assert limit - held <= seen[404] <= limit
        async with clients(servers, second) as callers:
            assert await statuses(callers, 10) == Counter({404: 10}), "another key has a limit of its own"


async def test_an_answer_says_what_is_left_and_a_refusal_when_to_come_back(own: Processes, engine: Engine) -> None:
    with replicas(own, 1, GOQUEUE_API_RATE_LIMIT="3/day", **KEYED) as servers:
        async with clients(servers, await new_key(engine)) as (client,):
            answers = [await client.get("/queues") for _ in range(4)]
            free = await client.get("/livez")
        shown = await servers[0].scrape()
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    for answer, left in zip(answers, (2, 1, 0, 0), strict=True):
        assert answer.headers["ratelimit-policy"] == '"caller";q=3;w=86400'
        assert answer.headers["ratelimit"].startswith(f'"caller";r={left};t=')
    refused = answers[-1]
    wait = int(refused.headers["retry-after"])
    assert 1 <= wait <= 86400
    assert refused.headers["ratelimit"] == f'"caller";r=0;t={wait}'
    assert refused.json() == {"error": "too many requests", "fields": {"limit": "caller", "retry_after": wait}}
    assert (free.status_code, "ratelimit" in free.headers) == (200, False), "probes are not counted"
    assert shown("goqueue_http_requests_refused_total", reason="rate") == 1


async def test_guessing_keys_is_bounded_by_the_address(own: Processes, engine: Engine) -> None:
    with replicas(own, 1, GOQUEUE_API_ADDRESS_RATE_LIMIT="20/day", **KEYED) as servers:
        async with clients(servers, {"Authorization": "Bearer gq_" + "a" * 12 + "_" + "b" * 43}) as callers:
            assert await statuses(callers, 30) == Counter({401: 20, 429: 10})
        shown = await servers[0].scrape()
        assert shown("goqueue_http_requests_refused_total", reason="unauthorized") == 20
        assert shown("goqueue_http_requests_refused_total", reason="address_rate") == 10


async def test_only_a_trusted_proxy_says_who_it_speaks_for(own: Processes) -> None:
    one = {"X-Forwarded-For": "203.0.113.1"}
    limit = {"GOQUEUE_API_ADDRESS_RATE_LIMIT": "10/day", "GOQUEUE_API_AUTH": "off"}
    with replicas(own, 1, **limit) as servers:
        async with clients(servers, {}) as callers:
            for number in range(10):  # a new name for each request, as an attacker would
                await callers[0].get("/queues", headers={"X-Forwarded-For": f"203.0.113.{number}"})
            assert await statuses(callers, 5, headers=one) == Counter({429: 5})
    own.environment["GOQUEUE_REDIS_PREFIX"] = "{other}"
    with replicas(own, 1, GOQUEUE_API_TRUSTED_PROXIES="127.0.0.0/8", **limit) as servers:
        async with clients(servers, {}) as callers:
            assert await statuses(callers, 12, headers=one) == Counter({404: 10, 429: 2})
            other = {"X-Forwarded-For": "203.0.113.2"}
            assert await statuses(callers, 5, headers=other) == Counter({404: 5})
            # What the caller itself put in front of what the proxy adds is nobody's word.
            forged = {"X-Forwarded-For": "198.51.100.9, 203.0.113.1"}
            assert await statuses(callers, 5, headers=forged) == Counter({429: 5})


async def test_a_proxy_that_comes_by_ipv4_is_trusted_by_an_api_that_listens_on_both_families(own: Processes) -> None:
    settings = {
        "GOQUEUE_API_HOST": "::",
        "GOQUEUE_API_AUTH": "off",
        "GOQUEUE_API_ADDRESS_RATE_LIMIT": "5/day",
        "GOQUEUE_API_TRUSTED_PROXIES": "127.0.0.0/8",
    }
    with replicas(own, 1, **settings) as servers:
        async with clients(servers, {}) as callers:
            for number in (1, 2):  # each has a limit of its own
                named = {"X-Forwarded-For": f"203.0.113.{number}"}
                assert await statuses(callers, 6, headers=named) == Counter({404: 5, 429: 1})


def on_own_valkey(database: FreshDatabase, valkey: EmbeddedValkey, folder: Path) -> Processes:
    return processes(database, FreshRedis(valkey, 0, "{goqueue}"), folder)


@pytest.mark.parametrize("silent", [False, True], ids=["gone", "silent"])
async def test_while_redis_is_away_each_replica_goes_on_with_the_whole_limit(
    database: FreshDatabase, engine: Engine, own_valkey: EmbeddedValkey, tmp_path: Path, silent: bool
) -> None:
    limit = 100
    own = on_own_valkey(database, own_valkey, tmp_path)
    with replicas(own, 2, GOQUEUE_API_RATE_LIMIT=f"{limit}/day", **KEYED) as servers:
        async with clients(servers, await new_key(engine)) as callers:
            assert await statuses(callers, 40) == Counter({404: 40})
            if silent:
                assert own_valkey.pid is not None
                os.kill(own_valkey.pid, signal.SIGSTOP)
            else:
                own_valkey.kill()
            try:
                seen = await statuses(callers, 2 * limit + 60)
            finally:
                if silent:
                    os.kill(own_valkey.pid or 0, signal.SIGCONT)
        # Each replica had spent about twenty of its hundred.
        assert seen == Counter({404: 2 * limit - 40, 429: 100})

        def went_on(shown: Scraped) -> bool:
            return shown("goqueue_rate_limit_unshared_total") > 0

        for server in servers:
            await server.until(went_on)


async def test_when_redis_is_back_it_counts_for_all_again(
    database: FreshDatabase, engine: Engine, own_valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    own = on_own_valkey(database, own_valkey, tmp_path)
    with replicas(own, 2, GOQUEUE_API_RATE_LIMIT="100/day", **KEYED) as servers:
        async with clients(servers, await new_key(engine)) as callers:
            assert own_valkey.pid is not None
            os.kill(own_valkey.pid, signal.SIGSTOP)
            await statuses(callers, 4)
            os.kill(own_valkey.pid, signal.SIGCONT)
        # Redis is asked again a second after it failed. A caller who is new to both shows it; one for each try, since
        # on a fast machine the same one would use up its limit within that second, and then be refused without Redis.
        # Both: each replica has its own second.
        async with asyncio.timeout(60):
            shared = False
            while not shared:
                before = await counted(own_valkey)
                async with clients(servers, await new_key(engine)) as callers:
                    await statuses(callers, 2)
                now = await counted(own_valkey)
                shared = any(now[key] == 2 for key in now.keys() - before.keys())
        async with clients(servers, await new_key(engine)) as callers:
            seen = await statuses(callers, 150)
        assert 100 - 2 <= seen[404] <= 100


async def counted(valkey: EmbeddedValkey) -> dict[bytes, int]:
    """What Redis has counted of each caller."""
    import redis.asyncio

    async with redis.asyncio.Redis.from_url(valkey.url_for(0)) as client:
        return {key: int(await client.get(key) or 0) async for key in client.scan_iter("{goqueue}:limit:*")}


async def test_without_limits_no_command_goes_to_redis_and_no_header_is_sent(own: Processes, engine: Engine) -> None:
    with replicas(own, 1, **KEYED) as servers:
        async with clients(servers, await new_key(engine)) as (client,):
            before = await engine.broker.client.info("commandstats")
            answer = await client.get("/jobs/1")
            after = await engine.broker.client.info("commandstats")
    assert "ratelimit" not in answer.headers
    assert "evalsha" not in " ".join(after.keys() - before.keys())
