"""The client does as the server asks: it waits where there is too much, and tells refusals from outages."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from goqueue_operator.access import Access
from goqueue_operator.kube import (
    JOBS,
    LEASES,
    MAX_PAGE_BYTES,
    PAGE,
    POOLS,
    Kube,
    KubeError,
    KubeUnavailable,
)

pytestmark = pytest.mark.asyncio

Answer = Callable[[web.Request], web.Response]


class Server:
    """Answers as it is told; `requests` are those that came."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[web.Request] = []
        self.at: list[float] = []

    async def answer(self, request: web.Request) -> web.Response:
        await request.read()
        self.requests.append(request)
        self.at.append(time.monotonic())
        return self.answers.pop(0)(request) if self.answers else web.json_response({"items": None, "metadata": {}})


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, Kube]]:
    """A server and a client of it."""
    told = Server()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", told.answer)
    async with TestServer(application) as running:
        kube = Kube(Access(str(running.make_url("")).rstrip("/"), ssl.create_default_context()), 2)
        yield told, kube
        await kube.close()


def busy(seconds: str) -> Answer:
    return lambda _: web.json_response({"message": "slow down"}, status=429, headers={"Retry-After": seconds})


async def test_it_waits_as_long_as_it_is_asked_to_and_so_do_all_of_the_same_verb_and_kind(
    server: tuple[Server, Kube],
) -> None:
    told, kube = server
    told.answers = [busy("0.3")]
    first = asyncio.create_task(kube.get(JOBS, "shop", "one"))
    while not kube.throttled:  # noqa: ASYNC110 - until the first one was answered
        await asyncio.sleep(0.01)
    await asyncio.gather(first, kube.get(JOBS, "shop", "two"))
    assert [at - told.at[0] >= 0.29 for at in told.at[1:]] == [True, True]
    assert kube.throttled == 1


async def test_one_verb_or_kind_that_is_to_wait_does_not_hold_back_another(server: tuple[Server, Kube]) -> None:
    told, kube = server
    told.answers = [busy("60")]
    waiting = asyncio.create_task(kube.patch(JOBS, "shop", "one", {}, "status"))
    while not kube.throttled:  # noqa: ASYNC110 - until it was answered
        await asyncio.sleep(0.01)
    async with asyncio.timeout(10):
        await kube.patch(POOLS, "shop", "one", {}, "status")
        await kube.patch(JOBS, "shop", "one", {})
        await kube.get(JOBS, "shop", "one")
        assert [item async for item in kube.each(JOBS, "shop")] == []
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_client_of_one_attempt_leaves_the_waiting_to_its_caller(server: tuple[Server, Kube]) -> None:
    told, kube = server
    told.answers = [busy("60")]
    lone = Kube(kube.access, attempts=1)
    async with asyncio.timeout(10):
        with pytest.raises(KubeUnavailable):
            await lone.get(LEASES, "shop", "one")
        await lone.get(LEASES, "shop", "one")
    await lone.close()


async def test_it_gives_up_where_the_server_never_has_time(server: tuple[Server, Kube]) -> None:
    told, kube = server
    told.answers = [busy("0.05")] * 8
    with pytest.raises(KubeUnavailable):
        await kube.get(JOBS, "shop", "one")
    assert len(told.requests) == 8


@pytest.mark.parametrize(
    ("code", "kind"), [(404, KubeError), (409, KubeError), (422, KubeError), (500, KubeUnavailable)]
)
async def test_a_refusal_is_not_an_outage(server: tuple[Server, Kube], code: int, kind: type[Exception]) -> None:
    told, kube = server
    told.answers = [lambda _: web.json_response({"reason": "No", "message": "because"}, status=code)]
    with pytest.raises(kind, match="because"):
        await kube.get(JOBS, "shop", "one")


async def test_what_is_not_there_is_none_and_deleting_it_is_no_error(server: tuple[Server, Kube]) -> None:
    told, kube = server
    told.answers = [lambda _: web.json_response({}, status=404)] * 2
    assert await kube.find(JOBS, "shop", "one") is None
    await kube.delete(JOBS, "shop", "one", "uid")


async def test_all_pages_are_read(server: tuple[Server, Kube]) -> None:
    told, kube = server
    pages: list[dict[str, object]] = [
        {"items": [{"n": 1}, {"n": 2}], "metadata": {"continue": "more"}},
        {"items": [{"n": 3}], "metadata": {}},
    ]
    told.answers = [lambda _, page=page: web.json_response(page) for page in pages]  # type: ignore[misc]
    assert [item["n"] async for item in kube.each(JOBS, None)] == [1, 2, 3]
    assert told.requests[1].query["continue"] == "more"


class Stored:
    """So many objects of so many bytes each, listed as the API server lists them; `pages`: the bytes of each answer."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes
        self.pages: list[int] = []
        self.limits: list[int] = []

    def list(self, request: web.Request) -> web.Response:
        begin, limit = int(request.query.get("continue", "0")), int(request.query["limit"])
        part = self.sizes[begin : begin + limit]
        more = {"continue": str(begin + limit)} if begin + limit < len(self.sizes) else {}
        items = [
            {"metadata": {"name": str(begin + place), "managedFields": [{"manager": "kubectl"}]}, "text": "x" * size}
            for place, size in enumerate(part)
        ]
        answer = web.json_response({"items": items, "metadata": more})
        self.pages.append(len(answer.body) if isinstance(answer.body, bytes) else 0)
        self.limits.append(limit)
        return answer


async def test_a_page_holds_fewer_objects_where_they_are_large(server: tuple[Server, Kube]) -> None:
    told, kube = server
    stored = Stored([100] * 1000 + [100_000] * 300 + [2_000_000] * 5 + [100] * 1000)
    told.answers = [stored.list] * 1000
    names = []
    async for item in kube.each(JOBS, None):
        names.append(item["metadata"]["name"])
        assert "managedFields" not in item["metadata"]
    assert names == [str(number) for number in range(len(stored.sizes))]
    assert max(stored.limits) == PAGE  # of the small ones
    too_large = [size for size in stored.pages if size > MAX_PAGE_BYTES]
    assert len(too_large) <= 3  # given up, one for each jump in size


async def test_an_object_that_is_nested_too_deeply_to_be_read_comes_with_its_metadata(
    server: tuple[Server, Kube],
) -> None:
    told, kube = server
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    names = ["one", "deep", "two"]

    def listed(request: web.Request) -> web.Response:
        begin, limit = int(request.query.get("continue", "0")), int(request.query["limit"])
        part = names[begin : begin + limit]
        whole = "PartialObjectMetadata" not in request.headers["Accept"]
        items = [
            f'{{"metadata":{{"name":"{name}"}},"spec":{deep if name == "deep" and whole else "{}"}}}' for name in part
        ]
        more = f'"continue":"{begin + limit}"' if begin + limit < len(names) else ""
        text = f'{{"items":[{",".join(items)}],"metadata":{{{more}}}}}'
        return web.Response(text=text, content_type="application/json")

    told.answers = [listed] * 20
    assert [item["metadata"]["name"] async for item in kube.each(JOBS, None)] == names


async def test_a_list_that_grows_too_old_goes_on_where_it_was(server: tuple[Server, Kube]) -> None:
    told, kube = server
    expired = {"kind": "Status", "code": 410, "reason": "Expired", "metadata": {"continue": "later"}}
    told.answers = [
        lambda _: web.json_response({"items": [{"n": 1}], "metadata": {"continue": "more"}}),
        lambda _: web.json_response(expired, status=410),
        lambda _: web.json_response({"items": [{"n": 2}], "metadata": {}}),
    ]
    assert [item["n"] async for item in kube.each(JOBS, None)] == [1, 2]
    assert [request.query.get("continue") for request in told.requests] == [None, "more", "later"]


async def test_a_list_that_cannot_go_on_is_an_outage(server: tuple[Server, Kube]) -> None:
    told, kube = server
    told.answers = [lambda _: web.json_response({"reason": "Expired", "message": "too old"}, status=410)]
    with pytest.raises(KubeUnavailable):
        assert [item async for item in kube.each(JOBS, None)] == []


async def test_an_empty_list_may_be_null(server: tuple[Server, Kube]) -> None:
    _, kube = server
    assert [item async for item in kube.each(JOBS, "shop")] == []


async def test_nobody_there_is_an_outage() -> None:
    kube = Kube(Access("http://127.0.0.1:1", ssl.create_default_context()))
    with pytest.raises(KubeUnavailable):
        await kube.get(JOBS, "shop", "one")
    await kube.close()
