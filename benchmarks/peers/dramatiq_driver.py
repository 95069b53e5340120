# mypy: disable-error-code="import-not-found,untyped-decorator"
"""Dramatiq's driver: Redis broker with hiredis, no results, no Prometheus; one process with its default of 8 threads.

More threads do not make no-op jobs faster under Python's lock; jobs that wait get a thread for every slot.
"""

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers import protocol
from benchmarks.peers.protocol import Payload, SyncDriver, become

broker = RedisBroker(url=protocol.REDIS_URL)
dramatiq.set_broker(broker)


@dramatiq.actor
def bench(sent: int, pad: str) -> None:
    """The job."""
    protocol.job(sent)


class Dramatiq(SyncDriver):
    """Jobs by `send_with_options`; there is no bulk interface."""

    def one(self, payload: Payload) -> None:
        bench.send_with_options(kwargs=payload)

    def work(self) -> None:
        threads = str(protocol.threads(8))
        become("dramatiq", "benchmarks.peers.dramatiq_driver", "--processes", "1", "--threads", threads)


if __name__ == "__main__":
    protocol.main(Dramatiq())
