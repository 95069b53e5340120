"""A worker that no longer hears Redis: it hears again, or its liveness probe fails."""

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
import redis.asyncio as aioredis
from pydantic import SecretStr

import goqueue_worker.hearing as module
from goqueue import JobContext
from goqueue.broker import Broker
from goqueue.errors import BrokerUnavailable
from goqueue.job import ReadyJob
from goqueue.probes import Probes
from goqueue.settings import RedisSettings
from goqueue_cli.embedded import EmbeddedValkey, free_port
from tests.integration.engine import Engine, eventually
from tests.servers.proxy import SilentProxy


async def nothing(payload: Any, job: JobContext) -> None: ...


@contextlib.asynccontextmanager
async def through_proxy(engine: Engine) -> AsyncIterator[SilentProxy]:
    """The engine's broker passes through a proxy for the length of the block."""
    url = urlsplit(engine.redis.url.get_secret_value())
    direct = engine.broker
    async with SilentProxy(url.hostname or "", url.port or 0).run() as proxy:
        login, at, _ = url.netloc.rpartition("@")
        address = urlunsplit(url._replace(netloc=f"{login}{at}127.0.0.1:{proxy.port}"))
        engine.broker = Broker(engine.redis.model_copy(update={"url": SecretStr(address)}))
        try:
            yield proxy
        finally:
            await engine.broker.close()
            engine.broker = direct


async def test_a_worker_whose_connection_fell_silent_hears_again_on_another(engine: Engine) -> None:
    engine.handle("nothing", nothing)
    async with through_proxy(engine) as proxy, engine.worker():
        await engine.until(await engine.enqueue("nothing"), "completed")
        once = iter([True])
        proxy.silence(lambda data: b"BZMPOP" in data and next(once, False))

        async def silenced() -> bool:
            return proxy.silenced == 1

        await eventually(silenced)
        await engine.until(await engine.enqueue("nothing"), "completed")


async def test_a_connection_to_a_redis_that_is_no_longer_the_master_is_given_up(own_valkey: EmbeddedValkey) -> None:
    there = urlsplit(own_valkey.url_for(0))
    async with (
        SilentProxy(there.hostname or "", there.port or 0).run() as proxy,
        aioredis.Redis.from_url(own_valkey.url_for(0)) as direct,
    ):
        login = there.netloc.rpartition("@")[0]
        address = urlunsplit(there._replace(netloc=f"{login}@127.0.0.1:{proxy.port}"))
        broker = Broker(RedisSettings(url=SecretStr(address)))
        await broker.push([ReadyJob(1, "default", 1.0)])
        before = proxy.opened
        await direct.replicaof("127.0.0.1", str(free_port()))
        with pytest.raises(BrokerUnavailable):
            await broker.push([ReadyJob(2, "default", 1.0)])
        assert proxy.opened > before  # behind the address might be the new master
        await direct.replicaof("NO", "ONE")
        await broker.push([ReadyJob(2, "default", 1.0)])
        assert [job.id for job in await broker.fetch(["default"], 2)] == [1, 2]
        await broker.close()


async def test_a_worker_that_stays_deaf_while_redis_answers_fails_its_liveness_probe(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with through_proxy(engine) as proxy, engine.worker() as worker:

        async def heard() -> bool:
            return worker.unready() == {}

        await eventually(heard)
        assert worker.unwell() == {}
        proxy.silence(lambda data: b"BZMPOP" in data)
        monkeypatch.setattr(module, "DEAF_AFTER", 2.0)  # not before: a busy machine may be deaf for so long

        async def unwell() -> bool:
            return "fetch" in worker.unwell()

        await eventually(unwell)
        proxy.silence(lambda _: False)

        async def well_again() -> bool:
            return worker.unwell() == {}

        await eventually(well_again)


async def test_a_redis_that_answers_nobody_is_no_reason_to_restart_workers(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEAF_AFTER", 1.5)  # longer than a fetch that finds nothing: none looks deaf before
    async with through_proxy(engine) as proxy, engine.worker() as worker:

        async def heard() -> bool:
            return worker.unready() == {}

        await eventually(heard)
        proxy.silence(lambda _: True)
        seen = worker.hearing.fetched_at

        async def silent_for_long() -> bool:  # for longer than it waits for the sign of life that it asks for
            return time.monotonic() - seen > 8

        await eventually(silent_for_long)
        assert worker.unwell() == {}
        proxy.silence(lambda _: False)


async def test_probes_answer_with_what_is_wrong() -> None:
    wrong: dict[str, str] = {}
    probes = Probes("127.0.0.1", 0, lambda: wrong, lambda: {})
    probes.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{probes.port}") as client:
            assert (await client.get("/livez")).json() == {"status": "ok"}
            wrong["fetch"] = "deaf"
            answer = await client.get("/livez")
            assert (answer.status_code, answer.json()) == (503, {"status": "unavailable", "fetch": "deaf"})
            assert (await client.get("/readyz")).status_code == 200
            assert "python_info" in (await client.get("/metrics")).text
            assert (await client.get("/nothing")).status_code == 404
    finally:
        probes.stop()
