"""The Jaeger in the cluster, asked through the Kubernetes API, and an installation that sends its spans there."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from tests.e2e.system import NAMESPACE, System, pools, until
from tests.servers.jaeger import Span, shown, spans_of

PROXY = f"/api/v1/namespaces/{NAMESPACE}/services/jaeger:http/proxy/api"
ENDPOINT = f"http://jaeger.{NAMESPACE}.svc:4318"


@dataclass(frozen=True)
class Traces:
    """What it has been sent."""

    system: System

    def services(self) -> set[str]:
        """Names of all who have sent a span."""
        return set(self._get("services") or [])

    def trace(self, id: str) -> list[Span]:
        """The spans of a trace that have arrived, in the order in which they began."""
        found = self._get("traces", traceID=id)
        return spans_of(found[0]) if found else []

    def with_spans(self, id: str, names: set[str]) -> list[Span]:
        """A trace, as soon as it has spans of all these names; processes export theirs every 5 seconds.

        Raises:
            AssertionError: it has not within 30 seconds; the message shows what there is.
        """
        found: list[Span] = []

        def there() -> bool:
            found[:] = self.trace(id)
            return names <= {span.name for span in found}

        try:
            until(f"trace {id} to have {', '.join(sorted(names))}", there, 30, 0.5)
        except AssertionError as error:
            raise AssertionError(f"{error}; it has {shown(found)}") from None
        return found

    def _get(self, path: str, **parameters: str) -> Any:
        return json.loads(self.system.kubectl("get", "--raw", f"{PROXY}/{path}?{urlencode(parameters)}"))["data"]


@contextmanager
def traced(system: System) -> Iterator[Traces]:
    """The release is upgraded to send spans, and at the end to send none, as the other tests have it."""
    system.rolled_out("deployment/jaeger")
    plain = system.installation.values
    settings = {**plain["settings"], "tracing": {"exporterOtlpEndpoint": ENDPOINT}}
    try:
        replace(system.installation, values={**plain, "settings": settings}).install()
        _no_workers(system)
        yield Traces(system)
    finally:
        system.installation.install()
        _no_workers(system)


def _no_workers(system: System) -> None:
    """Wait until no pod is left that began with other settings."""
    for pool in pools():
        system.pool_has(pool, 0, timeout=90)
