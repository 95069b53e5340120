"""Traces, by the standard's own names."""

import re
from typing import Final, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from goqueue.settings.kinds import Group

MILLISECONDS: Final = 1000
"""From here on, a time-out is taken for milliseconds: nobody means to hold an export for a quarter of an hour."""


class TracingSettings(Group):
    """Traces: OpenTelemetry's own variables, which its SDK reads, as all others that it knows."""

    model_config = SettingsConfigDict(env_prefix="OTEL_")

    exporter_otlp_endpoint: str = Field(
        "", description="Where spans go by OTLP, e.g. `http://collector:4318`; empty: nowhere, and nothing is traced."
    )
    exporter_otlp_traces_endpoint: str = Field(
        "", description="The same for spans alone, whole: over HTTP with its path, `/v1/traces`."
    )
    exporter_otlp_protocol: Literal["http/protobuf", "grpc"] = Field(
        "http/protobuf", description="How OTLP is spoken (ports 4318 and 4317 by custom)."
    )
    exporter_otlp_headers: SecretStr = Field(
        SecretStr(""), description="Headers for each export, `name=value`, comma-separated, e.g. a token."
    )
    traces_exporter: Literal["otlp", "console", "none"] | None = Field(
        None, description="`otlp` without an endpoint: to this machine. `none`: nothing is traced."
    )
    traces_sampler: Literal[
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
        "always_on",
        "always_off",
        "traceidratio",
    ] = Field(
        "parentbased_always_on",
        description="Which traces are recorded; `parentbased_`: as whoever began the trace decided, else as it says.",
    )
    traces_sampler_arg: float = Field(1.0, ge=0, le=1, description="Share of traces that a `traceidratio` records.")
    exporter_otlp_timeout: float = Field(
        10.0,
        gt=0,
        description="Longest time of one export, in seconds as Python's SDK has it; from 1000 on, in milliseconds, as "
        "OpenTelemetry's specification and the SDKs of other languages have it.",
    )
    exporter_otlp_traces_timeout: float = Field(
        0.0, ge=0, description="The same for spans alone; 0: as OTEL_EXPORTER_OTLP_TIMEOUT says."
    )
    bsp_max_queue_size: int = Field(
        8192, gt=0, description="Spans that may wait for their export; when it is full, new ones are dropped."
    )
    bsp_max_export_batch_size: int = Field(512, gt=0, description="Spans in one export at most.")
    bsp_schedule_delay: int = Field(
        5000, gt=0, description="Milliseconds after which less than a full batch is exported."
    )
    service_name: str = Field("", description="Name of the service; empty: `goqueue-` and the process.")
    resource_attributes: str = Field("", description="More about it, `name=value`, comma-separated.")
    sdk_disabled: bool = Field(False, description="Nothing is traced, whatever else is set.")

    @field_validator("exporter_otlp_endpoint", "exporter_otlp_traces_endpoint")
    @classmethod
    def _an_address(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^\s/@]+(/[^\s@]*)?", value):
            raise ValueError(
                "must be http:// or https:// and a host, without a user (OTEL_EXPORTER_OTLP_HEADERS is for that)"
            )
        return value

    @property
    def timeout(self) -> float:
        """Longest time of one export, in seconds."""
        return self._timeout / 1000 if self.timeout_in_milliseconds else self._timeout

    @property
    def timeout_in_milliseconds(self) -> bool:
        """Whether the time-out is so long that it was meant in milliseconds."""
        return self._timeout >= MILLISECONDS

    @property
    def _timeout(self) -> float:
        return self.exporter_otlp_traces_timeout or self.exporter_otlp_timeout

    @property
    def wanted(self) -> bool:
        """Whether spans are to be made."""
        if self.sdk_disabled or self.traces_exporter == "none":
            return False
        return bool(self.traces_exporter or self.exporter_otlp_endpoint or self.exporter_otlp_traces_endpoint)
