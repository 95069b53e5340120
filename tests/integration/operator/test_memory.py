"""What the operator keeps in memory is bounded, whatever resources there are."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from goqueue_operator import compare, entries, jobs, kube
from tests.integration.engine import eventually
from tests.integration.operator.conftest import World
from tests.integration.operator.proxy import proxy

pytestmark = pytest.mark.asyncio

LATER = "2099-01-01T00:00:00Z"


def lists_jobs(request: web.Request) -> bool:
    return request.method == "GET" and request.path.endswith("/goqueuejobs") and "watch" not in request.query


async def names(world: World) -> set[str]:
    """Names of the GoQueueJobs."""
    return {line.rpartition("/")[2] for line in (await world.kubectl("get", "gqj", "-o", "name")).split()}


async def test_a_new_leader_takes_up_jobs_of_which_not_all_fit_into_memory(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(entries, "SPEC_BYTES", 25_000)
    monkeypatch.setattr(jobs, "TOGETHER_BYTES", 15_000)
    monkeypatch.setattr(kube, "PAGE_BYTES", 30_000)
    monkeypatch.setattr(kube, "MAX_PAGE_BYTES", 60_000)
    monkeypatch.setattr(kube, "FIRST_PAGE", 4)
    texts = {f"job-{number}": str(number) * 10_000 for number in range(8)}
    for name, text in texts.items():
        await world.job(name, payload={"text": text}, availableAt=LATER)
    queries: list[dict[str, str]] = []

    async def note(request: web.Request) -> None:
        if lists_jobs(request):
            queries.append(dict(request.query))

    async with (
        proxy(world.kubernetes, tmp_path, note) as through,
        world.operator(kubeconfig=through.kubeconfig) as operator,
    ):
        for name in texts:
            await world.state(name, "pending")
        assert operator.jobs is not None
        assert operator.jobs.entries.spec_bytes == 0
        assert [entry.spec for entry in operator.jobs.entries] == [None] * len(texts)
    rows = await world.engine.rows("SELECT payload->>'text' FROM jobs ORDER BY 1")
    assert [row[0] for row in rows] == sorted(texts.values())
    assert {"fieldSelector": "metadata.name=-"}.items() <= queries[0].items()  # kopf's own list is empty
    assert all(int(query["limit"]) <= kube.PAGE for query in queries)
    assert any("continue" in query for query in queries)


async def test_an_ended_resource_that_names_no_ttl_goes_after_that_of_the_settings(world: World) -> None:
    async with world.operator(ended_ttl_seconds=1), world.engine.worker():
        await world.job("own", ttlSecondsAfterFinished=3600)
        await world.job("open", availableAt=LATER)
        declared = {
            "apiVersion": "goqueue.io/v1alpha1",
            "kind": "GoQueueJob",
            "metadata": {"name": "declared", "annotations": {"argocd.argoproj.io/tracking-id": "shop:a/b:c/declared"}},
            "spec": {"queue": "default", "type": "echo", "payload": {}},
        }
        await world.kubectl("create", "-f", "-", stdin=declared)
        for name in ("own", "declared"):
            await world.state(name, "completed")
        await world.job("one")

        async def gone() -> bool:
            return await names(world) == {"own", "open", "declared"}

        await eventually(gone)
    assert len(await world.engine.rows("SELECT 1 FROM jobs")) == 4  # what has ended stays in PostgreSQL


async def test_beyond_the_limit_the_oldest_ended_resources_go_and_no_open_one(world: World) -> None:
    async with world.operator(ended_ttl_seconds=0, ended_limit=1), world.engine.worker():
        await world.job("open", availableAt=LATER)
        await world.job("first")
        finished = (await world.state("first", "completed"))["finishedAt"]

        async def later() -> bool:  # times of a status have whole seconds
            rows = await world.engine.rows("SELECT date_trunc('second', now()) > %s::timestamptz", finished)
            return bool(rows[0][0])

        await eventually(later)
        await world.job("second")

        async def trimmed() -> bool:
            return await names(world) == {"open", "second"}

        await eventually(trimmed)


async def test_a_change_that_the_watch_did_not_show_is_found_by_the_comparison(world: World, tmp_path: Path) -> None:
    released = asyncio.Event()

    async def deaf(request: web.Request) -> None:
        if request.path.endswith("/goqueuejobs") and "watch" in request.query:
            await released.wait()

    async with (
        proxy(world.kubernetes, tmp_path, deaf) as through,
        world.operator(kubeconfig=through.kubeconfig),
    ):
        await world.job("one", availableAt=LATER)
        await world.state("one", "pending")
        await world.kubectl("patch", "gqj", "one", "--type=merge", "-p", '{"spec":{"suspend":true}}')
        await world.state("one", "suspended")
        await world.kubectl("patch", "gqj", "one", "--type=merge", "-p", '{"spec":{"suspend":false}}')
        await world.state("one", "pending")
        [row] = await world.engine.rows("SELECT extract(year FROM available_at) FROM jobs")
        assert row[0] == 2099  # not forgotten with the rest of the spec
        released.set()


async def test_a_new_leader_accepts_what_was_made_last_before_it_has_read_all(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(compare, "NEWEST", 1)
    for name in ("a-old", "b-old"):
        await world.job(name)
    made = (await world.get("gqj", "b-old"))["metadata"]["creationTimestamp"]

    async def later() -> bool:  # times of creation have whole seconds
        rows = await world.engine.rows("SELECT date_trunc('second', now()) > %s::timestamptz", made)
        return bool(rows[0][0])

    await eventually(later)
    await world.job("z-new")
    released = asyncio.Event()

    async def hang(request: web.Request) -> None:
        """Lists of whole objects wait."""
        whole = "PartialObjectMetadata" not in request.headers["Accept"] and "fieldSelector" not in request.query
        if lists_jobs(request) and whole:
            await released.wait()

    async with proxy(world.kubernetes, tmp_path, hang) as through, world.operator(kubeconfig=through.kubeconfig):
        await world.state("z-new", "pending")
        assert not released.is_set()
        released.set()
        for name in ("a-old", "b-old"):
            await world.state(name, "pending")
