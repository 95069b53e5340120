"""Log lines of the library: through structlog where the program has configured it, else through `logging`.

structlog that nobody configured prints to standard output, where a program's own output goes.
"""

import logging
from typing import Any

import structlog


class Logger:
    """A logger that chooses at each line, since a program may configure structlog after its imports."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bound = structlog.get_logger(name)

    def info(self, event: str, **details: Any) -> None:
        """Log what is worth knowing."""
        self._log("info", event, details)

    def warning(self, event: str, **details: Any) -> None:
        """Log what went wrong and is dealt with."""
        self._log("warning", event, details)

    def error(self, event: str, **details: Any) -> None:
        """Log what went wrong."""
        self._log("error", event, details)

    def _log(self, level: str, event: str, details: dict[str, Any]) -> None:
        if structlog.is_configured():
            getattr(self._bound, level)(event, **details)
        else:
            said = ", ".join(f"{name}: {value}" for name, value in details.items())
            getattr(logging.getLogger(self._name), level)("%s", f"{event} ({said})" if said else event)
