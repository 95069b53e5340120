"""HTTP that cannot be lured into a private network.

The guard stands where connections are made. A host is resolved once for each connection, *every* address it has is
checked, and the connection goes to a checked address itself, so that a name which changes its mind in between
(rebinding) wins nothing. `Host` and the TLS server name stay those of the URL. No proxy from the environment is used:
it would connect in our place, unchecked.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import httpcore
import httpx

from goqueue_worker.handlers.addresses import Network, literal, refusal
from goqueue_worker.handlers.reused import RepeatingTransport

MAX_ADDRESSES: Final = 4
"""Addresses of one host that are tried."""

Resolver = Callable[[str, int], Awaitable[list[str]]]
"""Takes a host and a port, returns the host's addresses; raises OSError."""


class Refused(Exception):
    """The guard forbids the request; the message says why and names no more of the URL than its host."""


async def resolve(host: str, port: int) -> list[str]:
    """The host's addresses, as the system's resolver orders them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def checked_url(text: str) -> httpx.URL:
    """Parse a URL as the HTTP client will read it.

    Raises:
        Refused: it is no http(s) URL, or one that different programs read differently.
    """
    if any(character <= " " or character in "\x7f\\" for character in text):
        raise Refused("the URL holds white space, a control character or a backslash")
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise Refused("the URL cannot be read") from None
    host = url.raw_host.decode("ascii")
    if url.scheme not in ("http", "https"):
        raise Refused("the URL's scheme is neither http nor https")
    if not host or "%" in host or not 1 <= (80 if url.port is None else url.port) <= 65535:
        raise Refused("the URL has no proper host")
    if url.userinfo:
        raise Refused(f"the URL of {host} holds a user name or password")
    try:
        literal(host)
    except ValueError as error:
        raise Refused(f"{host} is refused: {error}") from None
    return url


async def checked_addresses(host: str, port: int, allowed: Sequence[Network], resolver: Resolver) -> list[str]:
    """The host's addresses, all of them fit to be called.

    Raises:
        Refused: one of them is not.
        OSError: the name cannot be resolved.
    """
    try:
        address = literal(host)
    except ValueError as error:
        raise Refused(f"{host} is refused: {error}") from None
    found = [str(address)] if address is not None else await resolver(host, port)
    if not found:
        raise OSError(f"{host} has no address")
    for text in found:
        try:
            reason = refusal(ipaddress.ip_address(text), allowed)
        except ValueError:
            reason = "no address"
        if reason is not None:
            where = f"{host} is" if text == host else f"{host} leads to {text}, which is"
            raise Refused(f"{where} refused: {reason} (GOQUEUE_WEBHOOK_ALLOW_NETWORKS lists what may be called)")
    return found


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses only, and to the very address that was checked."""

    def __init__(self, allowed: Sequence[Network], resolver: Resolver = resolve) -> None:
        self._allowed = allowed
        self._resolver = resolver
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface of httpcore
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises `Refused` before anything is sent; else as the backend beneath."""
        try:
            addresses = await checked_addresses(host, port, self._allowed, self._resolver)
        except OSError as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved: {error.strerror or error}") from None
        tried = addresses[:MAX_ADDRESSES]
        share = None if timeout is None else timeout / len(tried)
        for address in tried[:-1]:
            try:
                return await self._network.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._network.connect_tcp(tried[-1], port, share, local_address, socket_options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface of httpcore
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Never."""
        raise Refused("a Unix socket is no place for a webhook")

    async def sleep(self, seconds: float) -> None:
        """As the backend beneath."""
        await self._network.sleep(seconds)


def guarded_transport(allowed: Sequence[Network], resolver: Resolver = resolve) -> RepeatingTransport:
    """A transport whose connections are checked and pinned."""
    return RepeatingTransport(PinnedBackend(allowed, resolver), httpx.create_ssl_context())
