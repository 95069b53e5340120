"""API keys: how one looks, and what opens it. Pure.

A key reads `gq_<prefix>_<secret>`. The prefix finds it and may be shown; the secret is 256 random bits, shown once, and
stored as its SHA-256 only. A slow hash protects passwords, because people choose them from few; among 2**256 nobody
guesses, however fast the hash is, while every request would pay for a slow one.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from goqueue.access import Reach, Scope

_FORM: Final = re.compile(r"gq_([0-9a-z]{12})_([A-Za-z0-9_-]{43})")
_NO_DIGEST: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class Token:
    """A key as its owner holds it."""

    prefix: str
    secret: str

    @classmethod
    def new(cls, prefix: str | None = None) -> Self:
        """A key that nobody had before; with a prefix: another secret for that one."""
        return cls(prefix or secrets.token_hex(6), secrets.token_urlsafe(32))

    @classmethod
    def read(cls, text: str) -> Self | None:
        """The key that the text is, or None."""
        match = _FORM.fullmatch(text)
        return cls(match[1], match[2]) if match else None

    @property
    def text(self) -> str:
        """What a client sends."""
        return f"gq_{self.prefix}_{self.secret}"

    @property
    def digest(self) -> bytes:
        """What is stored of the secret."""
        return hashlib.sha256(self.secret.encode()).digest()

    def __repr__(self) -> str:
        return f"Token({self.prefix!r})"  # the secret shall stand in no log


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A row of `api_keys`. After a rotation the former secret opens it, too, until `former_until`."""

    prefix: str
    name: str
    digest: bytes
    scopes: frozenset[Scope]
    reach: Reach
    former_digest: bytes | None = None
    former_until: datetime | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None

    def opened_by(self, digest: bytes, now: datetime) -> bool:
        """Whether a secret with this digest opens the key now. Does the same work whatever is wrong."""
        current = hmac.compare_digest(self.digest, digest)
        former = hmac.compare_digest(self.former_digest or _NO_DIGEST, digest)
        in_grace = self.former_until is not None and now < self.former_until
        expired = self.expires_at is not None and now >= self.expires_at
        return (current or (former and in_grace)) and self.revoked_at is None and not expired


NO_KEY: Final = ApiKey("", "", _NO_DIGEST, frozenset(), Reach())
"""Stands for the key that a prefix does not have, so that looking for it takes as long. No secret has its digest."""
