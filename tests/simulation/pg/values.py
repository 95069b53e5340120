"""Values of SQL: NULL's logic, casts, operators and functions. Pure."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Jsonb:
    """A value of type `jsonb`, apart from arrays and text."""

    value: Any

    def __str__(self) -> str:
        return json.dumps(self.value)


def shown(value: Any) -> Any:
    """A value as psycopg gives it to the program."""
    if isinstance(value, Jsonb):
        return value.value
    return [shown(one) for one in value] if isinstance(value, list) else value


def conjunction(left: Any, right: Any) -> Any:
    """AND with NULL (None) as unknown."""
    if left is False or right is False:
        return False
    return None if left is None or right is None else True


def disjunction(left: Any, right: Any) -> Any:
    """OR with NULL (None) as unknown."""
    if left is True or right is True:
        return True
    return None if left is None or right is None else False


def _array(text: str, element: Callable[[Any], Any]) -> list[Any]:
    inner = text.strip()[1:-1]
    return [element(None if item == "NULL" else item) for item in inner.split(",")] if inner else []


def _to_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _to_jsonb(value: Any) -> Jsonb:
    return value if isinstance(value, Jsonb) else Jsonb(json.loads(value) if isinstance(value, str) else value)


def _to_time(value: Any) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)


def _to_bool(value: Any) -> bool:
    return value in ("t", "true", "on") if isinstance(value, str) else bool(value)


def _to_interval(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    number, _, unit = value.partition(" ")
    return timedelta(**{unit.rstrip("s") + "s": float(number)})


def _to_int(value: Any) -> int:
    return int(value) if isinstance(value, str | bool | int) else math.floor(value + 0.5)


_SCALARS: Final[dict[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(("int", "integer", "int4", "bigint", "int8", "smallint", "int2"), _to_int),
    **dict.fromkeys(("real", "float", "float4", "float8", "double", "numeric"), float),
    **dict.fromkeys(("text", "varchar", "regclass", "name"), _to_text),
    **dict.fromkeys(("boolean", "bool"), _to_bool),
    "timestamptz": _to_time,
    "jsonb": _to_jsonb,
    "json": _to_jsonb,
    "interval": _to_interval,
}


def cast(value: Any, kind: str) -> Any:
    """`value::kind`; a kind that ends in `[]` is an array."""
    if value is None:
        return None
    if kind.endswith("[]"):
        element = kind[:-2]
        if isinstance(value, str):
            return _array(value, lambda item: cast(item, element))
        return [cast(item, element) for item in value]
    return _SCALARS[kind](value)


def _concatenated(left: Any, right: Any) -> Any:
    return [*left, *right] if isinstance(left, list) else _to_text(left) + _to_text(right)


def _divided(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        return int(left / right)
    return left / right


def _member(left: Any, right: Any) -> Any:
    found = left.value.get(right) if isinstance(left.value, dict) else None
    return None if found is None else Jsonb(found)


def _member_text(left: Any, right: Any) -> Any:
    found = left.value.get(right) if isinstance(left.value, dict) else None
    return found if found is None or isinstance(found, str) else json.dumps(found)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _ordered(operator: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Any]:
    """An order; of rows, the first pair that differs decides, and a NULL before it makes the answer unknown."""

    def compare(left: Any, right: Any) -> Any:
        if isinstance(left, tuple):
            for one, other in zip(left, right, strict=True):
                if one is None or other is None:
                    return None
                if one != other:
                    return operator(one, other)
        return operator(left, right)

    return compare


OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "=": lambda left, right: _plain(left) == _plain(right),
    "<>": lambda left, right: _plain(left) != _plain(right),
    "!=": lambda left, right: _plain(left) != _plain(right),
    "<": _ordered(lambda left, right: left < right),
    ">": _ordered(lambda left, right: left > right),
    "<=": _ordered(lambda left, right: left <= right),
    ">=": _ordered(lambda left, right: left >= right),
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": _divided,
    "%": lambda left, right: left % right,
    "||": _concatenated,
    "->": _member,
    "->>": _member_text,
    "&&": lambda left, right: any(one in right for one in left),
    "&": lambda left, right: left & right,
}
"""Each gives NULL where one of its sides is NULL."""


def epoch(value: Any) -> Any:
    """`extract(epoch FROM value)`."""
    if value is None:
        return None
    return value.total_seconds() if isinstance(value, timedelta) else value.timestamp()


def _width_bucket(value: Any, bounds: Sequence[Any]) -> int:
    return sum(1 for bound in bounds if bound <= value)


def strict(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, NULL where any of its arguments is."""
    return lambda *values: None if any(value is None for value in values) else function(*values)


FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "coalesce": lambda *values: next((value for value in values if value is not None), None),
    "greatest": lambda *values: max((value for value in values if value is not None), default=None),
    "least": lambda *values: min((value for value in values if value is not None), default=None),
    "nullif": lambda left, right: None if left == right else left,
    "width_bucket": strict(_width_bucket),
    "date_part": strict(lambda field, value: epoch(value)),
    "extract": strict(lambda field, value: epoch(value)),
    "chr": strict(chr),
    "split_part": strict(lambda text, mark, place: [*text.split(mark), *[""] * place][place - 1]),
    "length": strict(len),
    "abs": strict(abs),
    "floor": strict(math.floor),
    "ceil": strict(math.ceil),
    "power": strict(lambda left, right: float(left) ** right),
    "array_length": strict(lambda array, dimension: len(array) or None),
    "cardinality": strict(len),
    "to_timestamp": strict(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    "array_append": lambda array, value: [*(array or []), value],
}

AGGREGATES: Final[dict[str, Callable[[list[Any]], Any]]] = {
    "count": len,
    "max": lambda values: max(values, default=None),
    "min": lambda values: min(values, default=None),
    "sum": lambda values: sum(values) if values else None,
    "bool_or": lambda values: any(values) if values else None,
    "bool_and": lambda values: all(values) if values else None,
    "array_agg": lambda values: list(values) or None,
}
