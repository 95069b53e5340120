"""`send_webhook`: a signed HTTP request with a JSON body.

Signed by the Standard Webhooks scheme with every secret of GOQUEUE_WEBHOOK_SECRETS, so that receivers may change from
one to the next at leisure; `webhook-id` is the same in each attempt of a job, by which a receiver drops repetitions.

What the answer decides: 2xx is success; 408, 429 and 5xx are retried, after `Retry-After` where the server names one;
all else is final. Once the status is there it decides, even if the connection is lost before the end of the body: the
receiver has taken or refused the request.

Redirects: 307 and 308 (which keep method and body) are followed, at most three, each checked like the first URL; never
from https to http, and to another origin without the job's own headers, which may hold credentials. 301, 302 and 303
would turn the request into a GET without its body, hence they are final.
"""

import asyncio
import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import orjson
import structlog

from goqueue import tracing
from goqueue.builtin import SendWebhook
from goqueue.errors import NeverRetry, RetryIn, SettingsError
from goqueue.registry import JobContext
from goqueue.settings import WebhookSettings
from goqueue_worker.handlers.addresses import networks
from goqueue_worker.handlers.identity import digest
from goqueue_worker.handlers.outcome import TryAgain, one_line
from goqueue_worker.handlers.retry_after import retry_after

if TYPE_CHECKING:
    import httpx

    from goqueue_worker.handlers.guarded import Resolver

MAX_REDIRECTS: Final = 3
FOLLOWED: Final = frozenset({307, 308})
RETRIED: Final = frozenset({408, 429})

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Answer:
    """What came back so far. `status` decides, also where the rest of the answer gets lost: 0 until it is there."""

    status: int = 0
    retry_after: str | None = None
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False


class WebhookSender:
    """The handler with its settings and one HTTP client for all jobs. `resolver` stands in for DNS in tests;
    `installation` tells this installation's messages from those of others."""

    def __init__(self, settings: WebhookSettings, resolver: "Resolver | None" = None, installation: str = "") -> None:
        self.installation = installation
        for secret in settings.secrets:
            check_secret(secret.get_secret_value())
        if any(is_unpadded(secret.get_secret_value()) for secret in settings.secrets):
            log.warning(
                "a secret of GOQUEUE_WEBHOOK_SECRETS lacks the padding of base64 (=); give receivers the padded form, "
                "which every Standard Webhooks library takes"
            )
        self._settings = settings
        self._allowed = networks(settings.allow_networks)
        self._resolver = resolver
        self._shared: httpx.AsyncClient | None = None

    async def send(self, payload: SendWebhook, job: JobContext) -> dict[str, Any]:
        """Send the request; the answer's status and the beginning of its body are the result.

        Raises:
            NeverRetry: the address is forbidden, or the answer is final.
            RetryIn: the server said when to come back.
            TryAgain: no answer, or one that may change.
        """
        import httpx

        from goqueue_worker.handlers.guarded import Refused, checked_url

        host = "the URL"
        content = orjson.dumps(payload.body)
        id = webhook_id(self.installation, job.job_id, job.created, payload.url, content)
        headers = self._headers(id, content)
        answer = Answer()
        try:
            url = checked_url(payload.url)
            host = url.host
            async with asyncio.timeout(payload.timeout):
                await self._follow(url, payload, job, content, headers, answer)
        except Refused as error:
            raise NeverRetry(str(error)) from None
        except (httpx.LocalProtocolError, httpx.UnsupportedProtocol) as error:
            raise NeverRetry(f"the request to {host} cannot be sent: {one_line(str(error))}") from None
        except (TimeoutError, httpx.TransportError) as error:
            if answer.status == 0:
                raise unanswered(host, payload.timeout, error) from None
        text = answer.body[: self._settings.max_response_bytes].decode(errors="replace").replace("\0", "\ufffd")
        if not 200 <= answer.status <= 299:
            raise failure(host, answer.status, answer.retry_after, text)
        truncated = not answer.whole or len(answer.body) > self._settings.max_response_bytes
        return {"status": answer.status, "body": text, "truncated": truncated, "webhook_id": id}

    async def close(self) -> None:
        """Close the connections that are kept for the next request."""
        if self._shared is not None:
            await self._shared.aclose()
            self._shared = None

    async def _follow(
        self,
        url: "httpx.URL",
        payload: SendWebhook,
        job: JobContext,
        body: bytes,
        headers: dict[str, str],
        answer: Answer,
    ) -> None:
        """Send the request wherever it is redirected to, and note the answer as it comes."""
        from goqueue_worker.handlers.guarded import Refused, checked_url

        own = payload.headers
        for _ in range(MAX_REDIRECTS + 1):
            # The job's own headers are laid over the defaults; those that frame and sign are reserved by the model.
            laid = {name.lower(): value for name, value in own.items()}
            # The span names the host alone: the rest of the URL may be the receiver's secret.
            with tracing.calling(payload.method, url.host, url.port, {"http.request.method": payload.method}) as span:
                named = {**job.trace_headers, **headers, **laid}  # those of this span
                request = self._client().build_request(
                    payload.method, url, content=body, headers=named, timeout=payload.timeout
                )
                response = await self._client().send(request, stream=True)
                tracing.answered(span, response.status_code)
            try:
                if response.status_code not in FOLLOWED or "location" not in response.headers:
                    answer.status, answer.retry_after = response.status_code, response.headers.get("retry-after")
                    await self._read(response, answer)
                    return
                target = checked_url(str(url.join(location(response))))
            finally:
                await response.aclose()
            if url.scheme == "https" and target.scheme == "http":
                raise Refused(f"{url.host} redirects from https to http")
            if (target.scheme, target.host, target.port) != (url.scheme, url.host, url.port):
                own = {}
            url = target
        raise Refused(f"more than {MAX_REDIRECTS} redirects, the last by {url.host}")

    async def _read(self, response: "httpx.Response", answer: Answer) -> None:
        """The body as far as it is stored (and one byte more, if there is more)."""
        wanted = self._settings.max_response_bytes
        async for chunk in response.aiter_raw():
            answer.body += chunk[: wanted + 1 - len(answer.body)]
            if len(answer.body) > wanted:
                break
        answer.whole = True

    def _headers(self, id: str, body: bytes) -> dict[str, str]:
        headers = {
            "accept": "*/*",
            "accept-encoding": "identity",  # what is stored of the answer is stored as it came
            "content-type": "application/json",
            "user-agent": "GoQueue",
            "webhook-id": id,
        }
        if self._settings.secrets:
            from standardwebhooks.webhooks import Webhook

            now = datetime.now(UTC)
            signatures = [
                Webhook(secret.get_secret_value()).sign(id, now, body.decode()) for secret in self._settings.secrets
            ]
            headers["webhook-timestamp"] = str(int(now.timestamp()))
            headers["webhook-signature"] = " ".join(signatures)
        return headers

    def _client(self) -> "httpx.AsyncClient":
        if self._shared is None:
            from http.cookiejar import CookieJar, DefaultCookiePolicy

            import httpx

            from goqueue_worker.handlers.guarded import guarded_transport, resolve

            self._shared = httpx.AsyncClient(
                transport=guarded_transport(self._allowed, self._resolver or resolve),
                trust_env=False,
                follow_redirects=False,
                # One job's receiver must not set a cookie that another job's request then carries.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            )
        return self._shared


def check_secret(secret: str) -> None:
    """Refuse a secret that Standard Webhooks would not call one, without showing it.

    Raises:
        SettingsError: it is not 24 to 64 bytes in base64, with or without `whsec_` before it.
    """
    text = secret.removeprefix("whsec_")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        key = b""
    if not 24 <= len(key) <= 64:
        raise SettingsError("GOQUEUE_WEBHOOK_SECRETS: each must be 24 to 64 bytes in base64, `whsec_` before it")


def is_unpadded(secret: str) -> bool:
    """Whether base64 lacks its padding: Go's Standard Webhooks library refuses such a secret, others pad it."""
    return len(secret.removeprefix("whsec_")) % 4 != 0


def webhook_id(installation: str, job_id: int, created: float, url: str, body: bytes) -> str:
    """The message's identity at its receiver: the same in each attempt of the job, and another for each other job of
    any installation. No full stop: that separates the parts of what is signed."""
    return f"job_{job_id}_{digest(installation, job_id, created, url, body)}"


def location(response: "httpx.Response") -> str:
    """The redirect's target; bytes outside ASCII make it one that is refused."""
    from goqueue_worker.handlers.guarded import Refused

    text = response.headers["location"]
    if not text.isascii() or len(text) > 4096:
        raise Refused(f"{response.url.host} redirects to what is no URL")
    return str(text)


def unanswered(host: str, timeout: int, error: Exception) -> TryAgain:
    """The exception where not even a status came back; `timeout` in seconds."""
    import httpx

    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return TryAgain(f"{host} did not answer within {timeout} s")
    return TryAgain(f"no answer from {host}: {one_line(str(error)) or type(error).__name__}")


def failure(host: str, status: int, retry_header: str | None, body: str) -> Exception:
    """The exception for an answer outside 2xx."""
    try:
        phrase = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = str(status)
    text = f"{host} answered {phrase}: {one_line(body)}".removesuffix(": ")
    if status not in RETRIED and not 500 <= status <= 599:
        return NeverRetry(text)
    wait = retry_after(retry_header, datetime.now(UTC))
    return TryAgain(text) if wait is None else RetryIn(wait, text)
