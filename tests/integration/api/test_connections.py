"""Clients on raw sockets that are slow, silent, endless or no clients at all, against a real server process."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.integration.scraping import Scraped, Serving, processes
from tests.servers.stores import FreshDatabase, FreshRedis

HEAD = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
LATE = 40.0
"""Seconds within which a limit of two seconds has struck, which a well-behaved client keeps on a busy machine, too."""


@pytest.fixture(scope="module")
def api(
    database: FreshDatabase, ready_queues: FreshRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    """A server with short limits."""
    limits = {
        "GOQUEUE_API_HEAD_TIMEOUT": "2s",
        "GOQUEUE_API_WRITE_TIMEOUT": "2s",
        "GOQUEUE_API_MAX_HEAD_BYTES": "8192",
        "GOQUEUE_API_MAX_CONNECTIONS": "20",
    }
    with processes(database, ready_queues, tmp_path_factory.mktemp("api")).start("api", **limits) as serving:
        yield serving


@contextlib.asynccontextmanager
async def connected(api: Serving) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(api))
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> bytes:
    """What the server says until it ends the connection; reset counts as the end."""
    said = b""
    async with asyncio.timeout(LATE):
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65536):
                said += piece
    return said


def port_of(api: Serving) -> int:
    return int(api.url.rpartition(":")[2])


def refused(reason: str, more_than: float = 0) -> Callable[[Scraped], bool]:
    """Whether a process has refused more connections than these."""
    return lambda shown: shown("goqueue_http_connections_refused_total", reason=reason) > more_than


async def test_a_head_that_trickles_in_gets_408_though_each_byte_comes_in_time(api: Serving) -> None:
    async with connected(api) as (reader, writer):
        answering = asyncio.create_task(answer(reader))
        writer.write(HEAD)
        for number in range(1000):
            writer.write(b"X-%d: y\r\n" % number)
            await asyncio.wait([answering], timeout=0.1)  # the pace of the attack, not a wait for the server
            if answering.done():
                break
    said = await answering
    assert said.startswith(b"HTTP/1.1 408 ")
    assert said.endswith(b'{"error":"request timeout"}')
    await api.until(refused("slow_head"))


async def test_a_connection_that_says_nothing_is_closed_without_a_word(api: Serving) -> None:
    async with connected(api) as (reader, _):
        assert await answer(reader) == b""
    await api.until(refused("silent"))


async def test_a_body_that_goes_on_trickling_after_its_answer_ends_the_connection(api: Serving) -> None:
    async with connected(api) as (reader, writer):
        answering = asyncio.create_task(answer(reader))
        writer.write(HEAD + b"Content-Length: 100000\r\n\r\n")
        for _ in range(100):
            writer.write(b"x")
            await asyncio.wait([answering], timeout=0.1)
            if answering.done():
                break
    assert (await answering).startswith(b"HTTP/1.1 200 ")
    await api.until(refused("slow_body"))


async def test_a_client_that_does_not_read_its_answers_is_cut_off(api: Serving) -> None:
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", port_of(api)))
        slow.setblocking(False)
        before = (await api.scrape())("goqueue_http_connections_refused_total", reason="slow_reader")
        # The script of the docs page is larger than what the kernel buffers on its own.
        wanted = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"
        await asyncio.get_running_loop().sock_sendall(slow, wanted * 10)
        await api.until(refused("slow_reader", before))


async def test_a_client_that_reads_is_not_cut_off(api: Serving) -> None:
    async with connected(api) as (reader, writer):
        wanted = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n"
        writer.write((wanted + b"\r\n") * 3 + wanted + b"Connection: close\r\n\r\n")
        assert (await answer(reader)).count(b"HTTP/1.1 200 OK") == 4


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(HEAD + b"X: " + b"y" * 9000 + b"\r\n\r\n", id="one long header"),
        pytest.param(HEAD + b"".join(b"X-%d: %b\r\n" % (n, b"y" * 90) for n in range(90)) + b"\r\n", id="many bytes"),
        pytest.param(HEAD + b"".join(b"X-%d: y\r\n" % n for n in range(101)) + b"\r\n", id="many headers"),
        pytest.param(b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", id="a long target"),
    ],
)
async def test_a_head_over_the_limit_gets_431(api: Serving, head: bytes) -> None:
    async with connected(api) as (reader, writer):
        writer.write(head)
        said = await answer(reader)
    assert said.startswith(b"HTTP/1.1 431 ")
    assert said.endswith(b'{"error":"request head is too large"}')


async def test_a_header_that_never_ends_is_not_gathered_in_memory(api: Serving) -> None:
    async with connected(api) as (reader, writer):
        writer.write(HEAD + b"X: ")
        await writer.drain()
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 64 * 2**20 and not reader.at_eof():
                writer.write(b"y" * 65536)
                await writer.drain()
                sent += 65536
        assert sent < 16 * 2**20
        said = await answer(reader)
    assert said == b"" or said.startswith(b"HTTP/1.1 431 ")
    await api.until(refused("large_head"))


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"GET /livez HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_no_http_gets_400_and_the_end(api: Serving, garbage: bytes) -> None:
    async with connected(api) as (reader, writer):
        writer.write(garbage)
        assert b"400 Bad Request" in await answer(reader)


async def test_a_large_body_before_a_head_counts_as_no_head(api: Serving) -> None:
    """Two requests in one piece: the first one's body is longer than a head may be."""
    body = b'{"x": "' + b"y" * 20_000 + b'"}'
    first = b"POST /jobs/create HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with connected(api) as (reader, writer):
        writer.write(first + HEAD)
        await writer.drain()
        writer.write(b"Connection: close\r\n\r\n")
        said = await answer(reader)
    assert said.count(b"HTTP/1.1 400 ") == 1
    assert said.count(b"HTTP/1.1 200 ") == 1


async def test_one_connection_too_many_gets_503_and_the_others_go_on(api: Serving) -> None:
    async with contextlib.AsyncExitStack() as stack:
        kept = [await stack.enter_async_context(connected(api)) for _ in range(20)]
        for _, writer in kept:
            writer.write(HEAD + b"\r\n")
        for reader, _ in kept:
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
        async with connected(api) as (reader, _):
            assert (await answer(reader)).startswith(b"HTTP/1.1 503 ")
        reader, writer = kept[0]
        writer.write(HEAD + b"Connection: close\r\n\r\n")
        assert (await answer(reader)).startswith(b"HTTP/1.1 200 ")
