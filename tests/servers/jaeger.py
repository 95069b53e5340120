"""Jaeger, all in one process with its store in memory: takes spans by OTLP, and shows traces.

Its module cannot be built by `go install` (it replaces a dependency), hence a module of ours with its versions. The
build takes six minutes of one core, once per machine; the page of Jaeger's own web interface is not part of it.
"""

import contextlib
import json
import platform
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goqueue_cli.embedded import free_port
from goqueue_cli.keeper import LOOPBACK
from tests.cluster.cache import hash_of
from tests.servers.gotools import cache_dir, go_command, making, run
from tests.servers.process import Process

MODULE = Path(__file__).parent / "go" / "jaeger"
PACKAGE = "github.com/jaegertracing/jaeger/cmd/all-in-one"


def build_jaeger() -> Path:
    """The program, built now if this machine has none of these versions.

    Raises:
        RuntimeError: the build failed; the message has Go's output.
    """
    folder = _folder()
    with making(folder) as partial:
        if partial is not None:
            build = ["build", "-C", str(MODULE), "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w"]
            run(["nice", "-n", "5", go_command(), *build, "-o", str(partial / "jaeger"), PACKAGE], CGO_ENABLED="0")
    return folder / "jaeger"


def jaeger_is_built() -> bool:
    """Whether `build_jaeger` has nothing to do."""
    return _folder().exists()


def _folder() -> Path:
    return cache_dir() / "go" / f"jaeger-{hash_of(MODULE / 'go.mod', MODULE / 'go.sum', platform.machine())}"


@dataclass(frozen=True)
class Span:
    """One span as Jaeger shows it. Times in seconds since the epoch."""

    id: str
    name: str
    service: str
    kind: str
    parent: str | None
    links: tuple[str, ...]
    """Spans of the same or another trace that it names without being their child."""
    tags: dict[str, Any]
    events: tuple[dict[str, Any], ...]
    start: float
    seconds: float


@dataclass(frozen=True)
class Jaeger:
    """A running Jaeger."""

    query: int
    grpc: int
    http: int

    def environment(self, protocol: str = "http/protobuf") -> dict[str, str]:
        """What makes a process send its spans here, soon."""
        port = self.grpc if protocol == "grpc" else self.http
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{LOOPBACK}:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    def trace(self, trace_id: str) -> list[Span]:
        """The spans of a trace that have arrived, in the order in which they began."""
        url = f"http://{LOOPBACK}:{self.query}/api/traces/{trace_id}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                (trace,) = json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return []
            raise
        return spans_of(trace)

    def until(self, trace_id: str, condition: Callable[[list[Span]], Any], seconds: float = 20.0) -> list[Span]:
        """The trace as soon as the condition holds.

        Raises:
            AssertionError: it does not within that many seconds; the message shows what there is.
        """
        deadline = time.monotonic() + seconds
        while True:
            spans = self.trace(trace_id)
            if spans and condition(spans):
                return spans
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds} s; trace {trace_id} has {shown(spans)}")
            time.sleep(0.1)  # Jaeger tells nobody that a span has arrived

    def search(self, service: str, name: str, seconds: float = 30.0) -> list[Span]:
        """All spans of that name, as soon as there is one.

        Raises:
            AssertionError: there is none within that many seconds.
        """
        query = urllib.parse.urlencode({"service": service, "operation": name})
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{self.query}/api/traces?{query}", timeout=10) as answer:
                traces = json.load(answer)["data"]
            if traces:
                return [span for trace in traces for span in self.trace(trace["traceID"]) if span.name == name]
            time.sleep(0.1)  # Jaeger tells nobody that a span has arrived
        raise AssertionError(f"{service} has sent no span {name!r}")

    def text(self, trace_id: str) -> str:
        """All that Jaeger knows of a trace, as it sends it."""
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self.query}/api/traces/{trace_id}", timeout=10) as answer:
            return str(answer.read().decode())

    def all_text(self, service: str) -> str:
        """The newest traces of a service, as Jaeger sends them."""
        query = urllib.parse.urlencode({"service": service, "limit": 1000})
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self.query}/api/traces?{query}", timeout=10) as answer:
            return str(answer.read().decode())


def shown(spans: list[Span]) -> list[str]:
    """Spans for a person: `kind name (service)`."""
    return [f"{span.kind} {span.name} ({span.service})" for span in spans]


def spans_of(trace: dict[str, Any]) -> list[Span]:
    """The spans of one trace of Jaeger's HTTP API, in the order in which they began."""
    services = {name: process["serviceName"] for name, process in trace["processes"].items()}
    return sorted((_span(span, services) for span in trace["spans"]), key=lambda span: span.start)


def _span(span: dict[str, Any], services: dict[str, str]) -> Span:
    tags = {tag["key"]: tag["value"] for tag in span["tags"]}
    references = span.get("references") or []
    parents = [one["spanID"] for one in references if one["refType"] == "CHILD_OF"]
    return Span(
        span["spanID"],
        span["operationName"],
        services[span["processID"]],
        tags.pop("span.kind", "internal"),
        parents[0] if parents else None,
        tuple(one["spanID"] for one in references if one["refType"] == "FOLLOWS_FROM"),
        tags,
        tuple({field["key"]: field["value"] for field in event["fields"]} for event in span["logs"]),
        span["startTime"] / 1e6,
        span["duration"] / 1e6,
    )


@contextlib.contextmanager
def run_jaeger(folder: Path) -> Iterator[Jaeger]:
    """Run Jaeger on free ports until the block ends.

    Args:
        folder: Gets its log.
    """
    server = Jaeger(free_port(), free_port(), free_port())
    own = {
        "collector.otlp.grpc.host-port": server.grpc,
        "collector.otlp.http.host-port": server.http,
        "query.http-server.host-port": server.query,
        "query.grpc-server.host-port": free_port(),
        "admin.http.host-port": free_port(),
        "collector.grpc-server.host-port": free_port(),
        "collector.http-server.host-port": free_port(),
    }
    command = [str(build_jaeger()), *(f"--{name}={LOOPBACK}:{port}" for name, port in own.items())]
    with Process(command, log=folder / "jaeger.log", environment={"SPAN_STORAGE_TYPE": "memory"}) as process:
        for port in (server.query, server.grpc, server.http):
            process.wait_for_port(port)
        yield server
        process.kill()  # nothing of it is worth an orderly end
