"""Every query of every panel and every rule, on a real Prometheus that scrapes all four processes while they work."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

from goqueue import instruments, metrics
from grafana.catalogue import dashboards
from tests.chart.chart import find, render
from tests.integration.engine import eventually
from tests.integration.operator.conftest import World
from tests.integration.scraping import Processes, Serving, client_of, processes
from tests.servers.prometheus import Prometheus, run_prometheus
from tests.servers.stores import FreshDatabase, FreshRedis

pytestmark = pytest.mark.timeout(400)

VARIABLES = {"$__rate_interval": "10s", **dict.fromkeys(("$namespace", "$queue", "$type", "$pool", "$route"), ".*")}

WITHOUT_DATA = {
    ("Overview", "Repairs", "strays pushed"): "no push to Redis failed",
    ("Overview", "Repairs", "suspects run: {{result}}"): "no two workers died of one job",
    ("Overview", "Duties that fail", "{{duty}}, failed ticks"): "no duty failed",
    ("Overview", "Duties that fail", "{{table}}, rows not deleted"): "nothing was refused",
    ("Overview", "Spans of traces", "{{outcome}}, per second"): "nothing is traced",
    ("API", "Connections cut", "{{reason}}"): "no client misbehaved",
    ("API", "Requests refused", "{{reason}}"): "the same",
    ("Operator", "Skipped times of schedules", "{{reason}}"): "no time was skipped",
    ("Autoscaling", "Pace of one pod", "{{pool}}"): "there is no node, so no pod of a pool ever ran",
    ("Autoscaling", "Arrivals and capacity", "{{pool}}: capacity"): "the same",
}
"""(dashboard, panel, legend) → why it has no data here."""

Query = tuple[str, str, str]


def queries() -> dict[Query, str]:
    """(dashboard, panel, legend) → expression as Grafana would send it."""
    found = {}
    for board in dashboards():
        for panel in board.panels or []:
            for target in getattr(panel, "targets", None) or []:
                expression: str = target.expr
                for variable, value in VARIABLES.items():
                    expression = expression.replace(variable, value)
                title = (board.title or "").removeprefix("GoQueue / ")
                found[title, panel.title or "", str(target.legend_format)] = expression
    return found


def rules() -> str:
    """The chart's rules for a release in the namespace `jobs`, as a file for Prometheus."""
    rule = find(render({"prometheusRule": {"enabled": True}}), "PrometheusRule", "goqueue-alerts")
    return yaml.safe_dump({"groups": rule["spec"]["groups"]})


@contextlib.contextmanager
def counting_operator() -> Iterator[int]:
    """Let operators of this process count, and serve what they counted; the port."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    metrics.begin("operator", ["default", "slow"], ["echo", "well"], registry)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
        instruments.end()


@dataclass
class Running:
    """All of GoQueue, and a Prometheus that scrapes it."""

    world: World
    started: Processes
    prometheus: Prometheus
    client: httpx.AsyncClient
    worker: Serving
    scheduler: Serving

    async def make(self, type: str, queue: str = "default", **more: Any) -> int:
        """Enqueue one job over HTTP; its id."""
        body = {"queue": queue, "type": type, "payload": {}, **more}
        answer = await self.client.post("/jobs/create", json=body)
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    async def post(self, path: str) -> None:
        """Ask for something that must be granted."""
        answer = await self.client.post(path)
        assert answer.is_success, answer.text

    async def attempts(self, outcome: str, number: int) -> None:
        """Wait until the worker has counted so many."""
        await self.worker.until(lambda scraped: scraped("goqueue_attempts_total", outcome=outcome) >= number, 30)

    async def all_ends(self, turn: int) -> None:
        """Jobs that end in every way, by REST and as resources; a mistake; somebody who retries and cancels."""
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        for type in ("well", "flaky", "sleepy", "slow"):
            await self.make(type)
        hopeless, held = await self.make("hopeless", max_retries=0), await self.make("hold")
        await self.world.job(f"job-{turn}", type="well")
        await self.world.engine.until(held, "processing")  # or nothing is left for the worker to end
        await self.post(f"/jobs/{held}/cancel")
        await self.post(f"/jobs/{await self.make('well', available_at=later)}/cancel")
        await self.world.engine.until(hopeless, "failed")  # the worker counts an end before it is written
        await self.attempts("failed", 2 * turn - 1)
        await self.post(f"/jobs/{hopeless}/retry")
        await self.attempts("failed", 2 * turn)
        await self.attempts("cancelled", turn)
        assert (await self.client.get("/jobs/0")).status_code == 400

    async def a_dead_worker(self) -> None:
        """A worker that is killed with a job in its hands."""
        with self.started.start("worker", GOQUEUE_WORKER_QUEUES="slow") as killed:
            await self.make("hold", "slow")
            await self.worker.until(lambda scraped: scraped("goqueue_worker_slots_busy") == 0, 30)
            await killed.until(lambda scraped: scraped("goqueue_worker_slots_busy") == 1)
            killed.process.kill()
        await self.scheduler.until(lambda scraped: scraped("goqueue_jobs_rescued_total") >= 1, 30)

    async def scraped_since(self, when: float) -> None:
        """Wait until Prometheus has asked every process again."""

        async def all_newer() -> bool:
            series = await asyncio.to_thread(self.prometheus.query, "timestamp(goqueue_build_info)")
            return len(series) == 4 and all(float(one["value"][1]) > when for one in series)

        await eventually(all_newer, 60)


@pytest.fixture
async def running(
    world: World, database: FreshDatabase, ready_queues: FreshRedis, tmp_path: Path
) -> AsyncIterator[Running]:
    """All processes at work for a while."""
    started = processes(database, ready_queues, tmp_path)
    world.engine.handle("well", lambda payload, job: None)
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(counting_operator())
        api, scheduler = stack.enter_context(started.start("api")), stack.enter_context(started.start("scheduler"))
        worker = stack.enter_context(started.start("worker", GOQUEUE_WORKER_QUEUES="default"))
        targets = {
            f"127.0.0.1:{one}": {"namespace": "jobs"} for one in (api.health, scheduler.health, worker.health, port)
        }
        prometheus = stack.enter_context(run_prometheus(tmp_path / "prometheus", targets, rules=rules()))
        async with world.operator(), client_of(api) as client:
            yield Running(world, started, prometheus, client, worker, scheduler)


async def test_every_panel_shows_data_and_every_rule_holds_on_a_running_system(running: Running) -> None:
    began = time.time()
    await running.scraped_since(began)
    pool = {"queues": ["default"], "concurrency": 1, "minReplicas": 1, "maxReplicas": 2}
    await running.world.make("GoQueueWorkerPool", "pool", pool)
    for turn in (1, 2):  # what appears with its first count grows only with the second
        await running.all_ends(turn)
        await running.scraped_since(time.time())
    await running.a_dead_worker()
    await running.post("/queues/slow/pause")

    def empty() -> set[Query]:
        """Queries for which no value since the start is a number; all of them must be answered without an error."""
        return {
            name
            for name, expression in queries().items()
            if not any(
                value != "NaN"
                for series in running.prometheus.query_range(expression, time.time() - began, 1)
                for _, value in series["values"]
            )
        }

    limit = time.monotonic() + 180
    while not (missing := await asyncio.to_thread(empty)) <= WITHOUT_DATA.keys() and time.monotonic() < limit:
        await running.scraped_since(time.time())  # what the leader counts comes only every ten seconds
    assert missing <= WITHOUT_DATA.keys()
    assert WITHOUT_DATA.keys() <= queries().keys(), "a panel that is excepted is gone"

    found = await asyncio.to_thread(running.prometheus.get, "rules")
    evaluated = [rule for group in found["groups"] for rule in group["rules"]]
    assert {rule["name"]: rule.get("lastError") for rule in evaluated if rule["health"] != "ok"} == {}
    assert len([rule for rule in evaluated if rule["type"] == "alerting"]) == 16
    for rule in evaluated:
        series = await asyncio.to_thread(running.prometheus.query, rule["query"])
        assert rule["type"] == "alerting" or series, f"{rule['name']} has no data"
    firing = {rule["name"] for rule in evaluated if rule.get("state") == "firing"}
    assert firing == set(), "nothing is wrong here"
