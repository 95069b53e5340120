"""The job in an answer."""

from datetime import UTC, datetime

from goqueue.job import Enqueued, Job, NewJob, Source
from goqueue.lifecycle import JobStatus
from goqueue_api.bodies import json_response
from goqueue_api.views import JobView, created_view, job_view

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ORDER = NewJob("q", "t", {"a": 1}, 3, 7, None, 1.5, "key", Source.API, None, "trace", "acme")


def test_a_job_made_now_looks_as_it_will_when_it_is_read_back() -> None:
    read = Job(
        id=5,
        queue="q",
        type="t",
        payload={"a": 1},
        status=JobStatus.PENDING,
        attempts=0,
        max_retries=3,
        result=None,
        error=None,
        created_at=AT,
        updated_at=AT,
        priority=7,
        available_at=AT,
        timeout=1.5,
        started_at=None,
        finished_at=None,
        unique_key="key",
        source="api",
        worker_id=None,
        cancel_requested_at=None,
        progress=None,
        trace_context="trace",
        tenant="acme",
    )
    made = created_view(ORDER, Enqueued(5, True, AT, AT))
    assert made == job_view(read)
    assert list(made) == list(JobView.model_fields)


def test_times_are_written_in_utc() -> None:
    assert json_response({"at": AT}).body == b'{"at":"2026-01-02T03:04:05Z"}'
