"""Where the Kubernetes API is, and who we are to it: a pod's own account, else a kubeconfig."""

import base64
import ipaddress
import os
import socket
import ssl
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import yaml
from aiohttp.abc import AbstractResolver, ResolveResult

from goqueue.errors import SettingsError

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_SECONDS: Final = 60.0
"""Tokens of pods are renewed in their file long before they expire; how long one is kept in memory."""


class _Named(AbstractResolver):
    """Knows the one name that the server's certificate has, where the address is given as a number."""

    def __init__(self, name: str, address: str) -> None:
        self._name, self._address = name, address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        if host != self._name:
            raise OSError(f"unknown host {host}")
        version = ipaddress.ip_address(self._address).version
        return [
            ResolveResult(
                hostname=host,
                host=self._address,
                port=port,
                family=socket.AF_INET6 if version == 6 else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """Nothing is open."""


@dataclass
class Access:
    """The way to the API server. `tls_name`: the name in its certificate, where that is not the one in the URL."""

    server: str
    context: ssl.SSLContext
    namespace: str = "default"
    tls_name: str = ""
    _token: str = field(default="", repr=False)
    _token_file: Path | None = None
    _token_read: float = 0.0

    def __post_init__(self) -> None:
        if self.tls_name:
            parts = urlsplit(self.server)
            self._address = parts.hostname or ""
            port = f":{parts.port}" if parts.port else ""
            self.server = urlunsplit((parts.scheme, self.tls_name + port, parts.path, "", "")).rstrip("/")

    def headers(self) -> dict[str, str]:
        """The headers that say who we are."""
        if self._token_file is not None and time.monotonic() - self._token_read > _TOKEN_SECONDS:
            self._token = self._token_file.read_text().strip()
            self._token_read = time.monotonic()
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    @property
    def account(self) -> str:
        """Name of the service account whose token we use, or nothing."""
        if self._token_file is None:
            return ""
        self.headers()
        try:
            body = self._token.split(".")[1]
            claims = yaml.safe_load(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
            return str(claims.get("sub", "")).rpartition(":")[2]
        except (IndexError, ValueError, AttributeError, yaml.YAMLError):
            return ""

    def session(
        self, connections: int = 100, middlewares: Sequence[aiohttp.ClientMiddlewareType] = ()
    ) -> aiohttp.ClientSession:
        """A new client session; whoever asked for it closes it. `connections`: at most so many; 0: any number."""
        resolver = _Named(self.tls_name, self._address) if self.tls_name else None
        connector = aiohttp.TCPConnector(limit=connections, ssl=self.context, resolver=resolver)
        return aiohttp.ClientSession(
            connector=connector, headers={"User-Agent": "goqueue-operator"}, middlewares=middlewares
        )


def in_cluster() -> Access | None:
    """Access as the pod's service account; None outside of a pod."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (_ACCOUNT / "token").exists():
        return None
    address = f"[{host}]" if ":" in host else host
    return Access(
        f"https://{address}:{port}",
        ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt")),
        (_ACCOUNT / "namespace").read_text().strip(),
        _token_file=_ACCOUNT / "token",
    )


def _named(config: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    for item in config.get(f"{kind}s") or []:
        if item.get("name") == name:
            return dict(item.get(kind) or {})
    raise SettingsError(f"kubeconfig: no {kind} {name!r}")


def _client_certificate(context: ssl.SSLContext, user: dict[str, Any], folder: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        paths = []
        for name in ("client-certificate", "client-key"):
            if f"{name}-data" in user:
                path = Path(temporary) / name
                path.touch(mode=0o600)
                path.write_bytes(base64.b64decode(user[f"{name}-data"]))
            else:
                path = folder / user[name]
            paths.append(str(path))
        context.load_cert_chain(*paths)


def from_kubeconfig(path: Path) -> Access:
    """Access as a kubeconfig's current context says.

    Raises:
        SettingsError: the file is not there, is incomplete, or wants a login that only kubectl can do.
    """
    try:
        config = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"kubeconfig: cannot read {path}: {type(error).__name__}") from None
    chosen = _named(config, "context", config.get("current-context", ""))
    cluster, user = _named(config, "cluster", chosen["cluster"]), _named(config, "user", chosen["user"])
    if "exec" in user or "auth-provider" in user:
        raise SettingsError("kubeconfig: logins by exec or auth-provider are not supported; use a token")
    authority = base64.b64decode(cluster.get("certificate-authority-data", "")).decode()
    file = cluster.get("certificate-authority")
    context = ssl.create_default_context(
        cafile=str(path.parent / file) if file and not authority else None, cadata=authority or None
    )
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if user.get("client-certificate-data") or user.get("client-certificate"):
        _client_certificate(context, user, path.parent)
    token_file = user.get("tokenFile")
    return Access(
        cluster["server"].rstrip("/"),
        context,
        chosen.get("namespace") or "default",
        cluster.get("tls-server-name", ""),
        user.get("token", ""),
        path.parent / token_file if token_file else None,
    )


def find() -> Access:
    """The pod's own access, else that of `$KUBECONFIG` or `~/.kube/config`.

    Raises:
        SettingsError: there is none.
    """
    named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    if not named and (access := in_cluster()) is not None:
        return access
    return from_kubeconfig(Path(named) if named else Path.home() / ".kube" / "config")
