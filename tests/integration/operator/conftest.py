"""A real API server for the run, and operators in this process on the engine's stores."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from goqueue.settings import OperatorSettings
from goqueue_operator.access import from_kubeconfig
from goqueue_operator.operator import Operator
from tests.integration.engine import WITHIN, Engine, eventually
from tests.integration.operator.apiserver import ApiServer, api_server

FOLDER = Path(__file__).parent
BUILD_SECONDS = 2400
"""Longest time in seconds in which Kubernetes, or Helm, is built on a machine that other tests use as well."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the first test the time to build Kubernetes from source, and the first that runs Helm that of Helm."""
    mine = [item for item in items if FOLDER in item.path.parents]
    with_helm = [item for item in mine if item.path.name == "test_release.py"]
    for item in (*mine[:1], *with_helm[:1]):
        item.add_marker(pytest.mark.timeout(BUILD_SECONDS), append=False)


@pytest.fixture(scope="session")
def kubernetes() -> Iterator[ApiServer]:
    """A Kubernetes API with our kinds."""
    with api_server() as server:
        server.install_definitions()
        yield server


@dataclass
class World:
    """A namespace, and the means to run operators for it."""

    kubernetes: ApiServer
    engine: Engine
    namespace: str

    @contextlib.asynccontextmanager
    async def operator(self, *, kubeconfig: Path | None = None, **more: Any) -> AsyncIterator[Operator]:
        """An operator, stopped with the block; by default it may do all."""
        settings = OperatorSettings(
            **{"namespace": self.namespace, "status_seconds": 0.1, "compare_seconds": 1, "image": "goqueue:1", **more}
        )
        access = from_kubeconfig(kubeconfig or self.kubernetes.kubeconfig)
        engine = self.engine
        operator = Operator(access, engine.service, settings, engine.settings, engine.registry)
        operator.lease.holder += f"-{uuid.uuid4()}"  # several in one process must not pass for one holder
        running = asyncio.create_task(operator.run())
        try:
            yield operator
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def forbidden(self, operation: str, resource: str, name: str) -> AsyncIterator[None]:
        """A policy that lets nobody do that to the object of that name, while the block lasts."""
        policy = f"{self.namespace}-{operation.lower()}"
        rule = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": [operation], "resources": [resource]}
        matched = {"kubernetes.io/metadata.name": self.namespace}
        about = f"(object == null ? oldObject : object).metadata.name != '{name}'"
        spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": about}]}
        bound = {
            "policyName": policy,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": matched}},
        }
        for kind, content in (("ValidatingAdmissionPolicy", spec), ("ValidatingAdmissionPolicyBinding", bound)):
            body = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": policy}}
            await self.kubectl("create", "-f", "-", stdin={**body, "spec": content})
        try:
            yield
        finally:
            await self.kubectl("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", policy)

    @contextlib.asynccontextmanager
    async def held(self, kind: str, name: str) -> AsyncIterator[None]:
        """Delete a resource that a finalizer of others keeps while the block lasts."""
        finalizers = '{"metadata":{"finalizers":%s}}'
        await self.kubectl("patch", kind, name, "--type=merge", "-p", finalizers % '["test.example/hold"]')
        await self.kubectl("delete", kind, name, "--wait=false")
        yield
        await self.kubectl("patch", kind, name, "--type=merge", "-p", finalizers % "[]")

    async def kubectl(self, *arguments: str, stdin: Any = None) -> str:
        """Run kubectl in the namespace."""
        return await asyncio.to_thread(self.kubernetes, "-n", self.namespace, *arguments, stdin=stdin)

    async def make(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        """Make one of our resources."""
        body = {"apiVersion": "goqueue.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        await self.kubectl("create", "-f", "-", stdin=body)

    async def job(self, name: str, **spec: Any) -> None:
        """Make a GoQueueJob."""
        await self.make("GoQueueJob", name, {"queue": "default", "type": "echo", "payload": {}, **spec})

    async def get(self, kind: str, name: str) -> dict[str, Any]:
        """A resource; or a list of those that a selector names."""
        found: dict[str, Any] = await asyncio.to_thread(self.kubernetes.get, "-n", self.namespace, kind, name)
        return found

    async def state(self, name: str, *states: str, seconds: float = WITHIN) -> dict[str, Any]:
        """Wait until a GoQueueJob has one of these states; its status."""

        async def there() -> dict[str, Any] | None:
            status: dict[str, Any] = (await self.get("gqj", name)).get("status") or {}
            return status if status.get("state") in states else None

        status: dict[str, Any] = await eventually(there, seconds)
        return status


async def compared(operator: Operator) -> None:
    """Wait until an operator has compared all resources with all rows, from the beginning to the end."""

    async def leads() -> bool:
        return operator.comparison is not None

    await eventually(leads)
    comparison = operator.comparison
    assert comparison is not None
    before = comparison.finished  # one may be under way

    async def done() -> bool:
        return comparison.finished >= before + 2

    await eventually(done)


@contextlib.asynccontextmanager
async def a_world(kubernetes: ApiServer, engine: Engine) -> AsyncIterator[World]:
    """An empty namespace, and a job type `echo` that returns its payload."""

    async def echo(payload: Any, _: Any) -> Any:
        return payload.model_dump()

    engine.handle("echo", echo)
    async with another_namespace(kubernetes, engine) as world:
        yield world


@contextlib.asynccontextmanager
async def another_namespace(kubernetes: ApiServer, engine: Engine) -> AsyncIterator[World]:
    """An empty namespace for an engine that has its job types."""
    namespace = f"t-{uuid.uuid4().hex[:8]}"
    await asyncio.to_thread(kubernetes, "create", "namespace", namespace)
    yield World(kubernetes, engine, namespace)
    await asyncio.to_thread(kubernetes, "delete", "namespace", namespace, "--wait=false")


@pytest.fixture
async def world(kubernetes: ApiServer, engine: Engine) -> AsyncIterator[World]:
    """A world on the stores of the run."""
    async with a_world(kubernetes, engine) as world:
        yield world
