"""The table of tricks by which a webhook might reach a private network, and what must stay possible.

No network: names are resolved by the table itself.
"""

import asyncio
import ipaddress
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goqueue_worker.handlers.addresses import networks, refusal
from goqueue_worker.handlers.guarded import Refused, checked_addresses, checked_url

NAMES = {
    "shop.example": ["93.184.215.14"],
    "both.example": ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"],
    "localhost": ["127.0.0.1", "::1"],
    "localhost.": ["127.0.0.1"],
    "app.localhost": ["127.0.0.1"],
    "localtest.example": ["127.0.0.1"],
    "intranet.example": ["10.1.2.3"],
    "kubernetes.default.svc": ["10.96.0.1"],
    "metadata.google.internal": ["169.254.169.254"],
    "v6only.example": ["fd12:3456::1"],
    "mixed.example": ["93.184.215.14", "10.0.0.7"],
    "mixed6.example": ["2606:2800:21f::1", "fe80::1"],
    "mapped.example": ["::ffff:192.168.0.1"],
    "nat64.example": ["64:ff9b::0a00:0001"],
    "nat64.public.example": ["64:ff9b::5db8:d70e"],
    "zone.example": ["fe80::1%eth0"],
    "garbage.example": ["not an address"],
    "127.0.0.1.nip.example": ["127.0.0.1"],
    "xn--bcher-kva.example": ["93.184.215.14"],
}

REFUSED = [
    # Plain private and special addresses
    "http://127.0.0.1/",
    "http://127.0.0.1:6379/",
    "http://127.255.255.254/",
    "http://0.0.0.0/",
    "http://0.1.2.3/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://100.127.255.255/",
    "http://169.254.1.1/",
    "http://192.0.0.192/",
    "http://192.0.2.1/",
    "http://198.18.0.1/",
    "http://198.51.100.7/",
    "http://203.0.113.7/",
    "http://192.88.99.1/",
    "http://224.0.0.1/",
    "http://239.255.255.250/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    # Cloud metadata
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[fd20:ce::254]/",
    "http://168.63.129.16/",
    "http://100.100.100.200/",
    "http://metadata.google.internal/",
    # IPv6
    "http://[::1]/",
    "http://[::]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fe80::1%eth0]/",
    "http://[fec0::1]/",
    "http://[fc00::1]/",
    "http://[fd12:3456:789a::1]/",
    "http://[ff02::1]/",
    "http://[100::1]/",
    "http://[2001:db8::1]/",
    "http://[3fff::1]/",
    "http://[4000::1]/",
    # IPv4 inside IPv6
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[::127.0.0.1]/",
    "http://[::ffff:0:127.0.0.1]/",
    "http://[64:ff9b::127.0.0.1]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[64:ff9b:1::1]/",
    "http://[2002:7f00:1::]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[2001:0:53aa:64c:0:fbfe:80ff:fffe]/",
    "http://[2606:2800::5efe:127.0.0.1]/",
    "http://[2606:2800::200:5efe:10.0.0.1]/",
    # Unusual notations
    "http://2130706433/",
    "http://0x7f000001/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://0x7f.0.0.1/",
    "http://0x7f.1/",
    "http://127.1/",
    "http://127.0.1/",
    "http://0/",
    "http://1/",
    "http://127.0.0.1./",
    "http://127.0.0.01/",
    "http://00000177.0.0.1/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://169.254.43518/",
    "http://134744072/",
    "http://256.1.1.1/",
    "http://1.2.3.4.5/",
    "http://foo.0x7f/",
    "http://%31%32%37.0.0.1/",
    "http://127%2e0%2e0%2e1/",
    "http://①②⑦.⓪.⓪.①/",
    "http://127。0。0。1/",
    "http://１２７.0.0.1/",
    "http://0300.0250.0.1/",
    "http://0x0a.0.0.1/",
    "http://10.0x000001/",
    "http://127.0.0.1.0/",
    "http://127.0.0.1%00/",
    "http://127.0.0.1%2f.shop.example/",
    "http://١٢٧.٠.٠.١/",
    "http://⑯⑨.②⑤④.⑯⑨.②⑤④/",
    "http://127．0．0．1/",
    "http://127｡0｡0｡1/",
    "http://127.0.0.1\u200b/",
    "http://\u00ad127.0.0.1/",
    "http://[::ffff:0x7f.0.0.1]/",
    "http://[::ffff:0177.0.0.1]/",
    "http://[::ffff:127.1]/",
    "http://[0:0:0:0:0:ffff:7f00:0001]/",
    "http://[::7f00:1]/",
    "http://[fe80::1%2525eth0]/",
    "http://[::%31]/",
    "http://[v1.127.0.0.1]/",
    # Tricks with the URL
    "http://shop.example:80:80/",
    "http://shop.example:-1/",
    "http://shop.example:0/",
    "http://127.0.0.1%2f@shop.example/",
    "http://shop.example%2f@127.0.0.1/",
    "http://shop.example%00@127.0.0.1/",
    "http:\\\\127.0.0.1/",
    "http:/\\127.0.0.1/",
    "http://127.0.0.1:80\u2044@shop.example/",
    "http://shop.example@127.0.0.1/",
    "http://user:pass@shop.example/",
    "http://127.0.0.1:80@shop.example/",
    "http://shop.example:80@127.0.0.1:22/",
    "http://@127.0.0.1/",
    "http://shop.example\\@127.0.0.1/",
    "http://shop.example#@127.0.0.1\\/",
    "http://127.0.0.1\\.shop.example/",
    "http://shop.example /",
    "http://127.0.0.1\t/",
    "http://shop.example\r\nHost: x/",
    "http://shop.example\x00.internal/",
    "http:///etc/passwd",
    "http://",
    "http:127.0.0.1/",
    "//127.0.0.1/",
    "127.0.0.1",
    "",
    "http://[::1/",
    "http://[::1]x/",
    "http://[127.0.0.1]/",
    "http://shop.example:99999/",
    "http://shop.example:x/",
    # Other schemes
    "ftp://shop.example/",
    "file:///etc/passwd",
    "gopher://shop.example:6379/_FLUSHALL",
    "dict://shop.example:11211/",
    "unix:///var/run/docker.sock",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/",
    "ws://shop.example/",
    "javascript:alert(1)",
    "data:text/plain,x",
    # Names that lead to such places
    "http://localhost/",
    "http://LOCALHOST/",
    "http://localhost./",
    "http://app.localhost/",
    "http://localtest.example/",
    "http://127.0.0.1.nip.example/",
    "https://intranet.example/",
    "https://kubernetes.default.svc/api",
    "http://v6only.example/",
    "http://mixed.example/",
    "http://mixed6.example/",
    "http://mapped.example/",
    "http://nat64.example/",
    "http://zone.example/",
    "http://garbage.example/",
]

PERMITTED = [
    "http://93.184.215.14/",
    "https://93.184.215.14:8443/hook?x=1#y",
    "http://1.1.1.1/",
    "http://100.63.255.255/",
    "http://100.128.0.1/",
    "http://172.15.255.255/",
    "http://172.32.0.1/",
    "http://169.253.255.255/",
    "http://223.255.255.255/",
    "http://[2606:4700:4700::1111]/",
    "http://[::ffff:1.1.1.1]/",
    "http://[64:ff9b::1.1.1.1]/",
    "http://shop.example/hook",
    "HTTPS://Shop.Example/hook",
    "http://both.example/",
    "http://nat64.public.example/",
    "http://bücher.example/ü",
    "http://shop.example/?next=http://127.0.0.1/",
    "http://shop.example/#@127.0.0.1",
    "http://shop.example/a@b",
]


async def table(host: str, port: int) -> list[str]:
    if host not in NAMES:
        raise OSError(f"{host} is unknown")
    return NAMES[host]


def places(text: str, allowed: Sequence[str] = ()) -> list[str]:
    """The addresses to which a webhook to this URL would go."""
    url = checked_url(text)
    host = url.raw_host.decode()
    return asyncio.run(checked_addresses(host, url.port or 80, networks(allowed), table))


@pytest.mark.parametrize("url", REFUSED)
def test_a_trick_is_refused(url: str) -> None:
    with pytest.raises(Refused):
        places(url)


@pytest.mark.parametrize("url", PERMITTED)
def test_a_public_place_is_permitted(url: str) -> None:
    assert places(url)


def test_the_table_of_tricks_has_no_row_twice() -> None:
    print(f"{len(REFUSED)} tricks refused, {len(PERMITTED)} public places permitted")
    assert len(REFUSED) == len(set(REFUSED)) >= 150


@pytest.mark.parametrize(
    ("url", "network"),
    [
        ("http://10.1.2.3/", "10.1.0.0/16"),
        ("http://127.0.0.1:9000/", "127.0.0.1/32"),
        ("http://[::1]/", "::1/128"),
        ("http://[::ffff:10.1.2.3]/", "10.0.0.0/8"),
        ("http://intranet.example/", "10.1.2.3/32"),
        ("http://v6only.example/", "fd00::/8"),
    ],
)
def test_an_allowed_network_may_be_called(url: str, network: str) -> None:
    assert places(url, [network])


@pytest.mark.parametrize("url", ["http://10.2.0.1/", "http://mixed.example/", "http://[::1]/", "http://0x0a010203/"])
def test_an_allowed_network_opens_nothing_else(url: str) -> None:
    with pytest.raises(Refused):
        places(url, ["10.1.0.0/16"])


def test_a_refusal_says_why_and_hides_path_and_query() -> None:
    with pytest.raises(Refused) as caught:
        places("http://intranet.example/hooks/T0KEN?key=S3CRET")
    text = str(caught.value)
    assert "intranet.example leads to 10.1.2.3" in text
    assert "private" in text
    assert "T0KEN" not in text
    assert "S3CRET" not in text


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_is_permitted_that_is_not_global(address: ipaddress.IPv4Address) -> None:
    if refusal(address) is None:
        assert address.is_global


@given(st.ip_addresses(v=6))
def test_no_ipv6_address_is_permitted_that_is_not_global(address: ipaddress.IPv6Address) -> None:
    if refusal(address) is None:
        assert address.is_global
        assert not address.is_multicast


@given(st.ip_addresses(v=4), st.sampled_from(["::ffff:0:0", "64:ff9b::"]))
def test_an_ipv4_address_inside_an_ipv6_one_is_judged_like_itself(address: ipaddress.IPv4Address, prefix: str) -> None:
    wrapped = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(address))
    assert (refusal(wrapped) is None) == (refusal(address) is None)


@given(st.integers(0, 2**32 - 1))
def test_no_address_written_as_one_number_is_permitted(number: int) -> None:
    for text in (str(number), hex(number), f"0{number:o}"):
        with pytest.raises(Refused):
            places(f"http://{text}/")
