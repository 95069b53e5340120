"""Which addresses a webhook may go to. Pure: no name is resolved and nothing is connected here.

IPv4: everything but the special-purpose blocks (RFC 6890 and the IANA registry). IPv6: only global unicast, without
the blocks that tunnel or are reserved. An IPv4 address inside an IPv6 one counts as that IPv4 address.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_V4: Final = {
    "0.0.0.0/8": "unspecified",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared (carrier-grade NAT)",
    "127.0.0.0/8": "loopback",
    "168.63.129.16/32": "cloud metadata",  # Azure's, though it looks public
    "169.254.0.0/16": "link-local (cloud metadata)",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "reserved",
    "192.0.2.0/24": "documentation",
    "192.88.99.0/24": "reserved (6to4 relay)",
    "192.168.0.0/16": "private",
    "198.18.0.0/15": "benchmarking",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
}
_V6: Final = {
    "::/128": "unspecified",
    "::1/128": "loopback",
    "64:ff9b:1::/48": "local NAT64",
    "100::/64": "discard-only",
    "2001::/23": "reserved (Teredo and others)",
    "2001:db8::/32": "documentation",
    "2002::/16": "6to4",
    "3fff::/20": "documentation",
    "fc00::/7": "private",
    "fe80::/10": "link-local",
    "fec0::/10": "site-local",
    "ff00::/8": "multicast",
}
SPECIAL: Final = tuple((ipaddress.ip_network(block), name) for block, name in {**_V4, **_V6}.items())
GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
ISATAP: Final = 0x00005EFE
"""The middle of an interface identifier (without its universal bit) whose last 32 bits are an IPv4 address."""

_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
_DOTTED_QUAD: Final = re.compile(r"(?:0|[1-9][0-9]{0,2})(?:\.(?:0|[1-9][0-9]{0,2})){3}")


def networks(names: Iterable[str]) -> tuple[Network, ...]:
    """The allow-list's networks, from CIDR notation.

    Raises:
        ValueError: one is no network.
    """
    return tuple(ipaddress.ip_network(name) for name in names)


def refusal(address: Address, allowed: Sequence[Network] = ()) -> str | None:
    """Why the address may not be called ("loopback", "private", …); None where it may."""
    plain = ipaddress.ip_address(int(address)) if address.version == 4 else ipaddress.IPv6Address(int(address))
    if any(plain.version == network.version and plain in network for network in allowed):
        return None
    if isinstance(plain, ipaddress.IPv4Address):
        return _special(plain)
    if (inner := embedded(plain)) is not None:
        reason = refusal(inner, allowed)
        return f"{reason}, as {inner} inside an IPv6 address" if reason else None
    if (reason := _special(plain)) is not None:
        return reason
    return None if plain in GLOBAL_UNICAST else "not globally reachable"


def embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that packets to this IPv6 address reach, or may reach: mapped, NAT64, ISATAP."""
    value = int(address)
    last = ipaddress.IPv4Address(value & 0xFFFFFFFF)
    if address.ipv4_mapped is not None or address in NAT64:
        return last
    if (value >> 32) & 0xFDFFFFFF == ISATAP and address in GLOBAL_UNICAST:
        return last
    return None


def literal(host: str) -> Address | None:
    """The address, where a URL's host (without brackets) is one in its usual notation; None for a name.

    Raises:
        ValueError: it is an address in a notation that programs read differently: decimal, octal, hexadecimal, short,
            with a dot at the end, or with a zone.
    """
    if ":" in host:
        address = ipaddress.IPv6Address(host)
        if address.scope_id is not None:
            raise ValueError("an address with a zone")
        return address
    if _NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]) is None:
        return None
    if _DOTTED_QUAD.fullmatch(host) is None:
        raise ValueError("an address in an unusual notation")
    return ipaddress.IPv4Address(host)


def _special(address: Address) -> str | None:
    for network, name in SPECIAL:
        if address.version == network.version and address in network:
            return name
    return None
