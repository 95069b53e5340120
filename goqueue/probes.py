"""Liveness, readiness and metrics on a small port of their own, answered by a thread.

A thread, so that the answer also comes when the event loop is blocked: that is exactly what liveness must tell.
"""

import json
import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import REGISTRY, CollectorRegistry, make_wsgi_app

from goqueue.errors import SettingsError
from goqueue.listening import bind

Check = Callable[[], dict[str, str]]
"""Names what is wrong, by part; empty where all is well. Runs in the probe's thread: read flags, wait for nothing."""


class _Quiet(WSGIRequestHandler):
    timeout = 5  # seconds a slow client may take

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: probes come every few seconds."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, bound: socket.socket, app: Callable[..., Iterable[bytes]]) -> None:
        """Listen on a bound socket, of whatever family."""
        super().__init__(bound.getsockname()[:2], _Quiet, bind_and_activate=False)
        self.socket.close()
        self.socket = bound
        self.server_name, self.server_port = bound.getsockname()[:2]
        self.setup_environ()
        self.set_app(app)
        self.server_activate()


class Probes:
    """Serves `/livez`, `/readyz` and `/metrics`; `port` 0 takes any free one, see `self.port` after `start()`."""

    def __init__(
        self, host: str, port: int, live: Check, ready: Check | None, registry: CollectorRegistry = REGISTRY
    ) -> None:
        """`ready` None: it is asked elsewhere.

        Raises:
            SettingsError: it cannot listen there.
        """
        self._checks = {"/livez": live} if ready is None else {"/livez": live, "/readyz": ready}
        self._metrics = make_wsgi_app(registry)
        try:
            self._server = _Server(bind(host, port), self._answer)
        except OSError as error:
            raise SettingsError(f"cannot serve probes and metrics on {host}:{port}: {error.strerror}") from error
        self.port: int = self._server.server_port

    def start(self) -> None:
        """Begin to answer."""
        threading.Thread(target=self._server.serve_forever, name="probes", daemon=True).start()

    def stop(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "/")
        if path == "/metrics":
            answer: Iterable[bytes] = self._metrics(environ, start_response)
            return answer
        check = self._checks.get(path)
        if check is None:
            status, body = "404 Not Found", {"error": "not found"}
        else:
            try:
                wrong = check()
            except Exception as error:
                wrong = {"check": type(error).__name__}
            status = "503 Service Unavailable" if wrong else "200 OK"
            body = {"status": "unavailable", **wrong} if wrong else {"status": "ok"}
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(body).encode()]
