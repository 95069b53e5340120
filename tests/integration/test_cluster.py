"""The ready queues in a real cluster of three Valkeys: processes start, jobs run, and none is lost where slots move."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from goqueue import JobContext
from goqueue.broker import Broker, acl
from goqueue.errors import BrokerUnavailable
from goqueue.job import ReadyJob
from goqueue.settings import RedisSettings
from goqueue_api.throttle import RedisCounter
from tests.integration.engine import Engine, connected, empty
from tests.integration.scraping import Processes, client_of, processes
from tests.servers.stores import FreshDatabase, FreshRedis
from tests.servers.valkeycluster import ValkeyCluster, run_cluster

PREFIX = "{goqueue}"


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    with run_cluster() as running:
        yield running


def settings_of(cluster: ValkeyCluster, prefix: str = PREFIX) -> RedisSettings:
    return RedisSettings(url=SecretStr(cluster.url), prefix=prefix, cluster=True)


@contextlib.asynccontextmanager
async def engine_on(cluster: ValkeyCluster, database: FreshDatabase) -> AsyncIterator[Engine]:
    """An engine with the rights in Redis that docs/security.md gives, and no others."""
    rights = acl.user("goqueue", PREFIX, cluster=True).split()[2:]
    for number in range(len(cluster.nodes)):
        cluster.ask(number, "ACL", "SETUSER", "goqueue", *rights, ">secret")
        if cluster.is_master(number):
            cluster.ask(number, "FLUSHALL")
    settings = settings_of(cluster).model_copy(update={"username": "goqueue", "password": SecretStr("secret")})
    async with connected(database.dsn, settings) as engine:
        async with engine.database.connection() as connection:
            await empty(connection)
        yield engine


@pytest.fixture
async def engine(cluster: ValkeyCluster, database: FreshDatabase) -> AsyncIterator[Engine]:
    """An engine on the cluster, with empty stores."""
    async with engine_on(cluster, database) as engine:
        yield engine


@pytest.fixture
def started(cluster: ValkeyCluster, engine: Engine, database: FreshDatabase, tmp_path: Path) -> Processes:
    """Processes on the cluster."""
    one = FreshRedis(cluster.nodes[0], 0, PREFIX)
    found = processes(database, one, tmp_path)
    login = {"GOQUEUE_REDIS_USERNAME": "goqueue", "GOQUEUE_REDIS_PASSWORD": "secret"}
    return Processes(tmp_path, {**found.environment, **login, "GOQUEUE_REDIS_CLUSTER": "true"})


async def note(payload: Any, job: JobContext) -> int:
    return job.job_id


@pytest.mark.parametrize("prefix", [f"{{{number}}}" for number in range(5)])
async def test_the_first_thing_that_is_asked_of_a_cluster_may_be_a_subscription(
    cluster: ValkeyCluster, prefix: str
) -> None:
    broker = Broker(settings_of(cluster, prefix))
    messages = broker.listen(broker.control_channel)
    assert await anext(messages) == ""
    await broker.tell("cancel 1")
    assert await anext(messages) == "cancel 1"
    await messages.aclose()  # type: ignore[attr-defined]
    await broker.close()


async def test_a_push_is_counted_and_told_to_who_listens(cluster: ValkeyCluster) -> None:
    broker = Broker(settings_of(cluster, "{pushed}"))
    messages = broker.listen(broker.arrivals_channel)
    assert await anext(messages) == ""
    await broker.push([ReadyJob(number, "default", 1.0) for number in range(1, 301)])
    assert await anext(messages) == "default"
    assert await broker.arrived() == {"default": 300}
    assert await broker.noted(0) == [(1, 300)]
    await messages.aclose()  # type: ignore[attr-defined]
    await broker.close()


async def test_rate_limits_are_counted_for_all_processes(cluster: ValkeyCluster) -> None:
    one, other = Broker(settings_of(cluster)), Broker(settings_of(cluster))
    assert await RedisCounter(one.client, "{limits}").add("caller", 2, 60) == 2
    assert await RedisCounter(other.client, "{limits}").add("caller", 3, 60) == 5
    await one.close()
    await other.close()


async def test_every_worker_starts_and_ends_in_time(started: Processes) -> None:
    for _ in range(5):
        with started.start("worker", GOQUEUE_WORKER_GRACE_SECONDS="5") as worker:
            await worker.until(lambda scraped: scraped("goqueue_worker_heartbeats_total", result="written") > 0)
            worker.process.send(signal.SIGTERM)
            assert await asyncio.to_thread(worker.process.wait, 15) == 0, worker.process.log.read_text()


async def test_jobs_run_and_requests_to_cancel_and_to_pause_arrive(engine: Engine, started: Processes) -> None:
    # So long that a worker does not find out by itself.
    rarely = {"GOQUEUE_LEASE_SECONDS": "600", "GOQUEUE_HEARTBEAT_SECONDS": "200"}
    with started.start("api") as api, started.start("scheduler", **rarely), started.start("worker", **rarely) as worker:
        await worker.until(lambda scraped: scraped("goqueue_worker_heartbeats_total", result="written") > 0)
        async with client_of(api) as client:

            async def make(kind: str) -> int:
                order = {"queue": "default", "type": kind, "payload": {}}
                answer = await client.post("/jobs/create", json=order)
                assert answer.status_code == 201, answer.text
                return int(answer.json()["id"])

            for job_id in [await make("well") for _ in range(20)]:
                await engine.until(job_id, "completed")
            held = await make("hold")
            await engine.until(held, "processing")
            assert (await client.post(f"/jobs/{held}/cancel")).status_code == 202
            await engine.until(held, "cancelled")

            assert (await client.post("/queues/default/pause")).is_success
            await asyncio.sleep(1.5)  # a fetch that was under way may still take one
            waiting = await make("well")
            await asyncio.sleep(1.5)
            assert (await engine.service.get(waiting)).status == "pending"
            assert (await client.post("/queues/default/resume")).is_success
            await engine.until(waiting, "completed")
    assert (await engine.broker.arrived())["default"] == 22


async def test_no_job_is_lost_and_none_runs_twice_while_the_slot_of_the_queues_moves(
    cluster: ValkeyCluster, engine: Engine
) -> None:
    engine.handle("note", note)
    target = (cluster.owner(PREFIX) + 1) % len(cluster.nodes)
    async with engine.scheduler(reconcile_seconds=5), engine.worker(), engine.worker():
        ids = [await engine.enqueue("note") for _ in range(50)]
        move = cluster.moving(PREFIX, target)
        await asyncio.to_thread(move.__enter__)
        ids += [await engine.enqueue("note") for _ in range(50)]
        await asyncio.to_thread(move.__exit__, None, None, None)
        ids += [await engine.enqueue("note") for _ in range(50)]
        jobs = [await engine.until(job_id, "completed") for job_id in ids]
    assert cluster.owner(PREFIX) == target
    assert [job.attempts for job in jobs] == [1] * 150


async def test_no_job_is_lost_where_a_replica_takes_the_place_of_the_queues_master(database: FreshDatabase) -> None:
    with run_cluster(spare=1) as cluster:
        master = cluster.owner(PREFIX)
        cluster.replicate(3, master)
        async with engine_on(cluster, database) as engine:
            engine.handle("note", note)
            async with engine.scheduler(reconcile_seconds=5), engine.worker():
                ids = [await engine.enqueue("note") for _ in range(50)]
                cluster.nodes[master].kill()
                with pytest.raises(BrokerUnavailable):
                    await engine.broker.ping()  # other nodes would answer
                ids += [await engine.enqueue("note") for _ in range(20)]
                began = time.monotonic()
                jobs = [await engine.until(job_id, "completed", seconds=60) for job_id in ids]
            assert [job.attempts for job in jobs] == [1] * 70, time.monotonic() - began
