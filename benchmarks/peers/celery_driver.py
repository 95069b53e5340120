# mypy: disable-error-code="import-not-found,untyped-decorator"
"""Celery's driver: Redis broker, results off (or kept in PostgreSQL), no gossip, mingle, heartbeat or events.

Its optimizing guide advises a large prefetch multiplier for many short tasks (128) and to ignore results that nobody
reads. No-op jobs run in the solo pool, which cost half of a prefork child's CPU a job when we tried all of its pools;
jobs that wait run in its thread pool. Tasks are acknowledged when they start (its default, and its fastest), so a job
counts as done up to one job a slot too early.
"""

import logging
import os

from celery import Celery

from benchmarks.peers import protocol
from benchmarks.peers.protocol import Payload, SyncDriver, become

RESULTS = "db+postgresql+psycopg" + protocol.POSTGRES_URL.removeprefix("postgresql")
keeps_results = os.environ.get("BENCH_CELERY_RESULTS") == "1"

app = Celery("bench", broker=protocol.REDIS_URL, backend=RESULTS if keeps_results else None)
app.conf.update(
    task_ignore_result=not keeps_results,
    worker_prefetch_multiplier=128,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="bench")
def bench(sent: int, pad: str) -> None:
    """The job."""
    protocol.job(sent)


class CeleryDriver(SyncDriver):
    """Jobs by `apply_async` over one producer; there is no bulk interface."""

    def setup(self) -> None:
        if keeps_results:
            app.backend.ResultSession()

    def open(self, callers: int) -> None:
        app.pool.limit = callers
        app.amqp.producer_pool.limit = callers
        with app.producer_or_acquire():
            pass

    def one(self, payload: Payload) -> None:
        bench.apply_async(kwargs=payload)

    def many(self, payloads: list[Payload]) -> None:
        with app.producer_or_acquire() as producer:
            for payload in payloads:
                bench.apply_async(kwargs=payload, producer=producer)

    def work(self) -> None:
        pool = ["--pool=threads", f"--concurrency={protocol.CONCURRENCY}"]
        if not protocol.AWAIT_SECONDS:
            pool = ["--pool=solo"]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=ERROR"]
        become("celery", "--app=benchmarks.peers.celery_driver:app", "worker", *pool, *quiet, f"-n{os.getpid()}@%h")


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    protocol.main(CeleryDriver())
