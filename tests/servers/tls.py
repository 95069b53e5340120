"""A certificate authority of a test's own, and a server that speaks TLS before one that does not."""

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.servers.tcp import listen

SSL_REQUEST = bytes([0, 0, 0, 8, 4, 210, 22, 47])
"""How a client of PostgreSQL asks for TLS."""


@dataclass(frozen=True)
class Authority:
    """A CA of the test's own; what it signs lies beside its certificate."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    names_itself: bool

    @classmethod
    def made(cls, folder: Path, *, key_usage: bool = True, names_itself: bool = True) -> "Authority":
        """A new one.

        Args:
            folder: A new folder for its certificate and what it signs.
            key_usage: Its certificate says what its key is for.
            names_itself: What it signs names its key (authority key identifier).
        """
        folder.mkdir()
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, folder.name)])
        others = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
        unused = dict.fromkeys((*others, "crl_sign", "encipher_only", "decipher_only"), False)
        builder = _builder(name, name, key)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        if key_usage:
            builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, **unused), critical=True)
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = builder.add_extension(own, critical=False).sign(key, hashes.SHA256())
        (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return cls(folder, key, certificate, names_itself)

    @property
    def ca(self) -> Path:
        """File of its certificate."""
        return self.folder / "ca.crt"

    def issue(self, name: str, *names: x509.GeneralName) -> tuple[Path, Path]:
        """A certificate and its key, for a server with these names or for a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = _builder(subject, self.certificate.subject, key)
        if self.names_itself:
            builder = builder.add_extension(issuer, critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signed = builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        paths = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        for path, content in zip(paths, (signed, private), strict=True):
            path.touch(0o600)
            path.write_bytes(content)
        return paths


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
    )


class TlsProxy:
    """Ends TLS and forwards to a plain server; who does not speak TLS, or shows no wanted certificate, is cut off."""

    def __init__(self, target: tuple[str, int], context: ssl.SSLContext, *, postgres: bool) -> None:
        self._target = target
        self._context = context
        self._postgres = postgres
        self.port = 0
        self.served = 0
        """Connections over TLS that were forwarded."""

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator["TlsProxy"]:
        """Serve on `port` until the block ends."""
        tls = None if self._postgres else self._context
        async with listen(self._serve, tls=tls) as self.port:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
            if self._postgres:
                if await reader.readexactly(8) != SSL_REQUEST:
                    return
                writer.write(b"S")
                await writer.start_tls(self._context)
            self.served += 1
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            try:
                await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
            finally:
                far_writer.transport.abort()
                with contextlib.suppress(OSError):
                    await far_writer.wait_closed()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    finally:
        target.close()


def server_context(authority: Authority, *names: x509.GeneralName, clients: bool = False) -> ssl.SSLContext:
    """A server's, with a certificate for these names; `clients`: only for those with a certificate of the same CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server", *names))
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.ca)
    return context


HERE = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
ELSEWHERE = (x509.DNSName("elsewhere.example"),)
