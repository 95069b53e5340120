"""Headers of the real server's answers: what browsers and caches are told, and which pages' scripts may call."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.integration.scraping import Serving, processes
from tests.servers.stores import FreshDatabase, FreshRedis

PAGE = "https://app.example.org"
ORDER = {"queue": "email", "payload": {"to": "ada@example.org", "subject": "Hi", "body": "Hello"}}

ANSWERS: list[tuple[str, str, dict[str, Any], int]] = [
    ("GET", "/livez", {}, 200),
    ("GET", "/queues", {}, 200),
    ("POST", "/jobs/create", {"json": ORDER}, 201),
    ("POST", "/jobs/create", {"content": b"{"}, 400),
    ("GET", "/jobs/999999999", {}, 404),
    ("GET", "/nothing/here", {}, 404),
    ("PATCH", "/queues", {}, 405),
    ("POST", "/jobs/create", {"content": b"x" * 2**21}, 413),
    ("GET", "/docs", {}, 200),
    ("GET", "/docs/start.js", {}, 200),
    ("GET", "/openapi.json", {}, 200),
]


@pytest.mark.parametrize(("method", "path", "more", "status"), ANSWERS)
async def test_every_answer_tells_browsers_to_guess_frame_and_refer_nothing_and_does_not_name_the_server(
    client: httpx.AsyncClient, method: str, path: str, more: dict[str, Any], status: int
) -> None:
    answer = await client.request(method, path, **more)
    assert answer.status_code == status
    named = [name.lower() for name, _ in answer.headers.multi_items()]
    assert len(named) == len(set(named)), "a header twice"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "server" not in named
    assert not any(name.startswith("access-control-") for name in named)


@pytest.mark.parametrize(("method", "path", "more", "status"), ANSWERS)
async def test_only_the_files_of_the_docs_page_may_be_kept_by_a_cache(
    client: httpx.AsyncClient, method: str, path: str, more: dict[str, Any], status: int
) -> None:
    control = (await client.request(method, path, **more)).headers["cache-control"]
    assert control == ("max-age=3600" if path.startswith("/docs/") else "no-store")


@pytest.fixture(scope="module")
def shared(
    database: FreshDatabase, ready_queues: FreshRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    """A server that one web page's scripts may call."""
    own = processes(database, ready_queues, tmp_path_factory.mktemp("shared"))
    with own.start("api", GOQUEUE_API_CORS_ORIGINS=f"{PAGE},http://localhost:3000") as serving:
        yield serving


def asking(origin: str) -> dict[str, str]:
    """A browser's question before a script of that page posts JSON with a token."""
    return {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }


@pytest.mark.parametrize("origin", [PAGE, "http://localhost:3000"])
async def test_a_page_of_the_list_may_call_without_cookies(shared: Serving, origin: str) -> None:
    async with httpx.AsyncClient(base_url=shared.url) as client:
        asked = await client.options("/jobs/create", headers=asking(origin))
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == origin
        assert "access-control-allow-credentials" not in asked.headers
        answer = await client.get("/livez", headers={"Origin": origin})
        assert answer.headers["access-control-allow-origin"] == origin
        assert "origin" in answer.headers["vary"].lower()


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://app.example.org",
        "https://app.example.org:8443",
        "https://app.example.org.evil.example",
        "https://evil.example#https://app.example.org",
        "https://APP.example.org",
    ],
)
async def test_no_other_page_may_call(shared: Serving, origin: str) -> None:
    async with httpx.AsyncClient(base_url=shared.url) as client:
        asked = await client.options("/jobs/create", headers=asking(origin))
        assert asked.status_code == 400
        answer = await client.get("/livez", headers={"Origin": origin})
        assert "access-control-allow-origin" not in {**asked.headers, **answer.headers}


async def test_without_a_list_a_browsers_question_is_answered_like_any_wrong_method(client: httpx.AsyncClient) -> None:
    asked = await client.options("/jobs/create", headers=asking(PAGE))
    assert asked.status_code == 405
    assert "access-control-allow-origin" not in asked.headers
