"""The job type that GoQueue's workers run in the bench, registered as any user's would be."""

from pydantic import BaseModel

from benchmarks.peers.protocol import async_job
from goqueue.registry import JobContext, job_type


class Bench(BaseModel):
    """What each job carries: about 200 bytes."""

    sent: int
    pad: str


@job_type("bench", payload=Bench)
async def bench(payload: Bench, job: JobContext) -> None:
    """Do nothing, or wait a little, as the runner asked."""
    await async_job(payload.sent)
