"""A real issuer of tokens on the loopback address: discovery document, key set, keys that are changed."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def rsa_key() -> rsa.RSAPrivateKey:
    """A new key for RS256 and its kin."""
    return rsa.generate_private_key(65537, 2048)


def ec_key() -> ec.EllipticCurvePrivateKey:
    """A new key for ES256."""
    return ec.generate_private_key(ec.SECP256R1())


class Issuer:
    """Signs tokens by `keys`, of which it publishes the public halves."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.first: dict[str, Private] = {"rsa-1": rsa_key(), "ec-1": ec_key()}
        self.keys = dict(self.first)
        self.extra: list[Any] = []
        """Entries of the key set beside those."""
        self.about: dict[str, Any] = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        self.broken = False
        """Answer 500 to everything."""
        self.asked: Counter[str] = Counter()

    def jwk(self, key_id: str) -> dict[str, Any]:
        """The public half of a key."""
        key = self.keys[key_id]
        algorithm: Any = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
        return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": key_id, "use": "sig"}

    def answer(self, path: str) -> tuple[int, bytes]:
        """Status and body."""
        self.asked[path] += 1
        if self.broken:
            return 500, b"{}"
        documents = {
            "/.well-known/openid-configuration": self.about,
            "/keys": {"keys": [*self.extra, *map(self.jwk, self.keys)]},
        }
        return (200, json.dumps(documents[path]).encode()) if path in documents else (404, b"{}")

    def claims(self, **more: Any) -> dict[str, Any]:
        """Those of a good token; None takes one away."""
        now = int(time.time())
        good = {"iss": self.url, "aud": "goqueue", "sub": "ada", "iat": now, "exp": now + 300, "scope": "jobs:read"}
        return {name: value for name, value in {**good, **more}.items() if value is not None}

    def token(self, key_id: str = "rsa-1", algorithm: str = "RS256", headers: Any = None, **claims: Any) -> str:
        """A token by one of its keys, good unless `claims` or `headers` say otherwise."""
        return jwt.encode(
            self.claims(**claims), self.keys[key_id], algorithm, headers={"kid": key_id, **(headers or {})}
        )


@contextmanager
def run_issuer() -> Iterator[Issuer]:
    """An issuer that answers within the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = issuer.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer = Issuer(server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
