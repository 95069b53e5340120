"""Sealed values: what opens them, and that nothing else does."""

import sys
from pathlib import Path

import orjson
import pytest
from pydantic import BaseModel, ConfigDict, SecretStr

from goqueue import encryption
from goqueue.encryption import MARK, KeyMissing, Keyring, Unreadable, new_key, payload_of
from goqueue.errors import InvalidInput, SettingsError
from goqueue.registry import JobType
from goqueue.settings import EncryptionSettings, load

PLAIN = b'{"card": "4242 4242 4242 4242"}'


def sealed_by(keyring: Keyring, place: str = "job:1:payload") -> dict[str, str]:
    value: dict[str, str] = orjson.loads(keyring.seal(place, PLAIN))
    return value


def test_a_sealed_value_is_opened_by_any_process_with_the_key_and_shows_nothing_of_its_content() -> None:
    key = new_key()
    sealed = Keyring([key]).seal("job:1:payload", PLAIN)
    assert b"4242" not in sealed
    assert b"card" not in sealed
    assert key.encode() not in sealed
    assert Keyring([key]).open("job:1:payload", orjson.loads(sealed)) == PLAIN


def test_the_same_content_is_sealed_differently_each_time() -> None:
    keyring = Keyring([new_key()])
    one, two = sealed_by(keyring), sealed_by(keyring)
    assert one["key"] == two["key"]
    assert one["nonce"] != two["nonce"]
    assert one["data"] != two["data"]


@pytest.mark.parametrize(
    "place", ["job:2:payload", "job:1:result", "job:1:error", "schedule:1:payload", "job:11:payload"]
)
def test_a_value_cannot_be_opened_in_another_place(place: str) -> None:
    keyring = Keyring([new_key()])
    with pytest.raises(Unreadable):
        keyring.open(place, sealed_by(keyring))


@pytest.mark.parametrize("part", ["key", "nonce", "data"])
def test_a_value_of_which_one_bit_was_changed_cannot_be_opened(part: str) -> None:
    keyring = Keyring([new_key()])
    value = sealed_by(keyring)
    raw = bytearray(encryption._bytes(value[part]))
    raw[-1] ^= 1
    with pytest.raises(Unreadable):
        keyring.open("job:1:payload", {**value, part: encryption._text(bytes(raw))})


@pytest.mark.parametrize(
    "broken", [{"key": None}, {"nonce": "x"}, {"data": "é"}, {"data": ""}, {"key": []}, {"nonce": ""}, {"key": ""}]
)
def test_a_value_of_another_shape_is_unreadable_and_raises_nothing_else(broken: dict[str, object]) -> None:
    keyring = Keyring([new_key()])
    value: dict[str, object] = {**sealed_by(keyring), **broken}
    with pytest.raises(Unreadable):
        keyring.open("job:1:payload", value)
    with pytest.raises(Unreadable):
        keyring.open("job:1:payload", {name: part for name, part in value.items() if name not in broken})


def test_another_key_is_told_by_its_id_and_an_older_one_still_opens() -> None:
    old, new = new_key(), new_key()
    value = sealed_by(Keyring([old]))
    both = Keyring([new, old])
    assert both.open("job:1:payload", value) == PLAIN
    assert orjson.loads(both.rewrap("job:1:payload", value))["kid"] == both.first == Keyring([new]).first
    with pytest.raises(KeyMissing, match=value["kid"]):
        Keyring([new]).open("job:1:payload", value)


def test_a_data_key_is_given_up_after_its_time_and_its_seals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption, "DATA_KEY_SEALS", 3)
    keyring = Keyring([new_key()])
    keys = [sealed_by(keyring)["key"] for _ in range(7)]
    assert [keys.count(key) for key in dict.fromkeys(keys)] == [3, 3, 1]
    monkeypatch.setattr(encryption, "DATA_KEY_SECONDS", -1.0)
    keyring = Keyring([new_key()])
    assert len({sealed_by(keyring)["key"] for _ in range(3)}) == 3


def test_opened_data_keys_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption, "REMEMBERED", 2)
    key = new_key()
    reader = Keyring([key])
    for _ in range(5):
        assert reader.open("job:1:payload", sealed_by(Keyring([key]))) == PLAIN
        assert len(reader._opened) <= 2


def test_readers_see_the_reason_where_a_value_cannot_be_opened() -> None:
    writer, reader = Keyring([new_key()]), Keyring([new_key()])
    seen = encryption.shown(reader, "job:1:payload", sealed_by(writer))
    assert seen == {MARK: "enc1", "kid": writer.first, "error": seen["error"]}
    assert writer.first in seen["error"]
    text = encryption.sealed_text(writer, "job:1:error", "boom")
    assert encryption.shown_text(writer, "job:1:error", text) == "boom"
    assert writer.first in str(encryption.shown_text(reader, "job:1:error", text))
    assert encryption.shown_text(writer, "job:1:error", encryption.TEXT_START) == "[an encrypted value is damaged]"


def test_what_is_not_sealed_passes_unchanged() -> None:
    keyring = Keyring([new_key()])
    values: list[object] = [{"a": 1}, [], "text", None, 5, {MARK: "other"}]
    for value in values:
        assert encryption.shown(keyring, "job:1:result", value) == value
    assert encryption.shown_text(keyring, "job:1:error", "boom") == "boom"
    assert encryption.payload(None, payload_of(1), {"a": 1}) == {"a": 1}


def test_without_any_key_a_sealed_payload_is_told_from_a_plain_one() -> None:
    with pytest.raises(KeyMissing, match="GOQUEUE_ENCRYPTION_KEYS is not set"):
        encryption.payload(None, payload_of(1), sealed_by(Keyring([new_key()])))


class Anything(BaseModel):
    model_config = ConfigDict(extra="allow")


def test_nobody_can_send_a_payload_that_looks_sealed() -> None:
    kind = JobType("any", Anything)
    forged = sealed_by(Keyring([new_key()]))
    with pytest.raises(InvalidInput) as caught:
        kind.validate(forged)
    assert caught.value.fields == {MARK: "this name is reserved"}
    assert not kind.accepts_all([{}, forged])
    assert kind.accepts_all([{}, {"inner": forged}])


@pytest.mark.parametrize("key", ["short", "", "é" * 44, new_key()[:-4], new_key() + "AAAA"])
def test_a_wrong_key_stops_the_process_and_is_not_shown(key: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Keyring([key])
    assert not key or key not in str(caught.value)


def test_keys_come_from_the_environment_or_from_a_file_with_one_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = new_key(), new_key()
    ids = Keyring([one, two]).ids
    monkeypatch.setenv("GOQUEUE_ENCRYPTION_KEYS", f"{one}, {two}")
    settings = load(EncryptionSettings)
    assert one not in repr(settings)
    loaded = encryption.load(settings)
    assert loaded is not None
    assert loaded.ids == ids
    file = tmp_path / "keys"
    file.write_text(f"{one}\n{two}\n")
    monkeypatch.setenv("GOQUEUE_ENCRYPTION_KEYS_FILE", str(file))
    with pytest.raises(SettingsError, match="cannot both be set"):
        load(EncryptionSettings)
    monkeypatch.delenv("GOQUEUE_ENCRYPTION_KEYS")
    loaded = encryption.load(load(EncryptionSettings))
    assert loaded is not None
    assert loaded.ids == ids


def test_without_keys_there_is_no_keyring_but_an_empty_file_is_a_mistake(tmp_path: Path) -> None:
    assert encryption.load(EncryptionSettings(keys=[])) is None
    file = tmp_path / "keys"
    with pytest.raises(SettingsError, match="KEYS_FILE: cannot be read"):
        encryption.load(EncryptionSettings(keys_file=file))
    file.write_text("\n")
    with pytest.raises(SettingsError, match="no key"):
        encryption.load(EncryptionSettings(keys_file=file))
    assert encryption.load(EncryptionSettings(keys=[SecretStr(new_key())])) is not None


def test_keys_without_the_package_that_encrypts_end_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(SettingsError, match=r"needs the extra `encryption`: pip install 'goqueue\[encryption\]'$"):
        Keyring([new_key()])
