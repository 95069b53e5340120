"""Where the jobs of `goqueue dev` go: a mail catcher and a webhook receiver on the loopback address."""

import email
import email.policy
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from goqueue_cli.embedded import free_port
from goqueue_cli.keeper import LOOPBACK

Note = Callable[[str], None]
"""Gets a line about each thing that arrived."""


class MailCatcher:
    """An SMTP server that delivers to nobody: each message becomes one `.eml` file."""

    def __init__(self, folder: Path, note: Note) -> None:
        self.port = free_port()
        self._folder = folder
        self._note = note
        # aiosmtpd's loop runs in a thread of its own; a message that it refuses to parse is still a message.
        self._controller = Controller(self, hostname=LOOPBACK, port=self.port, enable_SMTPUTF8=True)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's
        """Keep one message."""
        content = envelope.original_content or b""
        path = self._folder / f"{time.time_ns()}.eml"
        path.write_bytes(content)
        subject = email.message_from_bytes(content, policy=email.policy.default)["subject"]
        self._note(f"mail to {', '.join(envelope.rcpt_tos)}: {subject!s} ({path.name})")
        return "250 kept"

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()


class WebhookReceiver:
    """An HTTP server that answers every request with 200 and says what came."""

    def __init__(self, note: Note) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30  # an idle connection must not hold its thread for ever
            disable_nagle_algorithm = True

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                signed = "signed" if "webhook-signature" in self.headers else "unsigned"
                note(f"webhook {self.command} {self.path}: {len(body)} bytes, {signed}")
                answer = json.dumps({"received": len(body)}).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_PUT = do_PATCH = _answer  # noqa: N815 - http.server's names

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: `note` has said it."""

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Where to send a webhook."""
        return f"http://{LOOPBACK}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
