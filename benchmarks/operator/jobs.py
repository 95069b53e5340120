"""The job type that is measured: it does nothing."""

from pydantic import BaseModel

from benchmarks.operator.bare import TYPE
from goqueue.registry import JobContext, job_type


class Payload(BaseModel):
    """Some text."""

    text: str


@job_type(TYPE, payload=Payload)
async def bench(payload: Payload, job: JobContext) -> dict[str, int]:
    """Do nothing."""
    return {"job": job.job_id}
