# mypy: disable-error-code="import-not-found"
"""arq's driver: hiredis, `max_jobs` as our slots, results not kept, polled every 10 ms (0.5 s by default)."""

from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker

from benchmarks.peers import protocol
from benchmarks.peers.protocol import AsyncDriver, Payload

SETTINGS = RedisSettings.from_dsn(protocol.REDIS_URL)


async def bench(context: object, sent: int, pad: str) -> None:
    """The job."""
    await protocol.async_job(sent)


class Arq(AsyncDriver):
    """Jobs by `enqueue_job`; there is no bulk interface."""

    async def open(self, callers: int) -> None:
        self._redis = await create_pool(SETTINGS)

    async def one(self, payload: Payload) -> None:
        await self._redis.enqueue_job("bench", **payload)

    def work(self) -> None:
        protocol.run_loop(self._work())

    async def _work(self) -> None:
        await Worker(
            [bench],
            redis_settings=SETTINGS,
            max_jobs=protocol.CONCURRENCY,
            keep_result=0,
            poll_delay=0.01,
            log_results=False,
        ).async_run()


if __name__ == "__main__":
    protocol.main(Arq())
