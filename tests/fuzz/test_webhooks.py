"""URLs and addresses of webhooks: only `Refused` comes out, and nothing that leads inside is let through."""

import asyncio
import ipaddress
from urllib.parse import urlsplit

from hypothesis import strategies as st

from goqueue_worker.handlers.addresses import SPECIAL, refusal
from goqueue_worker.handlers.guarded import Refused, checked_addresses, checked_url
from tests.fuzz.inputs import TEXTS, fuzz

_ODD = (
    "localhost 127.1 0x7f.1 2130706433 017700000001 127.0.0.1. [::1] [::ffff:127.0.0.1] [fe80::1%25eth0] 127\u30020.0.1"
    " \uff11\uff12\uff17.0.0.1 ex%61mple.org 169.254.169.254 a@b a:b@c example.org:0 example.org:99999 [ ] xn--nxasmq6b"
)
_PLAIN = "example.org 1.1.1.1 [2606:4700::1111] hooks.example.org"
_HOSTS = (
    st.sampled_from(_ODD.split())
    | st.sampled_from(_PLAIN.split())
    | st.ip_addresses(v=4).map(str)
    | st.ip_addresses(v=6).map(lambda address: f"[{address}]")
    | TEXTS
)
_SCHEMES = [
    "http://",
    "https://",
    "https://",
    "HTTP://",
    "ftp://",
    "file://",
    "//",
    "http:",
    "http:/",
    "http:\\\\",
    " http://",
]
_URLS = TEXTS | st.builds(
    lambda scheme, host, port, path: f"{scheme}{host}{port}{path}",
    st.sampled_from(_SCHEMES),
    _HOSTS,
    st.sampled_from(["", "", ":80", ":", ":-1", ":65536", ":080"]),
    st.sampled_from(["", "/", "/a?b#c", "\\@inside/", "/\r\nX: y", "?@inside/", "#@inside/"]) | TEXTS,
)


async def _never(host: str, port: int) -> list[str]:
    raise OSError("no name is resolved here")


def _told(error: Refused) -> str:
    assert len(str(error).splitlines()) == 1
    return "refused"


@fuzz(text=_URLS)
def test_a_url_leads_where_other_programs_would_go_or_is_refused(text: str) -> str:
    try:
        url = checked_url(text)
    except Refused as error:
        return _told(error)
    assert url.scheme in ("http", "https")
    assert url.host
    assert not url.userinfo
    other = urlsplit(text)
    if text.isascii():  # beyond ASCII, names are written in punycode by one of the two only
        assert (other.hostname or "").lower() == url.raw_host.decode().lower()
    try:
        asyncio.run(checked_addresses(url.raw_host.decode(), url.port or 80, (), _never))
    except Refused:
        return "address refused"
    except OSError:
        return "name"
    address = ipaddress.ip_address(url.raw_host.decode())
    assert address.is_global
    assert not address.is_multicast
    return "address"


_SPECIAL = st.one_of([st.ip_addresses(network=network) for network, _ in SPECIAL])
_TUNNELLED = st.builds(
    lambda prefix, inner: ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(inner)),
    st.sampled_from(["::ffff:0:0", "64:ff9b::", "2001:4860::5efe:0:0", "2001:4860::200:5efe:0:0", "::"]),
    st.ip_addresses(v=4) | st.ip_addresses(network="10.0.0.0/8") | st.ip_addresses(network="127.0.0.0/8"),
)


@fuzz(address=st.ip_addresses() | _SPECIAL | _TUNNELLED)
def test_no_address_that_leads_inside_is_let_through(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Python's own table of special addresses is the judge, and it must agree about what hides in an IPv6 address."""
    if refusal(address) is not None:
        return "refused"
    assert address.is_global
    assert not address.is_multicast
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        assert address.ipv4_mapped.is_global
    return "accepted"
