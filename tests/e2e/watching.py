"""Watching Kubernetes objects: each change with the moment at which it was seen."""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.cluster.cluster import Cluster

Object = dict[str, Any]


class Watching:
    """What a watch has shown so far."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.seen: list[tuple[float, Object]] = []
        """(`time.time()`, object), oldest first; a deleted object has `deleted` set."""
        self._more = threading.Condition()

    def follow(self, lines: Iterable[bytes]) -> None:
        """Take in the API's stream, to its end."""
        for line in lines:
            event = json.loads(line)
            found = event["object"] | ({"deleted": True} if event["type"] == "DELETED" else {})
            with self._more:
                self.seen.append((time.time(), found))
                self._more.notify_all()

    def first(self, what: str, wanted: Callable[[Object], bool], *, since: float = 0.0, timeout: float) -> float:
        """When an object was first seen as wanted, not before `since`; waits until it is.

        Raises:
            AssertionError: it was not within `timeout` seconds; names `what`.
        """
        until = time.monotonic() + timeout
        with self._more:
            while True:
                for at, found in self.seen:
                    if at >= since and wanted(found):
                        return at
                if not self._more.wait(until - time.monotonic()) and time.monotonic() >= until:
                    raise AssertionError(f"waited {timeout:.0f} s in vain for {what}; {self.what}: {self.latest()}")

    def latest(self) -> dict[str, Object]:
        """Name → object as it was seen last; what is deleted is left out."""
        state: dict[str, Object] = {}
        for _, found in self.seen:
            state[found["metadata"]["name"]] = found
        return {name: found for name, found in state.items() if "deleted" not in found}


@contextmanager
def watch(cluster: Cluster, path: str) -> Iterator[Watching]:
    """Watch a list of the API, e.g. `/apis/apps/v1/namespaces/jobs/deployments`; begins with what is."""
    joint = "&" if "?" in path else "?"
    command = [cluster.tools.kubectl, "--kubeconfig", cluster.kubeconfig, "get", "--raw", f"{path}{joint}watch=true"]
    watching = Watching(path)
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, b"")
        reader = threading.Thread(target=watching.follow, args=(lines,), daemon=True)
        reader.start()
        try:
            yield watching
        finally:
            process.kill()
            reader.join(10)
