"""The few words in which the definitions are written: OpenAPI as Kubernetes wants it, and rules in CEL."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

Schema = dict[str, Any]

GROUP: Final = "goqueue.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

QUEUE: Final = r"^[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?$"
"""`goqueue.settings.QUEUE_NAME`; a test holds the two together."""

PRINTABLE: Final = r"^[^\x00-\x1f\x7f]+$"


def obj(
    description: str,
    properties: Mapping[str, Schema],
    *,
    required: Sequence[str] = (),
    rules: Sequence[Schema] = (),
    **more: Any,
) -> Schema:
    """An object with known fields; `rules` are made by `rule`."""
    schema: Schema = {"type": "object", "description": description, "properties": dict(properties)}
    if required:
        schema["required"] = list(required)
    if rules:
        schema["x-kubernetes-validations"] = list(rules)
    return schema | more


def text(description: str, **bounds: Any) -> Schema:
    """A string."""
    return {"type": "string", "description": description} | bounds


def integer(description: str, minimum: int, maximum: int | None = None, **more: Any) -> Schema:
    """A whole number of 32 bits, or of 64 where nothing bounds it above."""
    bounds: Schema = {"minimum": minimum} if maximum is None else {"minimum": minimum, "maximum": maximum}
    return {"type": "integer", "format": "int32" if maximum else "int64", "description": description} | bounds | more


def number_or_percent(description: str, percent: str) -> Schema:
    """A whole number from 0, or a text like 25% that matches `percent`."""
    kinds = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
    return {"description": description, "minimum": 0, "pattern": f"^{percent}$"} | kinds


def boolean(description: str, **more: Any) -> Schema:
    """Yes or no."""
    return {"type": "boolean", "description": description} | more


def time(description: str) -> Schema:
    """A moment, in RFC 3339."""
    return {"type": "string", "format": "date-time", "description": description}


def array(description: str, items: Schema, **more: Any) -> Schema:
    """A list."""
    return {"type": "array", "description": description, "items": items} | more


def free(description: str, **more: Any) -> Schema:
    """An object of which Kubernetes need not know the inside."""
    return {"type": "object", "description": description, "x-kubernetes-preserve-unknown-fields": True} | more


def anything(description: str) -> Schema:
    """Any JSON value."""
    return {"description": description, "x-kubernetes-preserve-unknown-fields": True}


def rule(expression: str, message: str, **more: Any) -> Schema:
    """A rule in CEL, and what the person reads whose object breaks it."""
    return {"rule": expression, "message": message} | more


def conditions() -> Schema:
    """`status.conditions`, as the API conventions have them."""
    one = obj(
        "One aspect of the object's state.",
        {
            "type": text("What it is about.", maxLength=316),
            "status": text("Whether it holds.", enum=["True", "False", "Unknown"]),
            "reason": text(
                "Why, in one word.", pattern="^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", minLength=1, maxLength=1024
            ),
            "message": text("Why, for a person.", maxLength=32768),
            "lastTransitionTime": time("When `status` last changed."),
            "observedGeneration": integer("The generation of the object that this was said of.", 0),
        },
        required=["type", "status", "reason", "message", "lastTransitionTime"],
    )
    keyed = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    return array("What is known of the object, by aspect.", one, **keyed)


def observed_generation() -> Schema:
    """`status.observedGeneration`."""
    return integer("The generation of the object that the status speaks of.", 0)


def column(name: str, kind: str, path: str, description: str, *, wide: bool = False) -> Schema:
    """A column of `kubectl get`; `wide` ones are shown with `-o wide` only."""
    shown: Schema = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return shown | {"priority": 1} if wide else shown


AGE: Final = column("Age", "date", ".metadata.creationTimestamp", "Time since it was made.")


def definition(
    kind: str,
    short: str,
    description: str,
    *,
    spec: Schema,
    status: Schema,
    columns: Sequence[Schema],
    scale: Schema | None = None,
    max_name: int | None = None,
) -> Schema:
    """A CustomResourceDefinition of a namespaced kind with a status. `max_name`: longest name of an object."""
    plural = f"{kind.lower()}s"
    identity = {
        "apiVersion": text("Version of this kind."),
        "kind": text("Name of this kind."),
        "metadata": {"type": "object"},
    }
    if max_name is not None:
        # Kubernetes allows nothing else of metadata here, not even a description.
        identity["metadata"] = {"type": "object", "properties": {"name": {"type": "string", "maxLength": max_name}}}
    subresources: Schema = {"status": {}} | ({"scale": scale} if scale else {})
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short],
                "categories": ["goqueue"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": obj(
                            description, identity | {"spec": spec, "status": status}, required=["spec"]
                        )
                    },
                    "subresources": subresources,
                    "additionalPrinterColumns": list(columns),
                }
            ],
        },
    }
