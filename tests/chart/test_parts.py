"""A setting replaces the pods of those parts that read it, and of no other."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from goqueue.settings import GROUPS
from tests.chart import settings
from tests.chart.chart import CHECKOUT, Manifest, find, render
from tests.chart.test_values import at, environment, merged

EVERY = {"api", "scheduler", "operator", "worker"}
CHANGES: list[tuple[str, Any, set[str]]] = [
    ("settings.api.docs", False, {"api"}),
    ("settings.api.rateLimit", "10/second", {"api"}),
    ("settings.oidc.leewaySeconds", 60, {"api"}),
    ("settings.scheduler.keepFailed", 60, {"operator", "scheduler"}),
    ("settings.scheduler.leaderSeconds", 20, {"scheduler"}),
    ("settings.operator.scaleSeconds", 5, {"operator"}),
    ("settings.worker.logLines", 5, {"worker"}),
    ("settings.worker.graceSeconds", 60, {"operator", "worker"}),
    ("settings.email.host", "smtp.example.com", {"worker"}),
    ("settings.engine.leaseSeconds", 60, EVERY),
    ("settings.database.maxRetries", 3, EVERY),
    ("settings.tracing.serviceName", "jobs", EVERY),
    ("settings.postgres.password", "another", EVERY),
    ("valkey.password", "another", EVERY),
]


def templates(documents: list[Manifest]) -> dict[str, Manifest]:
    """Part → the pod template of its Deployment, or what the operator makes one from."""
    found = {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]["template"]
        for one in documents
        if one["kind"] == "Deployment"
    }
    if "worker" not in found:
        (found["worker"],) = json.loads(find(documents, "ConfigMap", "goqueue-pools")["data"]["pools.json"])
    return found


@pytest.mark.parametrize("operator", [True, False])
@pytest.mark.parametrize(("path", "value", "parts"), CHANGES, ids=[path for path, _, _ in CHANGES])
def test_a_setting_replaces_the_pods_of_its_readers(path: str, value: Any, parts: set[str], operator: bool) -> None:
    base = {"operator": {"enabled": operator}}
    before, after = templates(render(base)), templates(render(merged(base, at(path, value))))
    assert {part for part in before if before[part] != after[part]} == parts & before.keys()


def test_a_first_secret_of_the_handlers_replaces_workers_and_the_operator_that_names_it() -> None:
    before, after = templates(render()), templates(render(at("settings.email.password", "secret")))
    assert {part for part in before if before[part] != after[part]} == {"operator", "worker"}
    other = templates(render(at("settings.email.password", "another")))
    assert {part for part in before if after[part] != other[part]} == {"worker"}


def test_the_configmap_of_workers_changes_with_their_settings_only() -> None:
    def workers(values: dict[str, Any]) -> Any:
        return find(render(values), "ConfigMap", "goqueue-worker-settings")["data"]

    before = workers({})
    for path, value, parts in CHANGES:
        if "assword" not in path:
            assert (workers(at(path, value)) != before) is ("worker" in parts), path


def test_pools_of_ones_own_get_the_same_configmap() -> None:
    named = environment(render(), "Deployment/goqueue-operator")["GOQUEUE_OPERATOR_WORKER_ENV_FROM"]
    assert named == "configmap/goqueue-worker-settings,secret/goqueue-process-secrets"


def loaded(path: Path) -> Iterator[tuple[str, str]]:
    """(function or "", group) of each `load(…Settings)` in a file."""
    groups = {group.__name__: settings.group_name(group) for group in GROUPS}
    tree = ast.parse(path.read_text())
    within = {
        id(inner): outer.name
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.func).split(".")[-1] == "load":
            name = ast.unparse(node.args[0])
            if name in groups:
                yield within.get(id(node), ""), groups[name]


def test_no_part_reads_a_group_that_does_not_replace_its_pods() -> None:
    parts = {
        "api": "api",
        "operator": "operator",
        "scheduler": "scheduler",
        "worker": "worker",
        "goqueue": "every part",
    }
    files = [(part, path) for folder, part in parts.items() for path in (CHECKOUT / folder).rglob("*.py")]
    read = {(part, group) for part, path in files for _, group in loaded(path)}
    # The commands: each process begins in a function of its own name.
    read |= {(function, group) for function, group in loaded(CHECKOUT / "cli" / "goqueue_cli" / "processes.py")}
    assert {("api", "oidc"), ("worker", "email"), ("operator", "operator"), ("every part", "tracing")} <= read
    for part, group in read:
        readers = settings.READ_BY.get(group, ())
        known = {"dev", "scheduler", "worker"} if part in ("every part", "operator") else {"dev"}
        assert not readers or part in readers or group in known, f"{part} reads {group}"


@pytest.mark.parametrize(("group", "variable"), [("worker", "worker"), ("scheduler", "kept")])
def test_what_the_operator_reads_of_the_groups_of_others_replaces_it(group: str, variable: str) -> None:
    tree = ast.parse((CHECKOUT / "operator" / "goqueue_operator" / "operator.py").read_text())
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == variable and node.attr != "model_fields_set"
    }
    named = {
        setting.key
        for setting in settings.settings()
        if setting.group == group and "operator" in settings.READ_BY.get(setting.path, ())
    }
    assert {re.sub("_([a-z])", lambda found: found[1].upper(), name) for name in read} == named
