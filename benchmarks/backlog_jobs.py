"""Job types of `benchmarks.backlog`, which starts the workers that run them."""

import asyncio

from pydantic import BaseModel

from goqueue.errors import RetryIn
from goqueue.registry import JobContext, job_type


class Nothing(BaseModel):
    """No payload."""


@job_type("once", payload=Nothing)
async def once(payload: Nothing, job: JobContext) -> None:
    """Do nothing."""


@job_type("again", payload=Nothing)
async def again(payload: Nothing, job: JobContext) -> None:
    """Ask for one retry, two seconds later."""
    if job.attempt == 1:
        raise RetryIn(2.0, "the first attempt")


@job_type("hold", payload=Nothing, timeout=3600)
async def hold(payload: Nothing, job: JobContext) -> None:
    """Keep a slot until the worker is killed."""
    await asyncio.sleep(3600)
