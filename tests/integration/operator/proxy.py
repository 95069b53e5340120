"""A proxy before the API server that a test can make slow or unwilling."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.integration.operator.apiserver import ApiServer

Answer = Callable[[web.Request], Awaitable[web.Response | None]]
"""The proxy's own answer to a request; None: let the API server answer."""

NOT_REPEATED = {"transfer-encoding", "content-length", "content-encoding", "connection", "host"}


def status_write(request: web.Request) -> bool:
    """Whether a request writes the status of a GoQueueJob."""
    return request.method == "PATCH" and "/goqueuejobs/" in request.path and request.path.endswith("/status")


def throttled(seconds: int) -> web.Response:
    """What API priority and fairness answers where too much is asked."""
    body = {"kind": "Status", "code": 429, "reason": "TooManyRequests", "message": "slow down"}
    return web.json_response(body, status=429, headers={"Retry-After": str(seconds)})


@dataclass
class Proxy:
    """A running proxy."""

    kubeconfig: Path
    passed: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of the requests that the API server has answered."""


@contextlib.asynccontextmanager
async def proxy(kubernetes: ApiServer, folder: Path, answer: Answer) -> AsyncIterator[Proxy]:
    """A proxy, and a kubeconfig of an administrator that leads through it."""
    through = Proxy(folder / "kubeconfig")

    async def forward(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if (own := await answer(request)) is not None:
            return own
        headers = {name: text for name, text in request.headers.items() if name.lower() not in NOT_REPEATED}
        async with session.request(
            request.method, kubernetes.url + request.raw_path, data=body or None, headers=headers, ssl=False
        ) as found:
            kept = {name: text for name, text in found.headers.items() if name.lower() not in NOT_REPEATED}
            response = web.StreamResponse(status=found.status, headers=kept)
            await response.prepare(request)
            with contextlib.suppress(ConnectionError):  # whoever asked has gone
                async for part in found.content.iter_any():
                    await response.write(part)
                await response.write_eof()
            through.passed.append((request.method, request.path))
            return response

    application = web.Application(client_max_size=2**24)
    application.router.add_route("*", "/{path:.*}", forward)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout()) as session, TestServer(application) as server:
        config = yaml.safe_load(kubernetes.kubeconfig.read_text())
        config["clusters"][0]["cluster"] = {"server": str(server.make_url("")).rstrip("/")}
        through.kubeconfig.write_text(yaml.safe_dump(config))
        yield through
