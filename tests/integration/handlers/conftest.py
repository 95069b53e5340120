"""Servers that the handlers talk to."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.handlers.receiver import Receiver, receiver
from tests.servers.gotools import go_command


@dataclass(frozen=True)
class Certificate:
    """A certificate that is its own authority, for 127.0.0.1, localhost and shop.example."""

    cert: Path
    key: Path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Made by the generator that comes with Go."""
    folder = tmp_path_factory.mktemp("certificate")
    root = subprocess.run([go_command(), "env", "GOROOT"], capture_output=True, text=True, check=True).stdout.strip()
    generator = Path(root, "src", "crypto", "tls", "generate_cert.go")
    hosts = ["--host", "127.0.0.1,localhost,shop.example", "--ca", "--ecdsa-curve", "P256"]
    subprocess.run([go_command(), "run", str(generator), *hosts], cwd=folder, check=True, capture_output=True)
    return Certificate(folder / "cert.pem", folder / "key.pem")


@pytest.fixture
def target() -> Iterator[Receiver]:
    """An HTTP server without TLS."""
    with receiver() as running:
        yield running


@pytest.fixture
def tls_target(certificate: Certificate) -> Iterator[Receiver]:
    """An HTTP server with TLS."""
    with receiver((str(certificate.cert), str(certificate.key))) as running:
        yield running
