"""Metrics of real processes: every end is counted exactly, labels are bounded, and the catalogue is complete."""

import asyncio
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from goqueue import instruments, metrics
from goqueue.builtin import TYPE_OF_QUEUE
from goqueue.instruments import CATALOGUE, OTHER
from tests.integration.engine import Engine
from tests.integration.scraping import Processes, Scraped, Serving, client_of, processes
from tests.servers.stores import FreshDatabase, FreshRedis

ATTEMPTS = "goqueue_attempts_total"


@pytest.fixture
async def started(engine: Engine, database: FreshDatabase, ready_queues: FreshRedis, tmp_path: Path) -> Processes:
    """Processes on empty stores."""
    return processes(database, ready_queues, tmp_path)


async def make(client: httpx.AsyncClient, type: str, **more: Any) -> int:
    """Enqueue one job over HTTP; its id."""
    answer = await client.post("/jobs/create", json={"queue": "default", "type": type, "payload": {}, **more})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def ended(scraped: Scraped) -> dict[tuple[str, str], float]:
    """(type, outcome) → attempts."""
    return {
        (dict(labels)["type"], dict(labels)["outcome"]): value
        for (name, labels), value in scraped.samples.items()
        if name == ATTEMPTS and value
    }


async def test_every_end_of_an_attempt_is_counted_exactly(engine: Engine, started: Processes) -> None:
    started_at = time.monotonic()
    with started.start("api") as api, started.start("scheduler") as scheduler, started.start("worker") as worker:
        async with client_of(api) as client:
            for _ in range(5):
                await make(client, "well")
            await make(client, "flaky")
            hopeless = await make(client, "hopeless")
            await make(client, "sleepy")
            began = time.monotonic()
            await make(client, "slow", max_retries=0)
            held = await make(client, "hold")
            # Of all attempts only that of `hold` has not ended: it is the one that is in a slot.
            await worker.until(
                lambda scraped: scraped("goqueue_worker_slots_busy") == 1 and sum(ended(scraped).values()) == 12
            )
            assert (await client.post(f"/jobs/{held}/cancel")).is_success
            waiting = await make(client, "well", available_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
            assert (await client.post(f"/jobs/{waiting}/cancel")).is_success
            await engine.until(hopeless, "failed")  # the worker counts an end before it is written
            assert (await client.post(f"/jobs/{hopeless}/retry")).is_success
            expected = {
                ("well", "completed"): 5,
                ("flaky", "retried"): 2,
                ("flaky", "completed"): 1,
                ("hopeless", "failed"): 2,
                ("sleepy", "snoozed"): 1,
                ("sleepy", "completed"): 1,
                ("slow", "failed"): 1,
                ("hold", "cancelled"): 1,
            }
            # Of an end it counts the seconds last.
            count = "goqueue_attempt_duration_seconds_count"
            seen = await worker.until(lambda scraped: scraped(count) >= sum(expected.values()))
            assert ended(seen) == expected
            for kind in ("well", "flaky", "hopeless", "sleepy", "slow", "hold"):
                assert seen(count, type=kind) == sum(number for (other, _), number in expected.items() if other == kind)
            assert 0.2 <= seen("goqueue_attempt_duration_seconds_sum", type="slow") < time.monotonic() - began
            assert seen("goqueue_attempt_duration_seconds_bucket", type="slow", le="0.1") == 0
            assert seen("goqueue_queue_wait_seconds_count") == sum(expected.values())
            assert seen("goqueue_worker_slots") == 50
            assert 0 <= seen("goqueue_worker_heartbeat_age_seconds") < time.monotonic() - started_at
            assert seen("goqueue_worker_heartbeats_total", result="written") >= 1
            assert seen("goqueue_worker_heartbeats_total", result="missed") == 0
            assert seen("goqueue_worker_deaf") == 0

            told = await api.scrape()
            assert told("goqueue_jobs_enqueued_total", source="api") == 11
            assert told("goqueue_jobs_enqueued_total", type="well", queue="default", source="api") == 6
            assert told("goqueue_job_cancellations_total", state="running") == 1
            assert told("goqueue_job_cancellations_total", state="waiting") == 1
            assert told("goqueue_job_manual_retries_total") == 1
            assert told("goqueue_http_requests_total", route="/jobs/create", method="POST", status="2xx") == 11
            assert told("goqueue_http_request_duration_seconds_count", route="/jobs/{id}/cancel", method="POST") == 2

            # Two retries, one snooze: their time came, and the scheduler pushed them.
            await scheduler.until(lambda scraped: scraped("goqueue_dispatched_jobs_total", sweep="due") >= 3)
            # It may have counted while `hold` was still in flight, and counts again after ten seconds.
            await scheduler.until(
                lambda scraped: scraped("goqueue_queue_failed") == 2 and scraped("goqueue_queue_in_flight") == 0, 25
            )


async def test_what_a_dying_worker_leaves_is_counted_as_handed_back_and_rescued(started: Processes) -> None:
    with started.start("api") as api, started.start("scheduler") as scheduler:
        async with client_of(api) as client:
            with started.start("worker", GOQUEUE_WORKER_GRACE_SECONDS="100ms") as worker:
                await make(client, "hold")
                await make(client, "stubborn")
                await worker.until(lambda scraped: scraped("goqueue_worker_slots_busy") == 2)
                worker.process.send(signal.SIGTERM)
                seen = await worker.until(lambda scraped: scraped(ATTEMPTS, outcome="handed_back") > 0)
                assert ended(seen) == {("hold", "handed_back"): 1}
            with started.start("worker") as killed:
                await killed.until(lambda scraped: scraped("goqueue_worker_slots_busy") == 2)
                killed.process.kill()
            seen = await scheduler.until(lambda scraped: scraped("goqueue_jobs_rescued_total") == 2)
            assert seen("goqueue_jobs_rescued_total", fate="again") == 2
            assert seen("goqueue_workers_buried_total") == 1
            assert seen("goqueue_dispatch_reconcile_duration_seconds_count") >= 1


async def test_jobs_that_redis_did_not_get_are_counted_where_they_were_made_and_where_they_were_found(
    engine: Engine, started: Processes
) -> None:
    away = {"GOQUEUE_REDIS_URL": "redis://127.0.0.1:1"}
    with started.start("api", **away) as api, started.start("scheduler") as scheduler:
        await scheduler.until(lambda scraped: scraped("goqueue_leader") == 1)
        await scheduler.until(lambda scraped: scraped("goqueue_dispatch_reconcile_duration_seconds_count") >= 1)
        async with client_of(api) as client:
            await asyncio.gather(*(make(client, "well") for _ in range(3)))
        seen = await api.until(lambda scraped: scraped("goqueue_jobs_unpushed_total") == 3)
        assert seen("goqueue_redis_up") == 0
        found = await scheduler.until(lambda scraped: scraped("goqueue_dispatched_jobs_total", sweep="stray") == 3)
        assert found("goqueue_redis_up") == 1
        await scheduler.until(lambda scraped: scraped("goqueue_queue_depth", queue="default") == 3)


async def test_two_api_processes_count_all_requests_and_a_dead_ones_gauges_vanish(started: Processes) -> None:
    with started.start("api", GOQUEUE_API_PROCESSES="2", DB_MAX_OPEN_CONNS="7") as api:
        both = await api.until(lambda scraped: scraped("goqueue_database_pool_limit") == 14)
        assert both("goqueue_build_info", process="api") == 1

        async def some() -> None:
            async with client_of(api) as client:  # a connection of its own: either process may get it
                for _ in range(5):
                    await make(client, "well")
                    assert (await client.get("/jobs/0")).status_code == 400

        await asyncio.gather(*(some() for _ in range(20)))
        # Requests are counted when they have been answered, their seconds last.
        seen = await api.until(lambda scraped: scraped("goqueue_http_request_duration_seconds_count") >= 200)
        assert seen("goqueue_http_requests_total", route="/jobs/create", status="2xx") == 100
        assert seen("goqueue_http_requests_total", route="/jobs/{id}", status="4xx") == 100
        assert seen("goqueue_http_request_duration_seconds_count") == 200
        assert seen("goqueue_jobs_enqueued_total") == 100
        servers = servers_of(api)
        if servers is not None:
            assert len(servers) == 2
            os.kill(servers[0], signal.SIGKILL)  # uvicorn starts another one
            await api.until(lambda scraped: scraped("goqueue_database_pool_limit") == 7)
            seen = await api.until(lambda scraped: scraped("goqueue_database_pool_limit") == 14)
            assert seen("goqueue_jobs_enqueued_total") == 100, "what the dead process had counted still counts"


def servers_of(api: Serving) -> list[int] | None:
    """The server processes; None where there is no /proc that says so."""
    children = Path(f"/proc/{api.process.pid}/task/{api.process.pid}/children")
    if not children.exists():
        return None
    pids = children.read_text().split()  # with multiprocessing's helper
    return [int(pid) for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def test_what_is_not_known_makes_no_new_label_values(engine: Engine, started: Processes) -> None:
    with started.start("api") as api, started.start("worker") as worker, started.start("scheduler") as scheduler:
        async with client_of(api) as client:
            for number, method in enumerate(("PROPFIND", "PURGE", "MKCOL")):
                body = {"queue": f"queue-{number}", "type": f"type-{number}", "payload": {}}
                assert (await client.post("/jobs/create", json=body)).status_code == 400
                assert (await client.get(f"/nothing/{number}")).status_code == 404
                assert (await client.request(method, "/jobs/create")).status_code == 405
                await engine.enqueue(f"type-{number}", max_retries=0)
                await engine.enqueue("well", f"queue-{number}")
        seen = await worker.until(lambda scraped: scraped(ATTEMPTS) == 3)
        assert ended(seen) == {(OTHER, "deferred"): 3}
        assert seen.labels("goqueue_attempt_duration_seconds_count", "type") == {OTHER}
        told = await api.until(lambda scraped: scraped("goqueue_http_request_duration_seconds_count") >= 9)
        assert told("goqueue_jobs_enqueued_total") == 0
        assert told.labels("goqueue_http_requests_total", "route") == {"/jobs/create", OTHER}
        assert told.labels("goqueue_http_requests_total", "method") == {"POST", "GET", OTHER}
        assert told("goqueue_http_requests_total", route="/jobs/create", method=OTHER, status="4xx") == 3
        counted = await scheduler.until(lambda scraped: scraped("goqueue_queue_depth", queue=OTHER) == 3, 25)
        assert counted.labels("goqueue_queue_depth", "queue") == {*TYPE_OF_QUEUE, "slow", OTHER}


async def test_each_queue_shows_the_workers_that_fetch_from_it(started: Processes) -> None:
    name = "goqueue_queue_workers"
    with started.start("scheduler") as scheduler:
        none = await scheduler.until(lambda scraped: name in scraped.kinds)
        assert none(name) == 0
        with started.start("worker", GOQUEUE_WORKER_QUEUES="slow"), started.start("worker"):
            seen = await scheduler.until(lambda scraped: scraped(name, queue="slow") == 2)
            assert seen(name, queue="default") == 1
            assert seen(name, queue=OTHER) == 0
        await scheduler.until(lambda scraped: scraped(name) == 0)


async def test_only_the_leader_shows_what_the_queues_hold(engine: Engine, started: Processes) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    for _ in range(2):
        await engine.enqueue("well", "slow")
    await engine.enqueue("well", available_at=later)
    await engine.service.pause("slow")
    with started.start("scheduler") as first:
        # Set one after the other: the depth of a queue, its age, and then those of the next queue.
        leading = await first.until(
            lambda scraped: (
                scraped("goqueue_queue_depth", queue="slow") == 2
                and scraped("goqueue_queue_oldest_age_seconds", queue="slow") > 0
            )
        )
        assert leading("goqueue_leader", process="scheduler") == 1
        assert leading("goqueue_queue_scheduled", queue="default") == 1
        assert leading("goqueue_queue_paused", queue="slow") == 1
        assert leading("goqueue_queue_paused", queue="default") == 0
        assert leading("goqueue_queue_oldest_age_seconds", queue="default") == 0
        gauges = ["goqueue_workers", *(name for name in leading.kinds if name.startswith("goqueue_queue_"))]
        assert len(gauges) == 8
        with started.start("scheduler") as second:
            standby = await second.until(lambda scraped: scraped("goqueue_redis_up") == 1)
            assert standby("goqueue_leader") == 0
            assert not [name for name, _ in standby.samples if name in gauges]
            first.process.send(signal.SIGTERM)
            await second.until(lambda scraped: scraped("goqueue_queue_depth", queue="slow") == 2)


def test_an_operator_that_lost_the_lead_shows_nothing_and_labels_are_forgotten() -> None:
    registry = CollectorRegistry()
    metrics.begin("operator", ["default"], [], registry)
    try:
        for pool in ("a", "b"):
            metrics.POOL_DESIRED.set(3, "team", pool)
        metrics.POOL_DESIRED.remove("team", "a")
        assert Scraped(generate_latest(registry).decode()).labels("goqueue_pool_desired_replicas", "pool") == {"b"}
        metrics.POOL_DESIRED.forget()
        assert not Scraped(generate_latest(registry).decode()).labels("goqueue_pool_desired_replicas", "pool")
        metrics.POOL_DESIRED.set(3, "team", "b")
        assert Scraped(generate_latest(registry).decode())("goqueue_pool_desired_replicas") == 3
    finally:
        instruments.end()
    metrics.POOL_DESIRED.set(3, "team", "b")
    assert generate_latest(registry) == b""


async def test_each_process_shows_its_part_of_the_catalogue_and_nothing_else(started: Processes) -> None:
    registry = CollectorRegistry()
    metrics.begin("operator", ["default"], [], registry)
    operator = Scraped(generate_latest(registry).decode())
    instruments.end()
    with started.start("api") as api, started.start("worker") as worker, started.start("scheduler") as scheduler:
        # The stores are looked at for the first time when a process answers already.
        parts = {"api": api, "worker": worker, "scheduler": scheduler}
        shown = {
            name: await part.until(lambda scraped: scraped("goqueue_redis_up") == 1) for name, part in parts.items()
        }
    for process, scraped in {**shown, "operator": operator}.items():
        declared = {metric.name: metric.kind for metric in CATALOGUE if process in metric.processes}
        own = {name: kind for name, kind in scraped.kinds.items() if not name.startswith(("process_", "python_"))}
        assert own == declared, process
        assert scraped("goqueue_build_info", process=process) == 1
        assert scraped("goqueue_database_pool_limit") > 0 or process == "operator"
