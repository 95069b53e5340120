"""Odd but legal HTTP against a real server: each is answered as RFC 9110 says, or refused in the one error shape."""

import asyncio
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from goqueue_api.docs import takes_gzip

MAIL = {"to": "ada@example.org", "subject": "Hi", "body": "Hello"}
ORDER = {"queue": "email", "payload": MAIL}

READABLE = [
    "/",
    "/health",
    "/health/db",
    "/livez",
    "/readyz",
    "/docs",
    "/docs/start.js",
    "/openapi.json",
    "/jobs?queue=email",
    "/queues",
    "/schedules",
    "/types",
    "/admin/keys",
    "/admin/audit",
]


@pytest.mark.parametrize(
    ("path", "status"), [*((path, 200) for path in READABLE), ("/jobs", 400), ("/jobs/999999999", 404), ("/nope", 404)]
)
async def test_head_has_status_and_headers_of_get_and_no_body(
    client: httpx.AsyncClient, path: str, status: int
) -> None:
    got, head = await client.get(path), await client.head(path)
    assert (head.status_code, head.content) == (status, b"")
    changing = {"date", "x-request-id"}
    if path in ("/queues", "/admin/audit"):
        changing.add("content-length")
    assert {name: value for name, value in head.headers.items() if name not in changing} == {
        name: value for name, value in got.headers.items() if name not in changing
    }


async def conversation(url: str, *texts: bytes) -> bytes:
    """All that the server says to these bytes until it closes."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    for text in texts:
        writer.write(text)
        await writer.drain()
    answer = await reader.read()
    writer.close()
    return answer


async def test_a_connection_goes_on_after_a_head(api_url: str) -> None:
    both = b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await conversation(api_url, both)
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert answer.count(b'{"status":"ok"}') == 1


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("HEAD", "/jobs/1/cancel", "POST"),
        ("OPTIONS", "/jobs", "GET, HEAD"),
        ("OPTIONS", "/jobs/1", "DELETE, GET, HEAD"),
        ("POST", "/openapi.json", "GET, HEAD"),
        ("POST", "/docs", "GET, HEAD"),
        ("TRACE", "/health", "GET, HEAD"),
        ("PATCH", "/jobs/1%3Fx", "DELETE, GET, HEAD"),
    ],
)
async def test_a_method_that_a_path_has_not_is_405_with_those_it_has(
    client: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.content == (b"" if method == "HEAD" else b'{"error":"method not allowed"}')


@pytest.mark.parametrize("host", [b"", b"[", b"[::1", b"a b", b"x:y"])
async def test_no_host_header_breaks_an_answer(api_url: str, host: bytes) -> None:
    head = b"PATCH /jobs HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % host
    assert (await conversation(api_url, head)).startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("queue=email&queue=default", "queue"),
        ("queue=email&limit=1&limit=2", "limit"),
        ("queue=email&after=&aft%65r=7", "after"),
    ],
)
async def test_a_query_parameter_given_twice_is_refused_by_name(
    client: httpx.AsyncClient, query: str, name: str
) -> None:
    answer = await client.get(f"/jobs?{query}")
    assert (answer.status_code, answer.json()) == (
        400,
        {"error": "validation failed", "fields": {name: "given more than once"}},
    )


@pytest.mark.parametrize("path", ["/jobs/create", "/jobs/bulk"])
async def test_a_compressed_body_is_415_and_makes_no_job(client: httpx.AsyncClient, path: str) -> None:
    before = (await client.get("/queues")).json()["queues"]
    answer = await client.post(path, json=ORDER, headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
    assert answer.json() == {
        "error": "unsupported content encoding",
        "fields": {"Content-Encoding": "must be absent or identity"},
    }
    after = (await client.get("/queues")).json()["queues"]
    assert [queue["depth"] for queue in after] == [queue["depth"] for queue in before]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "application/json; charset=utf-8"},
        {"Content-Type": "text/plain"},
        {"Content-Type": ""},
        {"Content-Encoding": "identity"},
        {"Accept": "application/xml"},
        {"If-None-Match": "*"},
        {"If-Match": '"x"'},
    ],
    ids=str,
)
async def test_a_job_is_made_whatever_the_body_is_called_as_by_the_go_project(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    content = b'{"queue": "email", "payload": {"to": "ada@example.org", "subject": "\xc3\xa4", "body": "b"}}'
    answer = await client.post("/jobs/create", content=content, headers=headers)
    assert (answer.status_code, answer.json()["payload"]["subject"]) == (201, "ä")
    assert answer.headers["content-type"] == "application/json"


async def test_a_client_that_waits_for_100_is_told_to_go_on_and_one_that_is_refused_is_not(api_url: str) -> None:
    body = b'{"queue": "email", "payload": {"to": "ada@example.org", "subject": "s", "body": "b"}}'
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    parts = urlsplit(api_url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(head % (b"/jobs/create", len(body)))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    writer.write(body)
    assert (await reader.read()).startswith(b"HTTP/1.1 201 ")
    writer.close()
    assert (await conversation(api_url, head % (b"/jobs/create", 2**21))).startswith(b"HTTP/1.1 413 ")
    assert (await conversation(api_url, head % (b"/jobs", 5))).startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize(
    ("accepted", "taken"),
    [
        ("gzip", True),
        ("gzip, deflate, br", True),
        ("br;q=1.0, GZIP;q=0.8", True),
        ("*", True),
        ("", False),
        ("br", False),
        ("x-gzipped", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000, *", False),
        ("*;q=0", False),
        ("*;q=0, gzip;q=0.001", True),
    ],
)
def test_files_of_the_docs_are_compressed_for_who_takes_that(accepted: str, taken: bool) -> None:
    assert takes_gzip(accepted) is taken


@pytest.mark.parametrize("path", ["/queues/email/pause", "/queues/email/resume"])
@pytest.mark.parametrize("body", [b"", b"{}", b"nonsense"])
async def test_a_body_that_nobody_asked_for_is_not_read(client: httpx.AsyncClient, path: str, body: bytes) -> None:
    answer: Any = await client.post(path, content=body)
    assert (answer.status_code, answer.content) == (204, b"")
