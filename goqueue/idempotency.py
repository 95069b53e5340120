"""The `Idempotency-Key` header of a request: one job for all requests that one caller sends with it.

After draft-ietf-httpapi-idempotency-key-header: a key belongs to its caller, and the same key with another request is
an error. Two requests are the same if they ask for the same job: spaces, the order of fields, and fields that say what
holds anyway make no difference.

What is stored tells nothing about a payload. The digest that finds a row and the fingerprint of the request are both
hashes that include the key itself, which is stored nowhere; where payloads are encrypted, the fingerprint is, too.
Independent of `unique_key`, which is for the time in which a job is open.
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC
from typing import Final

import orjson

from goqueue.encryption import KeyMissing, Keyring, Unreadable, is_sealed_text, sealed_text
from goqueue.job import NewJob

KEEP: Final = 86_400.0
"""Seconds for which a key is remembered after the end of its job, at least."""


@dataclass(frozen=True, slots=True)
class RequestKey:
    """The key of one request: `digest` finds it, `fingerprint` (hexadecimal) tells the request from others."""

    digest: bytes
    fingerprint: str

    @property
    def place(self) -> str:
        """Where its fingerprint is stored, for encryption."""
        return f"idempotency key:{self.digest.hex()}"


def request_key(value: str, caller: str, order: NewJob) -> RequestKey:
    """The key that `caller` sent with an order. Callers of different tenants never meet."""
    owner = orjson.dumps([order.tenant, caller, value])
    asked = [
        order.queue,
        order.type,
        order.payload,
        order.max_retries,
        order.priority,
        None if order.available_at is None else order.available_at.astimezone(UTC),
        order.timeout,
        order.unique_key,
    ]
    fingerprint = hmac.new(owner, orjson.dumps(asked, option=orjson.OPT_SORT_KEYS), hashlib.sha256)
    return RequestKey(hashlib.sha256(b"goqueue idempotency key" + owner).digest(), fingerprint.hexdigest())


def stored(key: RequestKey, keyring: Keyring | None) -> str:
    """The fingerprint as it is stored."""
    sealed = None if keyring is None else sealed_text(keyring, key.place, key.fingerprint)
    return sealed or key.fingerprint


def is_same(key: RequestKey, found: str, keyring: Keyring | None) -> bool:
    """Whether the fingerprint that is stored is this request's.

    True also where it cannot be read, as its encryption key was given up since: a second job would be the worse error.
    """
    if not is_sealed_text(found):
        return hmac.compare_digest(found, key.fingerprint)
    if keyring is None:
        return True
    try:
        return hmac.compare_digest(keyring.open(key.place, orjson.loads(found)).decode(), key.fingerprint)
    except (KeyMissing, Unreadable, ValueError):
        return True
