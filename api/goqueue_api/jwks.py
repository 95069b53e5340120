"""The keys of a token issuer: fetched beside the requests, kept while it is away, asked for anew within bounds.

No request waits for the issuer, but for one that shows a key nobody knows yet: it waits for the keys to be fetched, for
`PATIENCE` at most, and however many such requests come, the issuer is asked once in `PAUSE` seconds.
"""

import asyncio
import json
import ssl
import time
import urllib.request
from http.client import HTTPException
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import urlsplit

import jwt
import structlog

from goqueue.errors import StoreUnavailable
from goqueue.settings import OidcSettings
from goqueue.settings.kinds import is_secure

PATIENCE: Final = 2.0
"""Seconds that a request with an unknown key waits."""

PAUSE: Final = 10.0
"""Seconds between two fetches, whatever the reason."""

STALE: Final = 24 * 3600.0
"""Seconds for which keys are good while the issuer is away."""

TIMEOUT: Final = 5.0
"""Seconds for one answer of the issuer."""

MAX_BYTES: Final = 1024 * 1024
MAX_KEYS: Final = 100
KEY_TYPES: Final = frozenset({"RSA", "EC", "OKP"})
"""Never `oct`: who may verify by a secret may sign by it."""

log = structlog.get_logger(__name__)


class IssuerUnavailable(Exception):
    """The issuer does not answer, or not with what is wanted."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class KeySet:
    """The issuer's keys by id."""

    def __init__(self, settings: OidcSettings, *, pause: float = PAUSE) -> None:
        self._settings = settings
        self._pause = pause
        self._keys: dict[str | None, dict[str, Any]] | None = None
        self._fetched_at = 0.0
        self._asked_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        context = ssl.create_default_context(cafile=settings.tls_ca)
        self._opener = urllib.request.build_opener(_NoRedirects, urllib.request.HTTPSHandler(context=context))

    async def find(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        """The key for a token; None where the issuer has none of this id for this algorithm.

        Raises:
            StoreUnavailable: the keys are not known, or too old.
        """
        found = self._look(key_id)
        if found is None or not self._fresh:
            await self._ask()
            found = self._look(key_id)
        if not self._fresh:
            raise StoreUnavailable("the token issuer is unavailable")
        if found is None or found.get("alg", algorithm) != algorithm:
            return None
        return jwt.PyJWK(found, algorithm)  # refuses an algorithm that is for another type of key

    def _look(self, key_id: str | None) -> dict[str, Any] | None:
        """The key of that id; a token that names none means the only one."""
        keys = self._keys or {}
        return next(iter(keys.values())) if key_id is None and len(keys) == 1 else keys.get(key_id)

    @property
    def _fresh(self) -> bool:
        return self._keys is not None and time.monotonic() - self._fetched_at < STALE

    async def watch(self) -> None:
        """Fetch the keys now and then, until cancelled."""
        while True:
            await self._ask()
            await asyncio.sleep(self._settings.refresh_seconds if self._fresh else self._pause)

    async def _ask(self) -> None:
        """Wait a little for fresh keys, unless they were asked for just now."""
        if self._fetching is None or self._fetching.done():
            if time.monotonic() - self._asked_at < self._pause:
                return
            self._asked_at = time.monotonic()
            self._fetching = asyncio.create_task(self._fetch(), name="jwks")
        await asyncio.wait([self._fetching], timeout=PATIENCE)

    async def _fetch(self) -> None:
        try:
            document = await asyncio.to_thread(self._read)
            self._keys = usable(document)
            self._fetched_at = time.monotonic()
        except IssuerUnavailable as error:
            log.warning("the keys of the token issuer cannot be fetched", error=str(error))

    def _read(self) -> Any:
        """The key set; in a thread."""
        url = self._settings.jwks_url
        if not url:
            about = self._get(f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration")
            if not isinstance(about, dict) or about.get("issuer") != self._settings.issuer:
                raise IssuerUnavailable("the discovery document is another issuer's")
            named = about.get("jwks_uri")
            if not isinstance(named, str) or not is_secure(named):
                raise IssuerUnavailable("the discovery document names no https:// address of keys")
            url = named
        return self._get(url)

    def _get(self, url: str) -> Any:
        where = urlsplit(url).netloc
        try:
            request = urllib.request.Request(url, headers={"Accept": "application/json", "User-Agent": "GoQueue"})  # noqa: S310 - settings and `is_secure` let http(s) through only
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                body = answer.read(MAX_BYTES + 1)
            if len(body) > MAX_BYTES:
                raise IssuerUnavailable(f"{where} answers more than {MAX_BYTES} bytes")
            return json.loads(body)
        except HTTPError as error:
            error.close()
            raise IssuerUnavailable(f"{where} answers {error.code}") from None
        except OSError as error:
            cause = " ".join(str(error).split()) or "no answer"
            raise IssuerUnavailable(f"{where}: {type(error).__name__}: {cause}") from None
        except (HTTPException, ValueError, RecursionError) as error:  # their text may hold some of the answer
            raise IssuerUnavailable(f"{where}: {type(error).__name__}") from None


def usable(document: Any) -> dict[str | None, dict[str, Any]]:
    """The keys of a key set that may verify tokens, by id.

    Raises:
        IssuerUnavailable: there are none.
    """
    listed = document.get("keys") if isinstance(document, dict) else None
    keys: dict[str | None, dict[str, Any]] = {}
    for key in listed[:MAX_KEYS] if isinstance(listed, list) else ():
        if not isinstance(key, dict) or key.get("kty") not in KEY_TYPES or key.get("use", "sig") != "sig":
            continue
        key_id = key.get("kid")
        if key_id is None or isinstance(key_id, str):
            keys[key_id] = key
    if not keys:
        raise IssuerUnavailable("the key set holds no key that verifies")
    return keys
