"""OpenTelemetry's SDK as the environment asks for it. Imported only where spans are made.

Endpoint, headers, certificates, batch sizes, sampler and resource attributes are read by the SDK itself, by the names
that OpenTelemetry gives them.
"""

import importlib.util
import logging
import socket
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

import structlog
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter, SpanExportResult

from goqueue.errors import SettingsError
from goqueue.settings import TracingSettings

TOLD_EVERY: Final = 60.0
"""Seconds between two lines about spans that could not be exported."""

_PACKAGES: Final = {
    "grpc": "opentelemetry.exporter.otlp.proto.grpc",
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http",
}

log = structlog.get_logger(__name__)


class Watched(SpanExporter):
    """Another exporter, whose failures are told once a minute: the libraries' own lines come by the second."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lost = 0
        self._told_at = -TOLD_EVERY

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export a batch."""
        done = self._exporter.export(spans)
        if done is not SpanExportResult.SUCCESS:
            self._lost += len(spans)
            if time.monotonic() - self._told_at >= TOLD_EVERY:
                log.warning("spans not exported", spans=self._lost)
                self._lost, self._told_at = 0, time.monotonic()
        return done

    def shutdown(self) -> None:
        """Export no more."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export what waits."""
        return self._exporter.force_flush(timeout_millis)


def check(chosen: TracingSettings) -> None:
    """See that the exporter is there.

    Raises:
        SettingsError: it is not installed.
    """
    if chosen.traces_exporter == "console":
        return
    try:
        found = importlib.util.find_spec(_PACKAGES[chosen.exporter_otlp_protocol])
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise SettingsError("OTEL_EXPORTER_OTLP_ENDPOINT needs the extra `otlp`: pip install 'goqueue[otlp]'")


def provider(process: str, chosen: TracingSettings) -> TracerProvider:
    """A provider for this process, which is also that of all handlers' own instrumentation.

    Raises:
        SettingsError: the exporter is not installed, or refuses what the environment says.
    """
    check(chosen)
    if not logging.getLogger().isEnabledFor(logging.DEBUG):
        # `Watched` says it in one line. With GOQUEUE_LOG_LEVEL=debug the libraries tell why.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    made = TracerProvider(resource=_resource(process), shutdown_on_exit=False)
    try:
        made.add_span_processor(BatchSpanProcessor(Watched(_exporter(chosen))))
    except (ValueError, OSError) as error:
        raise SettingsError(f"OTEL_EXPORTER_OTLP_*: the exporter refuses them: {type(error).__name__}") from None
    trace.set_tracer_provider(made)
    return made


def _resource(process: str) -> Resource:
    """Who we are; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say more, or otherwise."""
    ours = Resource(
        {
            "service.name": f"goqueue-{process}",
            "service.version": version("goqueue"),
            "service.instance.id": f"{socket.gethostname()}-{time.time_ns():x}",
        }
    )
    named = Resource.create()
    if str(named.attributes["service.name"]).startswith("unknown_service"):
        named = Resource({key: value for key, value in named.attributes.items() if key != "service.name"})
    return ours.merge(named)


def _exporter(chosen: TracingSettings) -> SpanExporter:
    if chosen.traces_exporter == "console":
        return ConsoleSpanExporter()
    if chosen.exporter_otlp_protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

    return HttpExporter()
