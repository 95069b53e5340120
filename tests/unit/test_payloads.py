"""A model given to `enqueue` reaches its handler field by field as given, or is refused with what would not."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    PositiveInt,
    PrivateAttr,
    SecretBytes,
    SecretStr,
    SerializeAsAny,
    StringConstraints,
    computed_field,
    field_serializer,
)

from goqueue.errors import InvalidInput
from goqueue.library import build, build_many
from goqueue.payloads import check_same, is_plain
from goqueue.queues import Queues
from goqueue.registry import JobType, Registry

BERLIN = ZoneInfo("Europe/Berlin")


class Colour(Enum):
    RED = 1


class Inner(BaseModel):
    name: str = "inner"


class Wider(Inner):
    width: int = 7


class Opaque:
    """A value whose class does not say what equal means."""

    def __init__(self, text: str) -> None:
        self.text = text


class Everything(BaseModel):
    """Fields that JSON carries, though it writes many of them otherwise."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    renamed: str = Field("x", alias="fileName")
    money: Decimal = Decimal("1.10")
    ratio: float = 0.1
    at: datetime = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)
    again: datetime = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1)
    naive: datetime = datetime(2026, 1, 31)  # noqa: DTZ001 - given so on purpose
    offset: datetime = datetime(2026, 1, 31, 8, tzinfo=timezone(timedelta(hours=5, minutes=45)))
    span: timedelta = timedelta(days=1, microseconds=3)
    colour: Colour = Colour.RED
    id: UUID = UUID(int=5)
    url: HttpUrl = HttpUrl("https://example.org/ä")
    path: Path = Path("/tmp/x")
    raw: bytes = b"text"
    some: set[int] = {3, 1}
    pair: tuple[int, str] = (1, "a")
    inner: Inner = Inner(name="given")
    many: dict[str, list[Inner]] = {"a": [Inner(), Inner(name="b")]}
    anything: Any = {"a": [1, None, {"b": 2.5}]}

    @computed_field
    def shout(self) -> str:
        return self.renamed.upper()


class Excluded(BaseModel):
    kept: int = 1
    left_out: int = Field(0, exclude=True)


class Aliased(BaseModel):
    size: int = Field(0, validation_alias=AliasChoices("in", "into"), serialization_alias="out")


class Secret(BaseModel):
    password: SecretStr = SecretStr("")
    key: SecretBytes = SecretBytes(b"")


class Private(BaseModel):
    name: str = "x"
    _cache: dict[str, int] = PrivateAttr(default_factory=dict)


class Nested(BaseModel):
    inner: Inner
    loose: SerializeAsAny[Inner] = Inner()


class Loose(BaseModel):
    value: Any = None


class Rounded(BaseModel):
    ratio: float

    @field_serializer("ratio")
    def two_places(self, value: float) -> float:
        return round(value, 2)


def order(given: BaseModel, kind: type[BaseModel] | None = None) -> Any:
    """What the job's payload is, once and in bulk; the model parsed from it equals what was given."""
    registry = Registry([JobType("it", kind or type(given))])
    queues = Queues(registry)
    payload = build("it", given, {}, registry, queues).payload
    assert [one.payload for one in build_many("it", [given, given], {}, registry, queues)] == [payload, payload]
    return payload


def lost(given: BaseModel, kind: type[BaseModel] | None = None) -> dict[str, Any]:
    """The fields for which it is refused, the same once and in bulk."""
    registry = Registry([JobType("it", kind or type(given))])
    queues = Queues(registry)
    with pytest.raises(InvalidInput) as once:
        build("it", given, {}, registry, queues)
    with pytest.raises(InvalidInput) as bulk:
        build_many("it", [given, given], {}, registry, queues)
    assert once.value.message == bulk.value.message == "payload validation failed"
    assert bulk.value.fields == {**once.value.fields, "index": 0}
    return once.value.fields


def test_what_json_carries_reaches_the_handler_as_given() -> None:
    given = Everything(fileName="a.png", more=[1, {"x": None}])
    # As text, since Python says of two times within a repeated hour that they differ if their zones do.
    assert Everything.model_validate(order(given)).model_dump_json() == given.model_dump_json()


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        (Excluded(left_out=2), ["left_out"]),
        (Aliased.model_validate({"in": 5}), ["size"]),
        (Secret(password=SecretStr("swordfish")), ["password"]),
        (Secret(key=SecretBytes(b"swordfish")), ["key"]),
        (Nested(inner=Wider(width=9)), ["inner.width"]),
        (Nested(inner=Inner(), loose=Wider()), ["loose.width"]),
        (Loose(value=datetime(2026, 1, 31, tzinfo=UTC)), ["value"]),
        (Loose(value=Inner()), ["value"]),
        (Loose(value=[{"a": Decimal("1.5")}]), ["value.0.a"]),
        (Rounded(ratio=0.123), ["ratio"]),
        (Everything.model_construct(many={"a": [Wider()]}), ["many.a.0.width"]),
    ],
    ids=lambda value: value.__class__.__name__ if isinstance(value, BaseModel) else "-".join(value),
)
def test_what_would_arrive_otherwise_is_refused_and_named(given: BaseModel, fields: list[str]) -> None:
    found = lost(given)
    assert sorted(found) == fields
    assert "swordfish" not in str(found)


class Narrowed(BaseModel):
    name: Annotated[str, StringConstraints(min_length=1, pattern="^a")] = "a"
    renamed: PositiveInt = Field(1, alias="as", le=5)
    maybe: str | None = None


class Growing(BaseModel):
    count: Annotated[int, AfterValidator(lambda value: value + 1)] = 0


class Initial(BaseModel):
    name: str = ""

    def model_post_init(self, context: Any) -> None:
        self.name += "!"


class Maybe(BaseModel):
    ratio: float | None = None


def test_only_models_of_text_and_numbers_without_ways_of_their_own_are_not_compared() -> None:
    assert is_plain(Narrowed)
    others = (Everything, Excluded, Aliased, Secret, Private, Nested, Loose, Rounded, Growing, Initial, Maybe)
    assert not any(map(is_plain, others))
    assert list(lost(Growing(count=1))) == ["count"]
    assert list(lost(Initial(name="a"))) == ["name"]
    assert list(lost(Maybe(ratio=float("nan")))) == ["ratio"]


def test_a_private_attribute_that_would_be_lost_is_refused() -> None:
    given = Private()
    assert order(given) == {"name": "x"}
    given._cache["a"] = 1
    assert list(lost(given)) == ["_cache"]


def test_a_subclass_is_accepted_where_all_its_fields_arrive() -> None:
    class Renamed(Inner):
        pass

    assert order(Renamed(name="a"), Inner) == {"name": "a"}
    assert list(lost(Wider(), Inner)) == ["width"]


def test_a_model_of_another_class_is_taken_for_its_json() -> None:
    assert order(Wider(name="a"), Everything)["name"] == "a"


def test_values_that_cannot_say_whether_they_are_equal_are_left_to_the_model() -> None:
    class Holder(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        value: Opaque

        @field_serializer("value")
        def text_of(self, value: Opaque) -> str:
            return value.text

    check_same(Holder(value=Opaque("a")), Holder(value=Opaque("a")))


def test_a_model_that_cannot_be_json_is_refused_without_its_values() -> None:
    class Raw(BaseModel):
        raw: bytes

    registry = Registry([JobType("it", Raw)])
    with pytest.raises(InvalidInput, match=r"^invalid payload format: payload no JSON: PydanticSerializationError$"):
        build("it", Raw(raw=b"swordfish\xff"), {}, registry, Queues(registry))
