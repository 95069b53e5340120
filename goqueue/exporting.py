"""OpenTelemetry's SDK as the environment asks for it. Imported only where spans are made.

Endpoint, headers, certificates, batch sizes, sampler and resource attributes are read by the SDK itself, by the names
that OpenTelemetry gives them.
"""

import importlib.util
import logging
import socket
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Final

import structlog
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter

from goqueue.attemptspans import AttemptSpans, Examples, Provider, fits
from goqueue.errors import SettingsError
from goqueue.settings import TracingSettings
from goqueue.spanencoding import Batch, teach
from goqueue.spanqueue import Item, SpanQueue
from goqueue.spans import Spans

_PACKAGES: Final = {
    "grpc": "opentelemetry.exporter.otlp.proto.grpc",
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http",
}

log = structlog.get_logger(__name__)


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


def spans(process: str, chosen: TracingSettings, close_seconds: float) -> tuple[Spans, Callable[[], None]]:
    """What makes the spans of this process, and what ends it within `close_seconds`. Its provider is also that of all
    handlers' own instrumentation.

    Raises:
        SettingsError: the exporter is not installed, or refuses what the environment says.
    """
    check(chosen)
    if not logging.getLogger().isEnabledFor(logging.DEBUG):
        # `SpanQueue` says it in one line. With GOQUEUE_LOG_LEVEL=debug the libraries tell why.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    if chosen.timeout_in_milliseconds:
        log.warning("OTEL_EXPORTER_OTLP_TIMEOUT is taken for milliseconds", seconds=chosen.timeout)
    made = Provider(_resource(process))
    try:
        exporter = _exporter(chosen)
    except (ValueError, OSError) as error:
        raise SettingsError(f"OTEL_EXPORTER_OTLP_*: the exporter refuses them: {type(error).__name__}") from None
    module = sys.modules[type(exporter).__module__]
    encode = getattr(module, "encode_spans", None)
    if encode is None or not fits(SpanLimits()):
        queue = SpanQueue(exporter, chosen, close_seconds)
        found = Spans(made)
    else:
        teach(module)
        examples = Examples(made.resource, encode)
        envelope = examples.envelope()
        grpc = chosen.exporter_otlp_protocol == "grpc"

        def pack(batch: Sequence[Item]) -> Batch:
            return Batch(batch, envelope, as_message=grpc)

        queue = SpanQueue(exporter, chosen, close_seconds, pack)
        found = AttemptSpans(made, queue, chosen, examples)
    made.add_span_processor(queue)
    trace.set_tracer_provider(made)
    return found, made.shutdown


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

        return GrpcExporter(timeout=chosen.timeout)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

    return HttpExporter(timeout=chosen.timeout)
