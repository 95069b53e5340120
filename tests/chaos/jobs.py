"""Job types of the chaos tests. Each effect is one appended line, so effects can be counted whatever dies."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from pydantic import BaseModel

from goqueue import JobContext, RetryPolicy, job_type

QUICK = RetryPolicy(base=0.1, maximum=0.5)


class Work(BaseModel):
    """How long the job takes, in seconds."""

    seconds: float = 0.0


def effect(job: JobContext) -> None:
    """Append the job's line to the sink, `job attempt process`: one write of a few bytes with O_APPEND is atomic."""
    sink = os.open(Path(os.environ["CHAOS_SINK"]), os.O_WRONLY | os.O_APPEND)
    try:
        os.write(sink, f"{job.job_id} {job.attempt} {os.getpid()}\n".encode())
    finally:
        os.close(sink)


@job_type("work", payload=Work, retry=QUICK)
async def work(payload: Work, job: JobContext) -> int:
    """Takes its time, then has its effect."""
    await asyncio.sleep(payload.seconds)
    effect(job)
    return job.attempt


@job_type("suicide", payload=Work, retry=QUICK)
async def suicide(payload: Work, job: JobContext) -> None:
    """Kills its worker."""
    os.kill(os.getpid(), signal.SIGKILL)


@job_type("hold_gil", payload=Work, retry=QUICK)
def hold_gil(payload: Work, job: JobContext) -> None:
    """Keeps the interpreter for about that long in one call that lets no other thread run."""
    began = time.perf_counter()
    sum(range(5_000_000))
    each = (time.perf_counter() - began) / 5_000_000
    sum(range(int(payload.seconds / each)))
    effect(job)


if os.environ.get("CHAOS_DIE_BEFORE_PUSH") and "goqueue_api" in sys.modules:
    from goqueue.broker import Broker

    async def die(*_: object, **__: object) -> int:
        """The process ends between commit and push."""
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    Broker.push = die  # type: ignore[method-assign]
