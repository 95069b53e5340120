"""What a process says at `/metrics`, and processes that say it."""

import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from goqueue_cli.embedded import free_port
from tests.integration.engine import WITHIN, eventually
from tests.servers.process import GOQUEUE, Process
from tests.servers.stores import FreshDatabase, FreshRedis

MODULE = """
import asyncio

from pydantic import BaseModel

from goqueue import JobContext, NeverRetry, RetryIn, Snooze, job_type


class Nothing(BaseModel):
    pass


snoozed = set()


@job_type("well", payload=Nothing)
async def well(payload: Nothing, job: JobContext) -> None: ...


@job_type("flaky", payload=Nothing)
async def flaky(payload: Nothing, job: JobContext) -> None:
    if job.attempt < 3:
        raise RetryIn(0.05)


@job_type("hopeless", payload=Nothing)
async def hopeless(payload: Nothing, job: JobContext) -> None:
    raise NeverRetry("no luck")


@job_type("sleepy", payload=Nothing)
async def sleepy(payload: Nothing, job: JobContext) -> None:
    if job.job_id not in snoozed:
        snoozed.add(job.job_id)
        raise Snooze(0.05)


@job_type("hold", payload=Nothing)
async def hold(payload: Nothing, job: JobContext) -> None:
    await asyncio.Event().wait()


@job_type("slow", payload=Nothing, timeout=0.2)
async def slow(payload: Nothing, job: JobContext) -> None:
    await asyncio.Event().wait()


@job_type("stubborn", payload=Nothing)
async def stubborn(payload: Nothing, job: JobContext) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.sleep(1.8)  # so that its worker can be asked what it did in its last moments
        raise
"""
"""Job types for every end that an attempt can have."""


@dataclass
class Scraped:
    """One exposition: the families by name, and the samples."""

    text: str
    kinds: dict[str, str] = field(default_factory=dict)
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for family in text_string_to_metric_families(self.text):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            self.kinds[name] = family.type
            for sample in family.samples:
                self.samples[sample.name, frozenset(sample.labels.items())] = sample.value

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name with at least these labels."""
        return sum(
            value
            for (other, has), value in self.samples.items()
            if other == name and labels.items() <= dict(has).items()
        )

    def labels(self, name: str, label: str) -> set[str]:
        """The values that a label has."""
        return {dict(has)[label] for other, has in self.samples if other == name}


@dataclass
class Serving:
    """A running process and where it serves."""

    process: Process
    health: int
    url: str = ""

    async def scrape(self) -> Scraped:
        """Its metrics, now."""
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{self.health}/metrics")
        assert answer.status_code == 200
        return Scraped(answer.text)

    async def until(self, condition: Callable[[Scraped], bool], seconds: float = WITHIN) -> Scraped:
        """The first exposition for which the condition holds."""

        async def there() -> Scraped | None:
            with contextlib.suppress(httpx.TransportError):
                scraped = await self.scrape()
                return scraped if condition(scraped) else None
            return None

        found: Scraped = await eventually(there, seconds)
        return found


@dataclass
class Processes:
    """Starts processes of GoQueue on the module's stores."""

    folder: Path
    environment: dict[str, str]

    @contextlib.contextmanager
    def start(self, part: str, **more: str) -> Iterator[Serving]:
        """One process; it ends with the block."""
        health, port = free_port(), free_port()
        own = {f"GOQUEUE_{part.upper()}_HEALTH_PORT": str(health), "GOQUEUE_API_PORT": str(port)}
        environment = {**self.environment, **own, **more}
        log = self.folder / f"{part}-{health}.log"
        with Process([GOQUEUE, part], log=log, environment=environment, cwd=self.folder) as process:
            process.wait_for_port(health)
            if part == "api":
                process.wait_for_port(port)
            yield Serving(process, health, f"http://127.0.0.1:{port}")


@contextlib.asynccontextmanager
async def client_of(api: Serving) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API."""
    async with httpx.AsyncClient(base_url=api.url, timeout=10) as client:
        yield client


def processes(database: FreshDatabase, ready_queues: FreshRedis, folder: Path) -> Processes:
    """On these stores, with the job types above."""
    (folder / "ends.py").write_text(MODULE)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    own = {
        "PYTHONPATH": path,
        "GOQUEUE_JOBS": "ends",
        "GOQUEUE_QUEUES": "default,slow",
        "GOQUEUE_LEASE_SECONDS": "1.5",
        "GOQUEUE_HEARTBEAT_SECONDS": "0.3",
        "GOQUEUE_SCHEDULER_LEADER_SECONDS": "1",
    }
    return Processes(folder, {**database.environment, **ready_queues.environment, **own})


def lines_of(serving: Serving) -> list[dict[str, Any]]:
    """The lines of its log, where GOQUEUE_LOG_FORMAT is json."""
    text = serving.process.log.read_text()
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
