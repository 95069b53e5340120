"""Sockets to listen on, for IPv4 and IPv6 alike."""

import socket


def bind(host: str, port: int) -> socket.socket:
    """A bound TCP socket that does not listen yet. `::` takes connections of both families.

    Of a name's addresses an IPv4 one is taken, where it has one.

    Raises:
        OSError: the address cannot be had; or there is none for the name (socket.gaierror).
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
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
