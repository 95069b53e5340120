"""The payloads of the job types, as a ValidatingAdmissionPolicy: a wrong one is refused at apply, in plain words.

A policy and not rules in the definition: those see only fields that the definition declares, with one type each, and a
payload belongs to its job type (`body` is text in one and an object in another). Made from the types' own models, so
users' types are checked as well where GOQUEUE_JOBS names them. What a model has beyond the words translated here is
still checked by the operator, which then says so in the job's conditions.

That a job's payload does not change is checked here as well: `kubectl apply` of a new object leaves out the nulls of
all objects in it, while server-side apply, create and replace keep them. One file must be the same job whichever of
them comes first, so a null counts as a field that is not there.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from goqueue.builtin import TYPE_OF_QUEUE
from goqueue.registry import JobType
from goqueue_operator.crds.schema import GROUP, VERSION, Schema

NAME: Final = f"payloads.{GROUP}"

_TYPES: Final = {
    "string": ("{0} == string", "text"),
    "boolean": ("{0} == bool", "true or false"),
    "integer": ("{0} == int", "a whole number"),
    "number": ("({0} == int || {0} == double)", "a number"),
    "object": ("{0} == map", "an object"),
    "array": ("{0} == list", "a list"),
}
_FORMATS: Final = {
    "email": (r"^[^@\s]+@[^@\s]+$", "an e-mail address"),
    "uri": (r"^[A-Za-z][A-Za-z0-9+.-]*:.", "a URL"),
}


_PATTERNS: Final = {
    r"^[^\x00-\x1f\x7f\x85\u2028\u2029]*$": "be one line without control characters",
    r"^[\x20-\x7e\t]*$": "be one line of ASCII",
    r"^[A-Za-z]{3}$": "have three letters",
    r"^[A-Za-z0-9_]{1,255}$": "have letters, digits and _ only",
    r"^[Hh][Tt][Tt][Pp][Ss]?://": "begin with http:// or https://",
}
"""What patterns mean, for a person."""


def literal(text: str) -> str:
    """A text as CEL writes it."""
    return json.dumps(text)


def _re2(pattern: str) -> str:
    """A pattern of Python's in RE2's words: `\\u2028` is `\\x{2028}` there."""
    return re.sub(r"\\u([0-9a-fA-F]{4})", r"\\x{\1}", pattern)


def _one_of(values: Iterable[Any]) -> str:
    return "[" + ", ".join(json.dumps(value) for value in values) + "]"


def _only(schema: Schema) -> tuple[Schema, bool]:
    """The schema without `or null`, and whether null is allowed."""
    options = [part for part in schema.get("anyOf", []) if part.get("type") != "null"]
    if len(options) == 1 and len(schema["anyOf"]) == 2:
        return options[0], True
    return schema, False


def _text_rules(it: str, schema: Schema) -> Iterator[tuple[str, str]]:
    if "minLength" in schema:
        words = (
            "must not be empty" if schema["minLength"] == 1 else f"must have at least {schema['minLength']} characters"
        )
        yield f"size({it}) >= {schema['minLength']}", words
    if "maxLength" in schema:
        yield f"size({it}) <= {schema['maxLength']}", f"must have at most {schema['maxLength']} characters"
    if "pattern" in schema:
        words = _PATTERNS.get(schema["pattern"], f"match {schema['pattern']}")
        yield f"{it}.matches({literal(_re2(schema['pattern']))})", f"must {words}"
    if schema.get("format") in _FORMATS:
        pattern, words = _FORMATS[schema["format"]]
        yield f"{it}.matches({literal(pattern)})", f"must be {words}"


def _number_rules(it: str, schema: Schema) -> Iterator[tuple[str, str]]:
    for word, sign, words in (
        ("minimum", ">=", "at least"),
        ("exclusiveMinimum", ">", "more than"),
        ("maximum", "<=", "at most"),
        ("exclusiveMaximum", "<", "less than"),
    ):
        if word in schema:
            yield f"double({it}) {sign} double({schema[word]})", f"must be {words} {schema[word]:g}"


def _map_rules(it: str, schema: Schema) -> Iterator[tuple[str, str]]:
    pattern = schema.get("propertyNames", {}).get("pattern")
    if pattern:
        yield f"{it}.all(key, key.matches({literal(_re2(pattern))}))", f"may only have names like {pattern}"
    values = schema.get("additionalProperties")
    if isinstance(values, dict) and values.get("type") in _TYPES:
        check, words = _TYPES[values["type"]]
        yield f"{it}.all(key, {check.format(f'type({it}[key])')})", f"may only hold {words}"


def field_rules(name: str, schema: Schema) -> Iterator[tuple[str, str]]:
    """(expression, message) pairs about one field that is there; the expressions hold where the field is well."""
    schema, nullable = _only(schema)
    it = f"variables.payload[{literal(name)}]"
    kind = schema.get("type")
    if "enum" in schema or "const" in schema:
        allowed = schema.get("enum", [schema.get("const")])
        yield f"{it} in {_one_of(allowed)}", f"must be one of {', '.join(map(str, allowed))}"
        return
    if kind not in _TYPES:
        return
    check, words = _TYPES[kind]
    is_kind = check.format(f"type({it})")
    yield is_kind + (f" || {it} == null" if nullable else ""), f"must be {words}"
    rules = {"string": _text_rules, "integer": _number_rules, "number": _number_rules, "object": _map_rules}.get(kind)
    if rules is not None:
        for expression, message in rules(it, schema):
            yield f"!({is_kind}) || {expression}", message


def type_rules(kind: JobType) -> Iterator[Schema]:
    """The validations for payloads of one job type."""
    schema = kind.payload.model_json_schema()
    other = f"variables.type != {literal(kind.name)}"
    fields = schema.get("properties", {})
    for name in schema.get("required", []):
        yield {
            "expression": f"{other} || {literal(name)} in variables.payload",
            "message": f"{kind.name}: payload.{name} is required",
        }
    if schema.get("additionalProperties") is False:
        yield {
            "expression": f"{other} || variables.payload.all(key, key in {_one_of(fields)})",
            "message": f"{kind.name}: payload may only have the fields {', '.join(fields)}",
        }
    for name, field in fields.items():
        for expression, message in field_rules(name, field):
            yield {
                "expression": f"{other} || !({literal(name)} in variables.payload) || {expression}",
                "message": f"{kind.name}: payload.{name} {message}",
            }


SAME_DEPTH: Final = 8
"""Levels at which a null in an object counts as no field; from there on it counts."""

SAME_ITEMS: Final = 32
"""Longest list in whose objects nulls do not count."""


def same(one: str, other: str, depth: int = SAME_DEPTH) -> str:
    """CEL: two values are equal but for nulls in objects. It has no recursion and counts no indices of a list, so both
    are written out."""
    if depth == 0:
        return f"{one} == {other}"
    key = f"k{depth}"
    inner = same(f"{one}[{key}]", f"{other}[{key}]", depth - 1)
    indices = ", ".join(str(index) for index in range(SAME_ITEMS))
    objects = f"type({one}) == map && {other}.all({key}, {key} in {one} || {other}[{key}] == null)"
    lists = f"type({one}) == list && size({one}) == size({other}) && size({one}) <= {SAME_ITEMS}"
    return (
        f"{one} == {other} || (type({one}) == type({other}) && ({objects} || {lists})"
        f" && (type({one}) == map ? dyn({one}) : dyn([{indices}])).all({key},"
        f" type({one}) == list && {key} >= size({one}) ? true"
        f" : type({one}) == list || {key} in {other} ? ({inner}) : {one}[{key}] == null))"
    )


def _former(schedule: str) -> str:
    """CEL: the payload as it was; as it is where it is new or may change, as that of a schedule."""
    fixed = f"oldObject != null && !({schedule}) && has(dyn(oldObject).spec.payload)"
    return f"{fixed} ? dyn(oldObject).spec.payload : variables.payload"


def policy(types: Iterable[JobType]) -> Schema:
    """The policy for payloads of these job types."""
    schedule = "request.resource.resource == 'goqueueschedules'"
    defaults = "{" + ", ".join(f"{literal(queue)}: {literal(name)}" for queue, name in TYPE_OF_QUEUE.items()) + "}"
    by_queue = f"(variables.order.queue in {defaults} ? {defaults}[variables.order.queue] : '')"
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": NAME},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [GROUP],
                        "apiVersions": [VERSION],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": ["goqueuejobs", "goqueueschedules"],
                    }
                ]
            },
            "matchConditions": [
                {
                    "name": "payload-is-given",
                    "expression": f"{schedule} ? has(object.spec.jobTemplate.spec.payload) : has(object.spec.payload)",
                },
                {
                    "name": "spec-is-new",  # a job that is there already must stay deletable and suspendable
                    "expression": "oldObject == null || object.spec != oldObject.spec",
                },
            ],
            "variables": [
                {"name": "order", "expression": f"{schedule} ? dyn(object.spec.jobTemplate.spec) : dyn(object.spec)"},
                {"name": "payload", "expression": "dyn(variables.order.payload)"},
                {"name": "former", "expression": _former(schedule)},
                {"name": "type", "expression": f"has(variables.order.type) ? variables.order.type : {by_queue}"},
            ],
            "validations": [
                {
                    "expression": same("variables.former", "variables.payload"),
                    "message": "payload cannot be changed; delete the job and make a new one",
                },
                *(rule for kind in types for rule in type_rules(kind)),
            ],
        },
    }


def binding() -> Schema:
    """What puts the policy into force."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": NAME},
        "spec": {"policyName": NAME, "validationActions": ["Deny"]},
    }
