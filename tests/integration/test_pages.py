"""Pages end where their memory does, and the next one goes on from there."""

import dataclasses
import random
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from goqueue.errors import InvalidInput
from goqueue.job import Attempt, Job, JobFilter, NewJob
from goqueue.store import attempt_pages, pages, schedules
from tests.integration.api.serving import app_on, new_key, serving
from tests.integration.engine import Engine


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MOST", 20_000)
    monkeypatch.setattr(pages, "SMALL", 1_000)
    monkeypatch.setattr(pages, "PART", 5_000)
    monkeypatch.setattr(attempt_pages, "MOST", 1_000)


async def filled(engine: Engine, *kinds: str) -> list[int]:
    """Jobs with payloads from nothing to more than a page; PostgreSQL can compress those of the kind `same`."""
    chance = random.Random(7)
    sizes = [chance.choice([0, 10, 300, 3_000, 19_000, 50_000]) for _ in range(60)]
    kind = [chance.choice(kinds or ("same", "random")) for _ in sizes]
    texts = [
        "x" * size if same == "same" else chance.randbytes(size // 2).hex()
        for size, same in zip(sizes, kind, strict=True)
    ]
    made = await engine.service.enqueue_many([NewJob("default", "t", {"pad": text}) for text in texts])
    return [one.id for one in made]


def held(jobs: list[Job]) -> int:
    return sum(len(job.payload["pad"]) for job in jobs)


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.usefixtures("small_pages")
async def test_pages_show_each_job_once_and_hold_no_more_than_they_may(engine: Engine, newest_first: bool) -> None:
    ids = await filled(engine, "random")
    wanted = JobFilter(queue="default", newest_first=newest_first, limit=25)
    seen: list[int] = []
    while True:
        page = await engine.service.page(wanted)
        assert held(page.jobs[:-1]) <= 20_000 + 5_000  # and one job more, which may be of any size
        seen += [job.id for job in page.jobs]
        if page.next is None:
            break
        assert page.jobs
        wanted = dataclasses.replace(wanted, after=page.next)
    assert seen == (ids[::-1] if newest_first else ids)


@pytest.mark.usefixtures("small_pages")
async def test_the_library_finds_as_many_jobs_as_it_was_asked_for(engine: Engine) -> None:
    ids = await filled(engine)
    assert [job.id for job in await engine.service.find(JobFilter(limit=41))] == ids[:41]


@pytest.mark.usefixtures("small_pages")
async def test_link_leads_through_all_pages_of_the_api(engine: Engine) -> None:
    ids = await filled(engine)
    async with serving(app_on(engine, auth="off")) as client:
        jobs = await follow(client, "/jobs?queue=default&limit=1000")
    assert [job["id"] for (page) in jobs for job in page] == ids
    assert len(jobs) > 3


async def follow(client: httpx.AsyncClient, address: str) -> list[Any]:
    """The bodies of all pages."""
    bodies = []
    while True:
        answer = await client.get(address)
        assert answer.status_code == 200
        bodies.append(answer.json())
        if "next" not in answer.links:
            return bodies
        address = str(answer.url.join(answer.links["next"]["url"]))


async def with_attempts(engine: Engine, count: int, error: str = "no") -> tuple[int, list[int]]:
    """A completed job whose earlier attempts failed, two at a time in the same moment; and their numbers."""
    job_id = await engine.enqueue("t")
    await engine.execute(
        "INSERT INTO job_attempts (job_id, lease, attempt, outcome, error, finished_at) "
        "SELECT %s, (n * 7919) %% 10007, n, 'retried', %s, now() + make_interval(secs => n / 2) "
        "FROM generate_series(1, %s) AS n",
        job_id,
        error,
        count,
    )
    done = "UPDATE jobs SET status = 'completed', attempts = %s, finished_at = now() + interval '1 day' WHERE id = %s"
    await engine.execute(done, count + 1, job_id)
    by_time = "SELECT attempt FROM job_attempts WHERE job_id = %s ORDER BY finished_at, lease"
    return job_id, [*(row[0] for row in await engine.rows(by_time, job_id)), count + 1]


@pytest.mark.parametrize("limit", [1, 2, 7, 50, 51, 1000])
async def test_pages_show_each_attempt_once(engine: Engine, limit: int) -> None:
    job_id, numbers = await with_attempts(engine, 50)
    seen: list[Attempt] = []
    page, _ = await engine.service.history(job_id, limit=limit)
    while True:
        assert len(page.attempts) <= limit
        seen += page.attempts
        if page.next is None:
            break
        page, lines = await engine.service.history(job_id, after=page.next, limit=limit)
        assert lines == []
    assert [one.attempt for one in seen] == numbers
    assert seen[-1].outcome == "completed"


@pytest.mark.usefixtures("small_pages")
async def test_a_page_of_attempts_ends_after_so_many_bytes_of_errors(engine: Engine) -> None:
    job_id, numbers = await with_attempts(engine, 50, "é" * 150)
    async with serving(app_on(engine, auth="off")) as client:
        found = await follow(client, f"/jobs/{job_id}/attempts")
    assert [len(page["attempts"]) for page in found[:3]] == [4, 4, 4]  # of 300 bytes each
    assert [one["attempt"] for page in found for one in page["attempts"]] == numbers
    assert [one.attempt for one in await engine.service.attempts(job_id)] == numbers


@pytest.mark.parametrize("after", ["", "x", "1", "1-", "-1", "1-2147483648", "1" * 18 + "-1", "٣-1", "1-1 "])
async def test_a_place_that_no_page_named_is_refused(engine: Engine, after: str) -> None:
    job_id, _ = await with_attempts(engine, 1)
    with pytest.raises(InvalidInput, match="Link"):
        await engine.service.history(job_id, after=after)
    async with serving(app_on(engine, auth="off")) as client:
        answer = await client.get(f"/jobs/{job_id}/attempts", params={"after": after})
        assert (answer.status_code, list(answer.json()["fields"])) == (400, ["after"])


@pytest.mark.parametrize("limit", [2, 1000])
async def test_link_leads_through_all_schedules_of_the_tenant(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(schedules, "MOST", 1_000)
    template = {"queue": "email", "type": "send_email", "payload": {"pad": "x" * 400}}
    names = [f"s{n:02}" for n in range(9)]
    tick = datetime(2190, 1, 1, tzinfo=UTC)
    async with engine.database.connection() as connection:
        for tenant in (None, "acme", "other"):
            for name in names:
                await schedules.put(connection, name, "0 0 1 1 *", "UTC", template, True, tick, tenant=tenant)
        assert len(await schedules.list_all(connection)) == 27
    for tenant in (None, "acme"):
        async with serving(app_on(engine)) as client:
            client.headers.update(await new_key(engine, tenant=tenant))
            found = await follow(client, f"/schedules?limit={limit}")
        assert [len(page) for page in found] == ([2, 2, 2, 2, 1] if limit == 2 else [3, 3, 3])
        assert [one["name"] for page in found for one in page] == names
        assert {one["tenant"] for page in found for one in page} == {tenant}
