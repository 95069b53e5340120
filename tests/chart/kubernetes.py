"""Kubernetes' own schemas, strict: an unknown field or a wrong type in a manifest is an error."""

import json
from functools import cache
from typing import Any

import jsonschema
import yaml

from tests.chart.chart import CHART, Manifest
from tests.cluster import programs, versions

_GATEWAY = "sigs.k8s.io/gateway-api@v1.4.0"
_MONITORING = "github.com/prometheus-operator/prometheus-operator@v0.85.0"


class Schemas:
    """By apiVersion and kind: from the API descriptions in the Kubernetes module, and from custom definitions."""

    def __init__(self) -> None:
        self._schemas: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {}
        kubernetes = programs.module_folder(f"k8s.io/kubernetes@{versions.KUBERNETES}")
        for path in sorted((kubernetes / "api" / "openapi-spec" / "v3").glob("api*_openapi.json")):
            self._add_description(json.loads(path.read_text()))
        gateway = programs.module_folder(_GATEWAY) / "config" / "crd" / "standard"
        monitors = programs.module_folder(_MONITORING) / "example" / "prometheus-operator-crd"
        foreign = [*gateway.glob("*_httproutes.yaml")]
        for kind in ("podmonitors", "servicemonitors", "prometheusrules"):
            foreign += monitors.glob(f"*_{kind}.yaml")
        for path in [*foreign, *(CHART / "files" / "crds").glob("*.yaml")]:
            content = yaml.safe_load(path.read_text())
            if content["kind"] == "CustomResourceDefinition":
                self._add_definition(content)

    def _add_description(self, description: dict[str, Any]) -> None:
        parts = description["components"]["schemas"]
        for part in parts.values():
            _be_strict(part)
        for part in parts.values():
            for kind in part.get("x-kubernetes-group-version-kind", []):
                version = f"{kind['group']}/{kind['version']}".lstrip("/")
                self._schemas.setdefault((version, kind["kind"]), (part, {"components": {"schemas": parts}}))

    def _add_definition(self, definition: Manifest) -> None:
        if definition["kind"] != "CustomResourceDefinition":
            return
        spec = definition["spec"]
        for version in spec["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            _be_strict(schema)
            schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {"type": "object"}}
            self._schemas[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = (schema, {})

    def errors(self, manifest: Manifest) -> list[str]:
        """What is wrong with a manifest, one line each."""
        kind = (manifest["apiVersion"], manifest["kind"])
        if kind not in self._schemas:
            return [f"{kind}: no such kind"]
        schema, beside = self._schemas[kind]
        validator = jsonschema.Draft7Validator({**schema, **beside})
        return [
            f"{manifest['kind']}/{manifest['metadata']['name']} {'.'.join(map(str, error.path))}: {error.message[:300]}"
            for error in validator.iter_errors(manifest)
        ]


def _be_strict(schema: Any) -> None:
    """Refuse fields that a schema does not name; what OpenAPI has and JSON schema has not, is translated."""
    if isinstance(schema, list):
        for part in schema:
            _be_strict(part)
    if not isinstance(schema, dict):
        return
    for part in schema.values():
        _be_strict(part)
    if schema.get("x-kubernetes-int-or-string") is True or schema.get("format") == "int-or-string":
        schema.pop("type", None)
    preserved = schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and "type" in schema and not preserved:
        schema.setdefault("additionalProperties", False)


@cache
def schemas() -> Schemas:
    """Read once: it takes some seconds."""
    return Schemas()
