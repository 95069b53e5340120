"""Structured logs: one line for each thing that matters; JSON in containers, readable in a terminal."""

import logging
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any, Final

import structlog

from goqueue import tracing
from goqueue.registry import JobContext
from goqueue.settings import EngineSettings

JOB: Final[ContextVar[JobContext | None]] = ContextVar("job", default=None)
"""The attempt whose handler runs: its lines name it."""


def configure(settings: EngineSettings, **always: Any) -> None:
    """Set up logging for this process; `always` goes into every line."""
    level = getattr(logging, settings.log_level.upper())
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        correlate,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("psycopg.pool", "uvicorn.access", "httpx", "alembic"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
    structlog.contextvars.bind_contextvars(**always)


def correlate(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Name the attempt and the span within which a line was written; what the line says itself stays."""
    if (job := JOB.get()) is not None:
        line.setdefault("job_id", job.job_id)
        line.setdefault("attempt", job.attempt)
    if tracing.on is not None:
        for name, value in tracing.on.ids().items():
            line.setdefault(name, value)
    return line
