"""Bearer tokens (JWT) of an OpenID Connect issuer as a way to prove who one is.

A token is good if one of the issuer's own keys signed it by an algorithm of the allow-list, and its issuer, audience
and times are right. Of the token's header only `alg` and `kid` are looked at: keys that it brings along or points to
(`jwk`, `jku`, `x5u`) are nobody's. What was wrong with a token shows nowhere but in the log, at debug.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import jwt
import structlog

from goqueue.access import TENANT, Scope
from goqueue.settings import OidcSettings
from goqueue_api.access import Caller
from goqueue_api.jwks import KeySet

REMEMBERED: Final = 60.0
"""Seconds for which a good token is not verified again; never beyond its own end."""

MOST: Final = 10_000
"""Good tokens that are remembered."""

MAX_LENGTH: Final = 16_384
"""Characters of a token."""

MAX_SUBJECT: Final = 255

log = structlog.get_logger(__name__)


class Unfit(Exception):
    """The token is genuine and says what GoQueue cannot use."""


class Tokens:
    """Callers by the issuer's tokens."""

    def __init__(self, settings: OidcSettings, keys: KeySet, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock
        self._known: dict[bytes, tuple[Caller, float]] = {}

    async def caller(self, credential: str) -> Caller | None:
        """Whose token this is, or None.

        Raises:
            StoreUnavailable: the issuer's keys are not known: it has not answered since this process began.
        """
        if credential.count(".") != 2 or len(credential) > MAX_LENGTH:
            return None
        digest = hashlib.sha256(credential.encode()).digest()  # the token itself need not lie in memory
        now = self._clock()
        known = self._known.get(digest)
        if known is not None and now < known[1]:
            return known[0]
        try:
            claims = await self._verify(credential)
            caller = caller_of(claims, self._settings)
        except (jwt.PyJWTError, Unfit) as error:
            # The library's messages may hold pieces of the token.
            log.debug("token refused", error=str(error) if isinstance(error, Unfit) else type(error).__name__)
            return None
        if len(self._known) >= MOST:
            self._known.clear()
        until = min(now + REMEMBERED, float(claims["exp"]) + self._settings.leeway_seconds)
        self._known[digest] = caller, until
        return caller

    async def _verify(self, token: str) -> dict[str, Any]:
        header = jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        if algorithm not in self._settings.algorithms:
            raise jwt.InvalidAlgorithmError("not in the allow-list")
        key = await self._keys.find(header.get("kid"), algorithm)
        if key is None:
            raise jwt.InvalidKeyError("no such key")
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=self._settings.audience,
            issuer=self._settings.issuer,
            leeway=self._settings.leeway_seconds,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
        return claims


def caller_of(claims: Mapping[str, Any], settings: OidcSettings) -> Caller:
    """The caller that a token's claims describe.

    Raises:
        Unfit: its subject is nothing to write down, or a claim that a setting names is missing or of no use.
    """
    subject = claims["sub"]
    if not 1 <= len(subject) <= MAX_SUBJECT or not subject.isprintable():
        raise Unfit("the subject is empty, too long or holds control characters")
    named = _names(claims, settings.scopes_claim) or ()
    return Caller(
        f"oidc:{subject}",
        _tenant(claims, settings.tenant_claim),
        frozenset(scope for scope in Scope if settings.scope_prefix + scope.value in named),
        _restriction(claims, settings.queues_claim),
        _restriction(claims, settings.types_claim),
    )


def _tenant(claims: Mapping[str, Any], claim: str) -> str | None:
    if not claim:
        return None
    tenant = _claim(claims, claim)
    if not isinstance(tenant, str) or not TENANT.fullmatch(tenant):
        raise Unfit(f"{claim} names no tenant")
    return tenant


def _restriction(claims: Mapping[str, Any], claim: str) -> frozenset[str] | None:
    if not claim:
        return None
    found = _names(claims, claim)
    if found is None:
        raise Unfit(f"{claim} is missing")
    return frozenset(found)


def _names(claims: Mapping[str, Any], claim: str) -> list[str] | None:
    """A list of names, or names separated by spaces (OAuth's `scope`); None where there is no such claim."""
    value = _claim(claims, claim)
    if isinstance(value, str):
        return value.split()
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    return None


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, or by its path: `realm_access.roles`."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
