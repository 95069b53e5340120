"""The job type of the end-to-end tests, brought into the pods by a ConfigMap."""

import asyncio
import os

from pydantic import BaseModel

from goqueue import JobContext, RetryPolicy, job_type


class Work(BaseModel):
    """How long each attempt takes, in seconds; the last number stands for all further ones."""

    seconds: list[float] = [0.0]
    fail: bool = False


@job_type("work", payload=Work, queue="work", retry=RetryPolicy(base=0.2, maximum=1.0), timeout=900.0)
async def work(payload: Work, job: JobContext) -> dict[str, int | str]:
    """Takes its time, and says where it ran."""
    await asyncio.sleep(payload.seconds[min(job.attempt + job.deaths, len(payload.seconds)) - 1])
    if payload.fail:
        raise RuntimeError("as the payload says")
    return {"pod": os.uname().nodename, "attempt": job.attempt}
