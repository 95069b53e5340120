"""When spans are made, and what that takes."""

import os
import socket
import subprocess
import sys

import pytest

from goqueue import tracing
from goqueue.errors import SettingsError
from goqueue.settings import TracingSettings, load

MINE = {"exporter_otlp_endpoint": "http://collector:4318"}

PROCESSES = """
import sys
import goqueue.client, goqueue.logs, goqueue_worker.worker, goqueue_scheduler.scheduler
import goqueue_operator.operator, goqueue_api.app, goqueue_cli.processes
from goqueue import tracing
tracing.check()
tracing.begin("worker")
assert tracing.on is None
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk.trace", "opentelemetry.exporter", "grpc"))])
"""

EXPORTS = """
from goqueue import tracing
tracing.begin("worker")
with tracing.doing("work"):
    pass
queue = tracing.on._queue
queue.force_flush()
print(queue.counts()["failed"], "failed")
"""


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, False),
        (MINE, True),
        ({"exporter_otlp_traces_endpoint": "https://collector/v1/traces"}, True),
        ({"traces_exporter": "otlp"}, True),
        ({"traces_exporter": "console"}, True),
        (MINE | {"traces_exporter": "none"}, False),
        (MINE | {"sdk_disabled": True}, False),
    ],
)
def test_spans_are_made_only_where_they_are_asked_for(given: dict[str, object], wanted: bool) -> None:
    assert TracingSettings.model_validate(given).wanted is wanted


def test_a_process_that_traces_nothing_loads_neither_sdk_nor_exporter() -> None:
    done = subprocess.run([sys.executable, "-c", PROCESSES], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_an_exporter_that_is_not_installed_is_told_in_one_line_before_anything_starts(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("grpc", "http"):
        monkeypatch.setitem(sys.modules, f"opentelemetry.exporter.otlp.proto.{module}", None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    with pytest.raises(SettingsError, match=r"needs the extra `otlp`: pip install 'goqueue\[otlp\]'$"):
        tracing.check()
    with pytest.raises(SettingsError, match=r"needs the extra `otlp`: pip install 'goqueue\[otlp\]'$"):
        tracing.begin("worker")
    assert tracing.on is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:secret@collector:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "-1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-7"),
    ],
)
def test_a_wrong_variable_is_named_and_its_value_is_not_shown(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load(TracingSettings)
    assert caught.value.message.startswith(f"{variable}: ")
    assert value not in caught.value.message


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({}, 10),
        ({"exporter_otlp_timeout": 3}, 3),
        ({"exporter_otlp_timeout": 999}, 999),
        ({"exporter_otlp_timeout": 10_000}, 10),  # as the specification counts
        ({"exporter_otlp_timeout": 3, "exporter_otlp_traces_timeout": 1500}, 1.5),
    ],
)
def test_a_time_out_that_is_absurd_in_seconds_is_taken_for_milliseconds(
    given: dict[str, float], seconds: float
) -> None:
    assert TracingSettings.model_validate(given).timeout == seconds


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_an_export_to_a_mute_collector_ends_by_a_time_out_given_in_milliseconds(protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        environment = {
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{mute.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1200",
        }
        done = subprocess.run(
            [sys.executable, "-c", EXPORTS], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
    assert done.returncode == 0, done.stderr
    assert "OTEL_EXPORTER_OTLP_TIMEOUT is taken for milliseconds" in done.stdout
    assert "1 failed" in done.stdout
