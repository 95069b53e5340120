"""A `JobContext` for handlers that run without a worker."""

from dataclasses import dataclass, field


@dataclass
class Context:
    """What a handler sees of its attempt; keeps what it reports."""

    job_id: int = 42
    created: float = 1_700_000_000.125
    attempt: int = 1
    max_retries: int = 5
    deaths: int = 0
    queue: str = "default"
    cancelled: bool = False
    reported: list[float] = field(default_factory=list)
    lines: list[tuple[str, str]] = field(default_factory=list)
    trace_headers: dict[str, str] = field(default_factory=dict)

    def progress(self, fraction: float) -> None:
        self.reported.append(fraction)

    def log(self, message: str, level: str = "info") -> None:
        self.lines.append((level, message))
