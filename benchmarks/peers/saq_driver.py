# mypy: disable-error-code="import-not-found"
"""SAQ's driver: its Redis queue with hiredis, `concurrency` as our slots, results not kept (`ttl=-1`)."""

from saq import Queue, Worker

from benchmarks.peers import protocol
from benchmarks.peers.protocol import AsyncDriver, Payload


async def bench(context: object, *, sent: int, pad: str) -> None:
    """The job."""
    await protocol.async_job(sent)


class Saq(AsyncDriver):
    """Jobs by `enqueue`; there is no bulk interface."""

    async def open(self, callers: int) -> None:
        self._queue = Queue.from_url(protocol.REDIS_URL)
        await self._queue.connect()

    async def one(self, payload: Payload) -> None:
        await self._queue.enqueue("bench", ttl=-1, **payload)

    def work(self) -> None:
        protocol.run_loop(self._work())

    async def _work(self) -> None:
        queue = Queue.from_url(protocol.REDIS_URL)
        await Worker(queue, functions=[("bench", bench)], concurrency=protocol.CONCURRENCY).start()


if __name__ == "__main__":
    protocol.main(Saq())
