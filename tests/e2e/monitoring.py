"""The Prometheus in the cluster, asked through the Kubernetes API."""

import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from tests.e2e.system import FIGURES, NAMESPACE, System

PROXY = f"/api/v1/namespaces/{NAMESPACE}/services/prometheus:http/proxy/api/v1"

BURST = FIGURES / "burst.json"
"""A recorded burst, of which `python -m benchmarks.autoscaling` makes the picture in the docs."""

Series = list[dict[str, Any]]


@dataclass(frozen=True)
class Monitoring:
    """What it has scraped."""

    system: System

    def get(self, path: str, **parameters: str | float) -> Any:
        """The data of an answer of Prometheus' HTTP API."""
        answer = json.loads(self.system.kubectl("get", "--raw", f"{PROXY}/{path}?{urlencode(parameters)}"))
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> Series:
        """Series of an instant query, now."""
        found: Series = self.get("query", query=expression)["result"]
        return found

    def record(self, expressions: dict[str, str], start: float, end: float, step: float = 1.0) -> None:
        """Keep what expressions (by name) were between two moments (`time.time()`), as seconds since the first one."""
        lines: dict[str, list[tuple[float, float]]] = {}
        for name, expression in expressions.items():
            data = self.get("query_range", query=expression, start=start, end=end, step=step)
            values = data["result"][0]["values"] if data["result"] else []
            lines[name] = [(round(at - start, 1), float(value)) for at, value in values if value != "NaN"]
        BURST.parent.mkdir(parents=True, exist_ok=True)
        BURST.write_text(json.dumps({"at": time.strftime("%Y-%m-%d", time.gmtime(start)), "lines": lines}) + "\n")
