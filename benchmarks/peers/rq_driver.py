# mypy: disable-error-code="import-not-found"
"""RQ's driver: the SimpleWorker (no fork for each job, which its docs call faster), results not kept (`result_ttl=0`).

A worker runs one job at a time: its slots are its processes.
"""

import logging

from redis import Redis
from rq import Queue, SimpleWorker

from benchmarks.peers import protocol
from benchmarks.peers.protocol import Payload, SyncDriver


def bench(sent: int, pad: str) -> None:
    """The job."""
    protocol.job(sent)


class Rq(SyncDriver):
    """Jobs by `enqueue`, in bulk by `enqueue_many` (one pipeline)."""

    def open(self, callers: int) -> None:
        self._queue = Queue(connection=Redis.from_url(protocol.REDIS_URL))

    def one(self, payload: Payload) -> None:
        self._queue.enqueue("benchmarks.peers.rq_driver.bench", kwargs=payload, result_ttl=0)

    def many(self, payloads: list[Payload]) -> None:
        name = "benchmarks.peers.rq_driver.bench"
        self._queue.enqueue_many([Queue.prepare_data(name, kwargs=payload, result_ttl=0) for payload in payloads])

    def work(self) -> None:
        connection = Redis.from_url(protocol.REDIS_URL)
        worker = SimpleWorker([Queue(connection=connection)], connection=connection)
        worker.log_job_description = False
        worker.work(logging_level=logging.ERROR)


if __name__ == "__main__":
    protocol.main(Rq())
