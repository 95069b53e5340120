"""A real HTTP server that keeps what it gets and answers what a test tells it to."""

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from goqueue_cli.keeper import LOOPBACK


@dataclass(frozen=True)
class Received:
    """One request; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """What goes back. `pause`: wait for this before the body's end, with the head already sent."""

    status: int = 200
    body: bytes = b"ok"
    headers: dict[str, str] = field(default_factory=dict)
    pause: threading.Event | None = None
    drop: bool = False


Script = Callable[[Received], Answer]


@dataclass
class Receiver:
    """A running server. `answers` are given one by one, then `script` (or 200) answers."""

    port: int
    tls: bool = False
    requests: list[Received] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    script: Script | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'https' if self.tls else 'http'}://{LOOPBACK}:{self.port}"

    def answer(self, request: Received) -> Answer:
        """Keep the request and choose what to answer."""
        self.requests.append(request)
        if self.answers:
            return self.answers.pop(0)
        return self.script(request) if self.script else Answer()


@contextlib.contextmanager
def receiver(certificate: tuple[str, str] | None = None) -> Iterator[Receiver]:
    """A server on a free port of the loopback address, with TLS where a certificate and key are given."""
    state: Receiver

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = state.answer(Received(self.command, self.path, headers, self.rfile.read(length)))
            if answer.drop:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in {"content-length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if answer.pause is not None:
                self.wfile.flush()
                answer.pause.wait(30)
            with contextlib.suppress(OSError):  # the other side may have read enough
                self.wfile.write(answer.body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - http.server's names

        def log_message(self, format: str, *arguments: object) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that goes away is part of some tests."""

    server = Server((LOOPBACK, 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    state = Receiver(server.server_address[1], certificate is not None)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
