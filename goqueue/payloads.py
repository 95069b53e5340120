"""What a Python caller gives as a payload, as the JSON that the worker will see; and whether the two are the same."""

import functools
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError

from goqueue.errors import InvalidInput
from goqueue.jsontext import decode

Payload = BaseModel | dict[str, Any]

LOST: Final = "would not reach the handler as given"

_SECRETS: Final = (SecretStr, SecretBytes)

_PLAIN: Final = (str, int, float, bool, str | None, int | None, bool | None)
"""Not `float | None`: NaN is null in JSON."""

_CONSTRAINTS: Final = ("StringConstraints", "Strict", "PydanticGeneralMetadata")
"""Pydantic's metadata that only narrows a field, as all of `annotated_types` does."""


def as_json(payload: Payload) -> Any:
    """The payload as the worker will see it, so that what is checked here is what runs there.

    Raises:
        InvalidInput: it cannot be JSON.
    """
    return decode(encoded(payload))


def encoded(payload: Payload) -> bytes:
    """The payload as JSON text.

    Raises:
        InvalidInput: it cannot be JSON.
    """
    try:
        if isinstance(payload, BaseModel):
            return payload.model_dump_json(by_alias=True, round_trip=True, warnings=False).encode()
        return orjson.dumps(payload)
    except orjson.JSONEncodeError as error:
        raise InvalidInput("invalid payload format", {"payload": str(error)}) from None
    except (PydanticSerializationError, UnicodeEncodeError) as error:
        # Its words may quote the payload.
        raise InvalidInput("invalid payload format", {"payload": f"no JSON: {type(error).__name__}"}) from None


@functools.cache
def is_plain(model: type[BaseModel]) -> bool:
    """Whether every instance of exactly this class reaches its handler as given, so that nobody has to compare: text,
    numbers and truth values, and nothing that reads or writes them in a way of its own."""
    decorators = model.__pydantic_decorators__
    own_ways = (
        decorators.field_serializers,
        decorators.model_serializers,
        decorators.field_validators,
        decorators.validators,
        decorators.root_validators,
        decorators.model_validators,
        model.__private_attributes__,
        model.model_config.get("json_encoders"),
        model.model_config.get("extra") == "allow",
        model.model_post_init is not BaseModel.model_post_init,
    )
    return not any(own_ways) and all(_is_plain(field) for field in model.model_fields.values())


def _is_plain(field: FieldInfo) -> bool:
    narrowed = all(
        type(part).__module__ == "annotated_types" or type(part).__name__ in _CONSTRAINTS for part in field.metadata
    )
    one_name = field.validation_alias == field.serialization_alias
    left_out = field.exclude or getattr(field, "exclude_if", None)  # since pydantic 2.12
    return field.annotation in _PLAIN and narrowed and one_name and not left_out


def check_same(given: BaseModel, arrives: BaseModel) -> None:
    """See that a model reaches its handler field by field as it was given to `enqueue`.

    JSON does not carry everything that a model can hold: fields with `exclude`, secrets, aliases that differ for
    reading and writing, fields of a subclass, private attributes.

    Raises:
        InvalidInput: `payload validation failed`, with the fields that would arrive otherwise.
    """
    if given == arrives:
        return
    lost: dict[str, str] = {}
    _compare(given, arrives, "", lost)
    if lost:
        raise InvalidInput("payload validation failed", lost)


def _compare(given: Any, arrives: Any, place: str, lost: dict[str, str]) -> None:
    """Add the places at which the two differ to `lost`."""
    if isinstance(given, _SECRETS):
        if given != arrives:
            lost[place] = f"{LOST}: JSON shows no secret; use str, and encryption where it is to be hidden"
    elif isinstance(given, BaseModel):
        _compare_models(given, arrives, place, lost)
    elif isinstance(given, Mapping) and isinstance(arrives, Mapping) and given.keys() == arrives.keys():
        for key, value in given.items():
            _compare(value, arrives[key], _within(place, key), lost)
    elif isinstance(given, list | tuple) and isinstance(arrives, list | tuple) and len(given) == len(arrives):
        for index, (one, other) in enumerate(zip(given, arrives, strict=True)):
            _compare(one, other, _within(place, index), lost)
    elif not _same(given, arrives):
        lost[place or "body"] = LOST


def _compare_models(given: BaseModel, arrives: Any, place: str, lost: dict[str, str]) -> None:
    if not isinstance(arrives, BaseModel):
        lost[place or "body"] = f"{LOST}: it is a {type(given).__name__}"
        return
    parts = (
        (given.__dict__, arrives.__dict__),
        (given.__pydantic_extra__ or {}, arrives.__pydantic_extra__ or {}),
        (given.__pydantic_private__ or {}, arrives.__pydantic_private__ or {}),
    )
    for ours, theirs in parts:
        for name in ours.keys() | theirs.keys():
            if name not in ours or name not in theirs:
                lost[_within(place, name)] = LOST
            else:
                _compare(ours[name], theirs[name], _within(place, name), lost)


def _same(given: Any, arrives: Any) -> bool:
    """Whether two values are equal. Those whose class does not say what equal means are, and so are two NaN."""
    kind = type(given)
    if isinstance(given, datetime) and isinstance(arrives, datetime) and given.tzinfo and arrives.tzinfo:
        # Within a repeated hour, times of different zones are never equal to Python (PEP 495).
        return given.astimezone(UTC) == arrives.astimezone(UTC)
    says_nothing = getattr(kind, "__eq__", None) is object.__eq__
    if kind is type(arrives) and (says_nothing or (given != given and arrives != arrives)):
        return True
    return bool(given == arrives)


def _within(place: str, name: object) -> str:
    return f"{place}.{name}" if place else str(name)
