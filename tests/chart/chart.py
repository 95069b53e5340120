"""Where the chart stands, and how it is rendered."""

import base64
import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
CHART = CHECKOUT / "charts" / "goqueue"
HERE = Path(__file__).resolve().parent

Manifest = dict[str, Any]
Values = Mapping[str, Any]

HELMS = ("helm3", "helm4")


class HelmFailed(Exception):
    """Helm refused; the message is what it said."""


@cache
def helm(version: str = "helm4") -> Path:
    """The program, from the cache of this machine's test tools; built now if it is not there."""
    from tests.cluster import programs

    return {"helm3": programs.helm3, "helm4": programs.helm4}[version]()


def run_helm(*arguments: str, version: str = "helm4", values: Values | None = None) -> str:
    """Run Helm without any cluster and without the user's own configuration.

    Raises:
        HelmFailed: it ended with an error.
    """
    command = [str(helm(version)), *arguments]
    if values is not None:
        command += ["--values", "-"]
    # No kubeconfig: a template must not depend on the cluster that somebody happens to be connected to.
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECONFIG": "/nonexistent"}
    done = subprocess.run(
        command,
        input=None if values is None else json.dumps(values),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    if done.returncode:
        raise HelmFailed(done.stderr.strip() or done.stdout.strip())
    return done.stdout


def template(
    values: Values | None = None,
    *,
    version: str = "helm4",
    release: str = "goqueue",
    namespace: str = "jobs",
    options: Iterable[str] = (),
) -> str:
    """What `helm template` prints."""
    arguments = ["template", release, str(CHART), "--namespace", namespace, "--kube-version", "1.34.0", *options]
    return run_helm(*arguments, version=version, values=values or {})


def manifests(text: str) -> list[Manifest]:
    """The documents of rendered text, the empty ones left out."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [document for document in yaml.load_all(text, loader) if document]


def render(values: Values | None = None, **options: Any) -> list[Manifest]:
    """The chart's documents for some values."""
    return manifests(template(values, **options))


def find(documents: Iterable[Manifest], kind: str, name: str) -> Manifest:
    """The one document of a kind and name."""
    (found,) = (one for one in documents if one["kind"] == kind and one["metadata"]["name"] == name)
    return found


def decoded(data: Mapping[str, str]) -> dict[str, str]:
    """The data of a Secret as text."""
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def pod_specs(documents: Iterable[Manifest]) -> dict[str, Manifest]:
    """Kind/name → pod template (metadata and spec) of everything that makes pods."""
    found: dict[str, Manifest] = {}
    for one in documents:
        name = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] in ("Deployment", "StatefulSet", "Job"):
            found[name] = one["spec"]["template"]
        elif one["kind"] == "Pod":
            found[name] = one
    return found
