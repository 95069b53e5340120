"""Sockets to listen on, for IPv4 and IPv6 alike."""

import errno
import socket


def bind(host: str, port: int) -> socket.socket:
    """A bound TCP socket that does not listen yet. `::` takes connections of both families (see `any_host`).

    Of a name's addresses an IPv4 one is taken, where it has one.

    Raises:
        OSError: the address cannot be had; or there is none for the name (socket.gaierror).
    """
    found = socket.getaddrinfo(any_host(host), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    bound = socket.socket(family, kind)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Some systems, and asyncio everywhere, take IPv6 alone otherwise.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def any_host(host: str) -> str:
    """The host to listen on: `0.0.0.0` for `::` on a system that was started without IPv6, else as it is given."""
    if host == "::":
        try:
            socket.socket(socket.AF_INET6).close()
        except OSError as error:
            if error.errno != errno.EAFNOSUPPORT:
                raise
            return "0.0.0.0"  # noqa: S104 - as asked
    return host


def unmapped(address: str) -> str:
    """The IPv4 address that `::ffff:192.0.2.1` stands for (RFC 4291, 2.5.5.2), else the address as it is.

    A socket of both families names clients that come by IPv4 so.
    """
    prefix, _, last = address.rpartition(":")
    return last if prefix == "::ffff" and "." in last else address
