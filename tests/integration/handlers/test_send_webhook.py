"""`send_webhook` against a real HTTP server on the loopback address, which is what it may call here."""

import asyncio
import base64
import contextlib
import json
import logging
import re
import ssl
import threading
import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import Any

import pytest
from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from structlog.testing import capture_logs

from goqueue.builtin import SendWebhook
from goqueue.errors import NeverRetry, RetryIn
from goqueue.settings import WebhookSettings
from goqueue_cli.embedded import free_port
from goqueue_worker.handlers.outcome import TryAgain
from goqueue_worker.handlers.send_webhook import WebhookSender
from tests.integration.handlers.conftest import Certificate
from tests.integration.handlers.receiver import Answer, Receiver
from tests.servers.tcp import listen
from tests.unit.handlers.context import Context

OLD, NEW, FOREIGN = ("whsec_" + letters * 8 for letters in ("QUJD", "REVG", "R0hJ"))
BODY = {"event": "order.paid", "text": "Grüße, 世界", "nested": {"list": [1, 2.5, None, True]}}


@contextlib.asynccontextmanager
async def sender(*, resolver: Any = None, installation: str = "here", **settings: Any) -> AsyncIterator[WebhookSender]:
    """A sender that may call 127.0.0.1."""
    chosen = WebhookSettings(**{"allow_networks": ["127.0.0.1/32"], **settings})
    handler = WebhookSender(chosen, resolver, installation)
    try:
        yield handler
    finally:
        await handler.close()


def payload(url: str, **more: Any) -> SendWebhook:
    return SendWebhook.model_validate({"url": url, "method": "POST", "body": BODY, **more})


# --- what is sent ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_the_request_carries_method_headers_and_json_body(target: Receiver, method: str) -> None:
    async with sender() as handler:
        result = await handler.send(
            payload(target.url + "/hook?x=1", method=method, headers={"X-Key": "k", "Content-Type": "text/json"}),
            Context(job_id=7),
        )
    [request] = target.requests
    assert (request.method, request.path) == (method, "/hook?x=1")
    assert json.loads(request.body) == BODY
    assert request.headers["x-key"] == "k"
    assert request.headers["content-type"] == "text/json"
    assert request.headers["host"] == f"127.0.0.1:{target.port}"
    id = request.headers["webhook-id"]
    assert re.fullmatch(r"job_7_[0-9a-f]{24}", id)
    assert "webhook-signature" not in request.headers
    assert result == {"status": 200, "body": "ok", "truncated": False, "webhook_id": id}


async def test_while_rotating_either_secret_verifies_and_a_foreign_one_does_not(target: Receiver) -> None:
    async with sender(secrets=[SecretStr(OLD), SecretStr(NEW)]) as handler:
        await handler.send(payload(target.url), Context())
    [request] = target.requests
    assert len(request.headers["webhook-signature"].split(" ")) == 2
    for secret in (OLD, NEW):
        assert Webhook(secret).verify(request.body, request.headers) == BODY
    with pytest.raises(WebhookVerificationError):
        Webhook(FOREIGN).verify(request.body, request.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(request.body + b" ", request.headers)


async def test_the_id_is_the_same_in_each_attempt(target: Receiver) -> None:
    async with sender(secrets=[SecretStr(OLD)]) as handler:
        for attempt in (1, 2):
            await handler.send(payload(target.url), Context(job_id=5, attempt=attempt))
    assert len({request.headers["webhook-id"] for request in target.requests}) == 1


async def test_the_id_differs_between_two_jobs_that_a_database_which_lost_the_first_gave_one_id(
    target: Receiver,
) -> None:
    async with sender() as handler:
        for created in (1_700_000_000.0, 1_700_000_000.000001):
            await handler.send(payload(target.url), Context(job_id=5, created=created))
    assert len({request.headers["webhook-id"] for request in target.requests}) == 2


async def test_the_id_differs_between_jobs_installations_and_contents(target: Receiver) -> None:
    for installation in ("first", "second"):
        async with sender(installation=installation) as handler:
            for job_id in (1, 2):
                for body in ({"order": 1}, {"order": 2}):
                    await handler.send(payload(target.url, body=body), Context(job_id=job_id))
    assert len({request.headers["webhook-id"] for request in target.requests}) == 8


def test_an_unpadded_secret_is_taken_with_one_warning_that_does_not_show_it() -> None:
    whole = base64.b64encode(bytes(range(32))).decode()
    assert whole.endswith("=")
    for written, warnings in ((f"whsec_{whole}", 0), (f"whsec_{whole.rstrip('=')}", 1), (whole.rstrip("="), 1)):
        with capture_logs() as logged:
            WebhookSender(WebhookSettings(secrets=[SecretStr(written), SecretStr(OLD)]))
        assert [line["log_level"] for line in logged] == ["warning"] * warnings
        assert whole.rstrip("=") not in str(logged)


async def test_an_unpadded_secret_signs_as_its_padded_form_does(target: Receiver) -> None:
    whole = "whsec_" + base64.b64encode(bytes(range(32))).decode()
    async with sender(secrets=[SecretStr(whole.rstrip("="))]) as handler:
        await handler.send(payload(target.url), Context())
    [request] = target.requests
    assert Webhook(whole).verify(request.body, request.headers) == BODY


async def test_no_cookie_of_one_receiver_goes_to_another(target: Receiver) -> None:
    target.answers = [Answer(headers={"set-cookie": "session=s3cret; Path=/"})]
    async with sender() as handler:
        await handler.send(payload(target.url), Context(job_id=1))
        await handler.send(payload(target.url), Context(job_id=2))
    assert all("cookie" not in request.headers for request in target.requests)


async def test_neither_proxy_nor_netrc_of_the_environment_is_used(
    target: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    async with sender() as handler:
        assert (await handler.send(payload(target.url), Context()))["status"] == 200


# --- what the answer decides ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_2xx_is_success(target: Receiver, status: int) -> None:
    target.answers = [Answer(status, b"")]
    async with sender() as handler:
        assert (await handler.send(payload(target.url), Context()))["status"] == status


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 599])
async def test_answers_that_may_change_are_retried(target: Receiver, status: int) -> None:
    target.answers = [Answer(status, b"busy\r\nnow")]
    async with sender() as handler:
        with pytest.raises(TryAgain, match=f"127.0.0.1 answered {status}.*busy now"):
            await handler.send(payload(target.url), Context())


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 413, 422, 499, 300, 301, 302, 303, 304])
async def test_other_answers_are_final(target: Receiver, status: int) -> None:
    target.answers = [Answer(status, b"" if status == 304 else b"no", {"location": "/elsewhere"})]
    async with sender() as handler:
        with pytest.raises(NeverRetry, match=f"answered {status}"):
            await handler.send(payload(target.url), Context())
    assert len(target.requests) == 1


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [("7", 7, 7), ("999999", 3600, 3600), (None, 50, 70)],
    ids=["seconds", "bounded", "date"],
)
async def test_retry_after_says_when_to_come_back(target: Receiver, value: str | None, least: int, most: int) -> None:
    target.answers = [Answer(503, headers={"retry-after": value or formatdate(time.time() + 60, usegmt=True)})]
    async with sender() as handler:
        with pytest.raises(RetryIn) as caught:
            await handler.send(payload(target.url), Context())
    assert least <= caught.value.seconds <= most


async def test_a_closed_port_a_lost_connection_and_an_unknown_name_are_retried(target: Receiver) -> None:
    async def unknown(host: str, port: int) -> list[str]:
        raise OSError("Name or service not known")

    async with sender(resolver=unknown) as handler:
        target.answers = [Answer(drop=True)]
        for url in (f"http://127.0.0.1:{free_port()}/", target.url, "http://gone.example/"):
            with pytest.raises(TryAgain):
                await handler.send(payload(url), Context())


async def test_silence_ends_with_the_payloads_timeout() -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listen(silent) as port, sender() as handler:
        with pytest.raises(TryAgain, match="did not answer within 1 s"):
            await handler.send(payload(f"http://127.0.0.1:{port}/", timeout=1), Context())


@pytest.mark.parametrize("lost", [False, True], ids=["silent", "closed"])
async def test_the_status_decides_even_if_the_body_never_comes(target: Receiver, lost: bool) -> None:
    """Else a receiver that has taken the request would get it again, and one that refused it for good as well."""
    pause = threading.Event()
    if lost:
        pause.set()
    long = {"content-length": "1000"}
    target.script = lambda request: Answer(int(request.path[1:]), b"half", {**long, "connection": "close"}, pause)
    async with sender() as handler:
        result = await handler.send(payload(f"{target.url}/200", timeout=1), Context())
        assert (result["status"], result["truncated"]) == (200, True)
        assert result["body"] == ("half" if lost else "")
        with pytest.raises(NeverRetry, match="answered 404"):
            await handler.send(payload(f"{target.url}/404", timeout=1), Context())
        with pytest.raises(TryAgain, match="answered 503"):
            await handler.send(payload(f"{target.url}/503", timeout=1), Context())
    pause.set()


async def test_a_cancelled_job_lets_go_at_once(target: Receiver) -> None:
    pause = threading.Event()
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()

    def script(_: Any) -> Answer:
        loop.call_soon_threadsafe(arrived.set)
        return Answer(pause=pause)

    target.script = script
    async with sender() as handler:
        task = asyncio.create_task(handler.send(payload(target.url, timeout=30), Context()))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(25):  # and not the 30 s that it may take
                await task
    pause.set()


# --- kept connections -----------------------------------------------------------------------------------------------


class Closing:
    """A server that answers the first request of each connection, then does as told when the next one begins to come:
    it closes, or answers with `part` before it closes."""

    def __init__(self, part: bytes = b"", *, greet: bool = True) -> None:
        self.part = part
        self.greet = greet
        self.begun: list[str] = []
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            if self.greet:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
                self.begun.append(head.partition("webhook-id: ")[2].partition("\r\n")[0])
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            self.begun.append(head.partition("webhook-id: ")[2].partition("\r\n")[0])
            writer.write(self.part)
            await writer.drain()

    @contextlib.asynccontextmanager
    async def running(self, certificate: Certificate | None = None) -> AsyncIterator[str]:
        """Its URL."""
        context = None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.cert, certificate.key)
        async with listen(self.serve, tls=context) as port:
            yield f"{'https' if certificate else 'http'}://127.0.0.1:{port}/"


@pytest.mark.parametrize("tls", [False, True])
async def test_a_kept_connection_that_is_closed_costs_no_attempt(
    tls: bool, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.cert))
    server = Closing()
    async with server.running(certificate if tls else None) as url, sender() as handler:
        for job_id in (1, 2, 3):
            assert (await handler.send(payload(url), Context(job_id=job_id, max_retries=0)))["status"] == 200
    first, second, again, third = server.begun
    assert second == again
    assert len({first, second, third}) == 3


async def test_a_request_whose_answer_began_is_not_sent_again_at_once() -> None:
    server = Closing(b"HTTP/1.1 2")
    async with server.running() as url, sender() as handler:
        await handler.send(payload(url), Context(job_id=1))
        with pytest.raises(TryAgain):
            await handler.send(payload(url), Context(job_id=2))
    assert len(server.begun) == 2


async def test_a_new_connection_that_is_closed_is_not_tried_again_at_once() -> None:
    server = Closing(greet=False)
    async with server.running() as url, sender() as handler:
        with pytest.raises(TryAgain, match="no answer"):
            await handler.send(payload(url), Context())
    assert len(server.begun) == server.connections == 1


async def test_the_second_connection_is_checked_like_the_first() -> None:
    asked: list[str] = []

    async def changing(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    server = Closing()
    async with server.running() as url, sender(resolver=changing) as handler:
        named = url.replace("127.0.0.1", "shop.example")
        await handler.send(payload(named), Context(job_id=1))
        with pytest.raises(NeverRetry, match=r"10\.0\.0\.1"):
            await handler.send(payload(named), Context(job_id=2))
    assert asked == ["shop.example"] * 2


# --- what is kept of the answer -------------------------------------------------------------------------------------


async def test_a_long_answer_is_stored_truncated_and_its_rest_is_not_read(target: Receiver) -> None:
    target.answers = [Answer(body=b"x" * 5_000_000)]
    async with sender(max_response_bytes=100) as handler:
        result = await handler.send(payload(target.url), Context())
    assert (result["body"], result["truncated"]) == ("x" * 100, True)


async def test_an_answer_of_exactly_the_limit_is_whole(target: Receiver) -> None:
    target.answers = [Answer(body=b"x" * 100)]
    async with sender(max_response_bytes=100) as handler:
        assert (await handler.send(payload(target.url), Context()))["truncated"] is False


async def test_an_answer_that_is_no_text_can_still_be_stored(target: Receiver) -> None:
    target.answers = [Answer(body=b"\x00\xff\xfe ok")]
    async with sender() as handler:
        body = (await handler.send(payload(target.url), Context()))["body"]
    assert "\0" not in body
    assert body.endswith(" ok")


async def test_neither_secret_nor_url_path_appear_in_logs_results_or_errors(
    target: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    from goqueue_worker import handlers

    caplog.set_level(logging.DEBUG)
    handlers.install()
    target.answers = [Answer(200), Answer(500), Answer(404)]
    seen = ""
    async with sender(secrets=[SecretStr(OLD)]) as handler:
        for _ in range(3):
            try:
                seen += str(await handler.send(payload(target.url + "/T0KEN?k=T0KEN"), Context()))
            except Exception as error:
                seen += repr(error) + repr(error.__cause__)
    assert len(target.requests) == 3
    for secret in (OLD.removeprefix("whsec_"), "T0KEN"):
        assert secret not in seen + caplog.text


# --- where it may go ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"])
async def test_by_default_nothing_reaches_loopback(target: Receiver, host: str) -> None:
    async with sender(allow_networks=[]) as handler:
        with pytest.raises(NeverRetry, match="refused"):
            await handler.send(payload(f"http://{host}:{target.port}/"), Context())
    assert target.requests == []


async def test_the_connection_goes_to_the_address_that_was_checked(target: Receiver) -> None:
    """The name exists in no DNS: only a connection to the checked address itself can arrive, by its name as Host."""
    asked: list[str] = []

    async def changing(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    async with sender(resolver=changing) as handler:
        await handler.send(payload(f"http://shop.example:{target.port}/hook"), Context())
        assert asked == ["shop.example"]
        assert target.requests[0].headers["host"] == f"shop.example:{target.port}"
        await handler.close()  # the next job needs a new connection, and the name has changed its mind
        with pytest.raises(NeverRetry, match=r"10\.0\.0\.1"):
            await handler.send(payload(f"http://shop.example:{target.port}/hook"), Context())
    assert len(target.requests) == 1


async def test_one_forbidden_address_among_several_forbids_the_host(target: Receiver) -> None:
    async def mixed(host: str, port: int) -> list[str]:
        return ["127.0.0.1", "169.254.169.254"]

    async with sender(resolver=mixed) as handler:
        with pytest.raises(NeverRetry, match=r"169\.254\.169\.254"):
            await handler.send(payload(f"http://shop.example:{target.port}/"), Context())
    assert target.requests == []


async def test_the_next_address_is_tried_where_the_first_does_not_answer(target: Receiver) -> None:
    async def two(host: str, port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]  # nothing listens on the first

    async with sender(resolver=two, allow_networks=["127.0.0.0/8"]) as handler:
        assert (await handler.send(payload(f"http://shop.example:{target.port}/"), Context()))["status"] == 200


async def test_tls_is_checked_against_the_urls_name_not_the_address(
    tls_target: Receiver, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def local(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with sender(resolver=local) as handler:
        with pytest.raises(TryAgain, match="certificate"):
            await handler.send(payload(f"https://shop.example:{tls_target.port}/"), Context())
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.cert))
    async with sender(resolver=local) as handler:
        result = await handler.send(payload(f"https://shop.example:{tls_target.port}/"), Context())
        assert result["status"] == 200
        with pytest.raises(TryAgain, match="certificate"):
            await handler.send(payload(f"https://other.example:{tls_target.port}/"), Context())
    assert tls_target.requests[0].headers["host"] == f"shop.example:{tls_target.port}"


# --- redirects ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirect_that_keeps_the_body_is_followed(target: Receiver, status: int) -> None:
    target.answers = [Answer(status, headers={"location": "/new"}), Answer(body=b"there")]
    async with sender(secrets=[SecretStr(OLD)]) as handler:
        result = await handler.send(payload(target.url + "/old", headers={"x-key": "k"}), Context())
    assert result["body"] == "there"
    second = target.requests[1]
    assert (second.method, second.path, second.headers["x-key"]) == ("POST", "/new", "k")
    assert Webhook(OLD).verify(second.body, second.headers) == BODY


async def test_more_than_three_redirects_are_final(target: Receiver) -> None:
    target.script = lambda _: Answer(307, headers={"location": "/again"})
    async with sender() as handler:
        with pytest.raises(NeverRetry, match="more than 3 redirects"):
            await handler.send(payload(target.url), Context())
    assert len(target.requests) == 4


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "//10.0.0.1/",
        "http://2130706433/",
        "http://127.1/",
        "http://user@127.0.0.1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "http://[::ffff:169.254.169.254]/",
        "\\\\10.0.0.1\\x",
    ],
)
async def test_no_redirect_leads_to_a_forbidden_place(target: Receiver, location: str) -> None:
    target.answers = [Answer(307, headers={"location": location})]
    async with sender() as handler:
        with pytest.raises(NeverRetry):
            await handler.send(payload(target.url), Context())
    assert len(target.requests) == 1


async def test_the_jobs_own_headers_do_not_follow_to_another_origin(target: Receiver) -> None:
    async def local(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    target.answers = [Answer(307, headers={"location": f"http://other.example:{target.port}/"})]
    async with sender(resolver=local) as handler:
        await handler.send(payload(target.url, headers={"authorization": "Bearer s3cret"}), Context())
    assert "authorization" in target.requests[0].headers
    assert "authorization" not in target.requests[1].headers


async def test_no_redirect_leads_from_https_to_http(
    tls_target: Receiver, target: Receiver, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.cert))
    tls_target.answers = [Answer(308, headers={"location": target.url})]
    async with sender() as handler:
        with pytest.raises(NeverRetry, match="from https to http"):
            await handler.send(payload(tls_target.url), Context())
    assert target.requests == []
