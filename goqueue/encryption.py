"""Encryption of what jobs hold while it is stored: payloads, results, errors, log lines (docs/security.md).

Envelope encryption. Each process draws a data key, seals with it for a while, and stores it beside every value, itself
sealed with a master key of the settings (docs/decisions/0008-encryption.md has the reasons and the figures). A value is
bound to its place, e.g. to the payload of job 17: put anywhere else it cannot be opened.

A sealed value is a small JSON object, so it fits the columns as they are and rows sealed and unsealed may stand side by
side: `{"$goqueue": "enc1", "kid": <master key>, "key": <sealed data key>, "nonce": …, "data": …}`.
"""

import base64
import binascii
import hashlib
import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import orjson

from goqueue.errors import GoQueueError, SettingsError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from goqueue.settings import EncryptionSettings

MARK: Final = "$goqueue"
"""The key by which a sealed value is known; no payload may have it."""

FORM: Final = "enc1"

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12

DATA_KEY_SEALS: Final = 2**24
"""Values that one data key seals. Their nonces are random: that two are the same is less likely than 2**-48."""

DATA_KEY_SECONDS: Final = 3600.0
"""Time for which one data key seals."""

REMEMBERED: Final = 4096
"""Opened data keys that are kept, so that opening a value costs one decryption, not two."""

TEXT_START: Final = f'{{"{MARK}":"{FORM}","kid":"'
"""How every sealed value begins as text; the id of its master key follows. Statements look for it."""


class KeyMissing(GoQueueError):
    """A value is sealed with a key that this process does not have."""


class Unreadable(GoQueueError):
    """A value was not sealed by its key for its place: it was damaged, or moved there."""


class _DataKey:
    """What seals values for a while, and the bytes that every value sealed with it begins with."""

    def __init__(self, keyring: "Keyring") -> None:
        raw = os.urandom(KEY_BYTES)
        nonce = os.urandom(_NONCE_BYTES)
        wrapped = nonce + keyring.master(keyring.first).encrypt(nonce, raw, _wrapping(keyring.first))
        self.cipher = keyring.cipher(raw)
        self.start = f'{TEXT_START}{keyring.first}","key":"{_text(wrapped)}","nonce":"'.encode()
        self.left = DATA_KEY_SEALS
        self.until = time.monotonic() + DATA_KEY_SECONDS


class Keyring:
    """The master keys of a process, by id. The first seals, all open. Safe for use by several threads."""

    def __init__(self, keys: Iterable[str]) -> None:
        """`keys` as `new_key` makes them.

        Raises:
            SettingsError: there is none, one is no key, or the package that encrypts is not installed.
        """
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise SettingsError(
                "GOQUEUE_ENCRYPTION_KEYS needs the extra `encryption`: pip install 'goqueue[encryption]'"
            ) from None
        self.cipher: type[AESGCM] = AESGCM
        raw = [_key_bytes(key) for key in keys]
        if not raw:
            raise SettingsError("GOQUEUE_ENCRYPTION_KEYS: no key")
        self._masters = {key_id(key): AESGCM(key) for key in raw}
        self.first = key_id(raw[0])
        """Id of the key that seals."""
        self._opened: dict[str, AESGCM] = {}
        self._data_key = _DataKey(self)

    @property
    def ids(self) -> list[str]:
        """The ids of all keys, that of the sealing one first."""
        return list(self._masters)

    def master(self, kid: str) -> "AESGCM":
        """The master key of that id.

        Raises:
            KeyMissing: there is none.
        """
        try:
            return self._masters[kid]
        except KeyError:
            raise KeyMissing(f"encryption key {kid} is not among GOQUEUE_ENCRYPTION_KEYS", {"kid": kid}) from None

    def seal(self, place: str, plain: bytes) -> bytes:
        """The JSON text of a sealed value that only `open` with the same place can read."""
        data_key = self._data_key
        if data_key.left <= 0 or time.monotonic() > data_key.until:
            data_key = self._data_key = _DataKey(self)
        data_key.left -= 1
        nonce = os.urandom(_NONCE_BYTES)
        sealed = data_key.cipher.encrypt(nonce, plain, place.encode())
        return b'%b%b","data":"%b"}' % (
            data_key.start,
            binascii.b2a_base64(nonce, newline=False),
            binascii.b2a_base64(sealed, newline=False),
        )

    def open(self, place: str, sealed: dict[str, Any]) -> bytes:
        """What was sealed for this place.

        Raises:
            KeyMissing: its master key is not here.
            Unreadable: it was not sealed for this place, or is damaged.
        """
        from cryptography.exceptions import InvalidTag

        try:
            data_key = self._opened.get(sealed["key"]) or self._unwrap(sealed["kid"], sealed["key"])
            return data_key.decrypt(_bytes(sealed["nonce"]), _bytes(sealed["data"]), place.encode())
        except (InvalidTag, KeyError, TypeError, ValueError):
            raise Unreadable(
                "an encrypted value is damaged, or was not sealed for its place", {"place": place}
            ) from None

    def rewrap(self, place: str, sealed: dict[str, Any]) -> bytes:
        """The same value, sealed with the first key.

        Raises:
            KeyMissing, Unreadable: as `open`.
        """
        return self.seal(place, self.open(place, sealed))

    def _unwrap(self, kid: str, wrapped: str) -> "AESGCM":
        raw = _bytes(wrapped)
        data_key = self.cipher(self.master(kid).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _wrapping(kid)))
        if len(self._opened) >= REMEMBERED:
            self._opened.clear()
        self._opened[wrapped] = data_key
        return data_key


# --- places ----------------------------------------------------------------------------------------------------------


def payload_of(job_id: int) -> str:
    """The place of a job's payload."""
    return f"job:{job_id}:payload"


def result_of(job_id: int) -> str:
    """The place of a job's result."""
    return f"job:{job_id}:result"


def error_of(job_id: int) -> str:
    """The place of an error of a job, the last one or that of an attempt."""
    return f"job:{job_id}:error"


def log_of(job_id: int) -> str:
    """The place of a line that a job's handler logged."""
    return f"job:{job_id}:log"


def template_of(schedule: str) -> str:
    """The place of the payload in a schedule's template."""
    return f"schedule:{schedule}:payload"


# --- values as they are stored ---------------------------------------------------------------------------------------


def is_sealed(value: Any) -> bool:
    """Whether a JSON value is a sealed one."""
    return type(value) is dict and value.get(MARK) == FORM


def is_sealed_text(text: str | None) -> bool:
    """Whether a text, an error or a log line, is a sealed value."""
    return text is not None and text.startswith(TEXT_START)


def payload(keyring: Keyring | None, place: str, value: Any) -> Any:
    """A payload for the worker: opened where it is sealed.

    Raises:
        KeyMissing: its key is not here; another process, or this one once it has the key, can read it.
        Unreadable: nobody can.
    """
    if not is_sealed(value):
        return value
    if keyring is None:
        raise KeyMissing(f"encryption key {value.get('kid')} is needed: GOQUEUE_ENCRYPTION_KEYS is not set")
    return orjson.loads(keyring.open(place, value))


def shown(keyring: Keyring, place: str, value: Any) -> Any:
    """A JSON value for a reader: opened, or `{"$goqueue": "enc1", "kid": …, "error": …}` where it cannot be."""
    if not is_sealed(value):
        return value
    try:
        return orjson.loads(keyring.open(place, value))
    except (KeyMissing, Unreadable) as error:
        return {MARK: FORM, "kid": value.get("kid"), "error": error.message}


def shown_text(keyring: Keyring, place: str, text: str | None) -> str | None:
    """The same for a text; where it cannot be opened, the text is the reason in brackets."""
    if text is None or not is_sealed_text(text):
        return text
    try:
        return keyring.open(place, orjson.loads(text)).decode()
    except (KeyMissing, Unreadable, ValueError) as error:
        return f"[{getattr(error, 'message', 'an encrypted value is damaged')}]"


def sealed_text(keyring: Keyring, place: str, text: str | None) -> str | None:
    """A text as it is stored."""
    return None if text is None else keyring.seal(place, text.encode()).decode()


# --- keys ------------------------------------------------------------------------------------------------------------


def new_key() -> str:
    """A new master key: 256 random bits in base64."""
    return _text(os.urandom(KEY_BYTES))


def load(settings: "EncryptionSettings") -> Keyring | None:
    """The keyring that the settings describe, or None where they name no key: nothing is encrypted.

    Raises:
        SettingsError: the file cannot be read, or as `Keyring`.
    """
    keys = [key.get_secret_value() for key in settings.keys]
    if settings.keys_file is not None:
        try:
            keys = settings.keys_file.read_text(encoding="ascii").split()
        except (OSError, ValueError) as error:
            raise SettingsError(f"GOQUEUE_ENCRYPTION_KEYS_FILE: cannot be read: {type(error).__name__}") from None
    return Keyring(keys) if keys or settings.keys_file else None


def key_id(key: bytes) -> str:
    """What a master key is called; says nothing about it."""
    return hashlib.sha256(b"goqueue key id" + key).hexdigest()[:12]


def _key_bytes(key: str) -> bytes:
    try:
        raw = base64.b64decode(key, altchars=b"-_" if "-" in key or "_" in key else None, validate=True)
    except ValueError:
        raw = b""
    if len(raw) != KEY_BYTES:
        raise SettingsError(f"GOQUEUE_ENCRYPTION_KEYS: each must be {KEY_BYTES} bytes in base64")
    return raw


def _wrapping(kid: str) -> bytes:
    return f"data key:{kid}".encode()


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
