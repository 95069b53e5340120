"""Objects that a definition in the cluster lets through, made from the definition itself."""

import re
from typing import Any, Final

from hypothesis import strategies as st

from goqueue_operator.crds.schema import Schema
from tests.fuzz.inputs import TEXTS, VALUES, nested

TIMES: Final = st.sampled_from(
    [
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00+23:59",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "2026-06-30T23:59:60Z",
        "2026-01-01T00:00:00",
        "2026-01-01T00:00:00.123456789Z",
        "1969-12-31T23:59:59Z",
        "2150-01-01T00:00:00Z",
    ]
)
"""What Kubernetes' format `date-time` may let through."""

_KEYS: Final = st.sampled_from(
    [
        "name",
        "value",
        "valueFrom",
        "mountPath",
        "containerPort",
        "hostPort",
        "capabilities",
        "add",
        "drop",
        "seccompProfile",
        "type",
        "privileged",
        "runAsUser",
        "httpGet",
        "host",
        "port",
        "preStop",
        "projected",
        "sources",
        "secret",
        "configMap",
        "emptyDir",
        "hostPath",
        "requests",
        "limits",
    ]
)
_FREE: Final[st.SearchStrategy[Any]] = st.deferred(
    lambda: st.dictionaries(
        _KEYS | TEXTS, VALUES | _FREE | st.lists(_FREE, max_size=2) | st.sampled_from(["worker", "x", 0]), max_size=3
    )
)


def _text(schema: Schema) -> st.SearchStrategy[str]:
    if schema.get("format") == "date-time":
        return TIMES
    if "pattern" in schema:
        texts: st.SearchStrategy[str] = st.from_regex(re.compile(schema["pattern"]))
        return texts.filter(lambda text: len(text) <= schema.get("maxLength", 1000))
    given = st.sampled_from(["worker", "x", "nan", "GOQUEUE_WORKER_GRACE_SECONDS", "email", "send_email", "*"]) | TEXTS
    return given.filter(lambda text: schema.get("minLength", 0) <= len(text) <= schema.get("maxLength", 1000))


def fitting(schema: Schema) -> st.SearchStrategy[Any]:
    """What the schema allows; where it leaves something free, anything."""
    kind = schema.get("type")
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if kind == "string":
        return _text(schema)
    if kind == "boolean":
        return st.booleans()
    if kind in ("integer", "number"):
        return st.integers(schema.get("minimum", -(2**31)), schema.get("maximum", 2**62))
    if kind == "array":
        items = fitting(schema["items"])
        return st.lists(items, min_size=schema.get("minItems", 0), max_size=min(3, schema.get("maxItems", 3)))
    if kind == "object" and "properties" in schema:
        return _object(schema["properties"], schema.get("required", []))
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return st.dictionaries(TEXTS, fitting(schema["additionalProperties"]), max_size=3)
    if kind == "object":
        return _FREE
    return VALUES | _FREE | st.builds(nested, st.sampled_from([64, 65, 300]))


def _object(properties: dict[str, Schema], required: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    fields = {name: fitting(inner) for name, inner in properties.items()}
    needed = st.fixed_dictionaries({name: fields[name] for name in required})
    more = [name for name in fields if name not in required]
    if not more:
        return needed
    some = st.lists(st.sampled_from(more).flatmap(lambda name: st.tuples(st.just(name), fields[name])), max_size=4)
    return st.builds(lambda first, second: first | dict(second), needed, some)


def part(definition: Schema, name: str) -> st.SearchStrategy[Any]:
    """`spec` or `status` of a definition's first version."""
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][name]
    made = fitting(schema)
    return st.deferred(lambda: made)
