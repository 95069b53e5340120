"""A Prometheus in the cluster sees every process, and shows what a burst of jobs does."""

import time

import pytest

from grafana.catalogue import dashboards
from tests.e2e.monitoring import Monitoring
from tests.e2e.system import RELEASE, System, until

pytestmark = pytest.mark.timeout(240)

JOBS = 60
SECONDS = 2.0
"""How long each job of the burst takes; four pods do one at a time each."""

PROCESSES = "count by (process) (goqueue_build_info)"
POOL = f'pool="{RELEASE}-goqueue-scale"'
LINES = {
    "waiting jobs": 'max(goqueue_queue_depth{queue="scale"})',
    "oldest waiting job, seconds": 'max(goqueue_queue_oldest_age_seconds{queue="scale"})',
    "pods desired": f"max(goqueue_pool_desired_replicas{{{POOL}}})",
    "pods ready": f"max(goqueue_pool_ready_replicas{{{POOL}}})",
    "slots busy": "sum(goqueue_worker_slots_busy) or vector(0)",
}


@pytest.fixture(scope="module")
def monitoring(system: System) -> Monitoring:
    system.rolled_out("deployment/prometheus")
    return Monitoring(system)


def test_prometheus_sees_api_worker_scheduler_and_operator(system: System, monitoring: Monitoring) -> None:
    id = system.enqueue({"seconds": [20]})

    def seen() -> bool:
        series = monitoring.query(PROCESSES)
        return {one["metric"]["process"] for one in series} == {"api", "worker", "scheduler", "operator"}

    until("all four processes to be scraped", seen, 60, 1.0)
    leads = monitoring.query("sum by (process) (goqueue_leader)")
    assert {one["metric"]["process"]: one["value"][1] for one in leads} == {"scheduler": "1", "operator": "1"}

    def all_pods() -> bool:
        counts = {one["metric"]["process"]: int(one["value"][1]) for one in monitoring.query(PROCESSES)}
        return all(counts[part] == len(system.pods(part)) for part in ("api", "scheduler", "operator"))

    until("each pod to be scraped once", all_pods, 30, 1.0)
    system.cancel(id)


def test_every_panel_can_be_asked_for(monitoring: Monitoring) -> None:
    number = 0
    for board in dashboards():
        for panel in board.panels or []:
            for target in getattr(panel, "targets", None) or []:
                text = target.expr.replace("$__rate_interval", "30s")
                for variable in ("$namespace", "$queue", "$type", "$pool", "$route"):
                    text = text.replace(variable, ".*")
                monitoring.query(text)
                number += 1
    assert number > 60


def test_a_burst_is_shown_from_the_first_job_to_the_last_pod(system: System, monitoring: Monitoring) -> None:
    system.pool_has("scale", 0)
    began = time.time() - 5
    bulk = [{"queue": "scale", "type": "work", "payload": {"seconds": [SECONDS]}} for _ in range(JOBS)]
    answer = system.rest.post("/jobs/bulk", json=bulk)
    assert answer.is_success, answer.text
    first, *_, last = sorted(answer.json()["ids"])
    system.status(last, "completed", timeout=120)
    query = f"SELECT count(*) FROM jobs WHERE id BETWEEN {first:d} AND {last:d} AND status = 'completed'"  # noqa: S608 - numbers of the test itself
    until("all jobs of the burst to end", lambda: system.number(query) == JOBS, 60)
    system.pool_has("scale", 0, timeout=90)
    monitoring.record(LINES, began, time.time() + 2)

    def highest(expression: str) -> float:
        (series,) = monitoring.query(f"max_over_time(({expression})[{int(time.time() - began) + 5}s:1s])")
        return float(series["value"][1])

    figures = {name: highest(expression) for name, expression in LINES.items()}
    system.note("a burst, highest values", figures)
    assert JOBS / 2 <= figures["waiting jobs"] <= JOBS
    assert figures["pods desired"] == figures["pods ready"] == figures["slots busy"] == 4
