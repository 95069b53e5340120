# mypy: disable-error-code="import-not-found,untyped-decorator"
"""taskiq's driver: the stream broker, the fastest of its Redis brokers that acknowledges, with uvloop.

Streams are read 100 messages at a time (its default); `--max-async-tasks` is our slots; no result backend. A job is
done when its message is acknowledged. The list broker would forget a job as soon as it is handed out.
"""

from taskiq_redis import RedisStreamBroker

from benchmarks.peers import protocol
from benchmarks.peers.protocol import AsyncDriver, Payload, become

# From the first message on: jobs that were enqueued before any worker ran count too.
broker = RedisStreamBroker(protocol.REDIS_URL or "redis://localhost", consumer_id="0")


@broker.task(task_name="bench")
async def bench(sent: int, pad: str) -> None:
    """The job."""
    await protocol.async_job(sent)


class Taskiq(AsyncDriver):
    """Jobs by `kiq`; there is no bulk interface."""

    async def open(self, callers: int) -> None:
        await broker.startup()

    async def one(self, payload: Payload) -> None:
        await bench.kiq(**payload)

    async def close(self) -> None:
        await broker.shutdown()

    def work(self) -> None:
        slots = ["--max-async-tasks", str(protocol.CONCURRENCY)]
        module = "benchmarks.peers.taskiq_driver:broker"
        become("taskiq", "worker", module, "--workers", "1", *slots, "--log-level", "ERROR")


if __name__ == "__main__":
    protocol.main(Taskiq())
