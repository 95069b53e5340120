"""Listening on addresses of either family."""

import platform
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from goqueue.errors import SettingsError
from goqueue.listening import unmapped
from goqueue.probes import Probes


@pytest.fixture
def probes(host: str) -> Iterator[Probes]:
    made = Probes(host, 0, lambda: {}, lambda: {})
    made.start()
    yield made
    made.stop()


def asked_as(client: str, probes: Probes) -> int | None:
    try:
        return httpx.get(f"http://{client}:{probes.port}/livez").status_code
    except httpx.ConnectError:
        return None


@pytest.mark.parametrize(
    ("host", "v4", "v6"),
    [
        ("127.0.0.1", 200, None),
        ("0.0.0.0", 200, None),
        ("localhost", 200, None),
        ("::1", None, 200),
        ("::", 200, 200),
    ],
)
def test_probes_answer_on_the_families_of_their_host(probes: Probes, v4: int | None, v6: int | None) -> None:
    assert (asked_as("127.0.0.1", probes), asked_as("[::1]", probes)) == (v4, v6)
    assert httpx.get(f"http://{'127.0.0.1' if v4 else '[::1]'}:{probes.port}/metrics").text.startswith("# HELP")


@pytest.mark.parametrize("host", ["::1", "127.0.0.1"])
def test_a_port_that_is_taken_and_a_host_that_is_not_here_are_one_line(host: str) -> None:
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"cannot serve probes and metrics on .*{port}: Address already in use"):
            Probes(host, port, lambda: {}, None)
    with pytest.raises(SettingsError, match="cannot serve probes and metrics on 2001:db8::1:0: "):
        Probes("2001:db8::1", 0, lambda: {}, None)
    with pytest.raises(SettingsError, match=r"no-such-host\.invalid:0: "):
        Probes("no-such-host.invalid", 0, lambda: {}, None)


WITHOUT_IPV6 = """
import ctypes, struct, sys
SOCKET = int(sys.argv[1])
AF_INET6, EAFNOSUPPORT, ALLOW, ERRNO = 10, 97, 0x7FFF0000, 0x00050000
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # seccomp(2): number of the call at 0, its first argument at 16
steps = [(LOAD, 0, 0, 0), (EQUAL, 0, 3, SOCKET), (LOAD, 0, 0, 16), (EQUAL, 0, 1, AF_INET6)]
steps += [(RETURN, 0, 0, ERRNO | EAFNOSUPPORT), (RETURN, 0, 0, ALLOW)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(program)), 0, 0) == 0  # PR_SET_SECCOMP, a filter
from goqueue.listening import bind
print(bind("::", 0).getsockname()[0])
try:
    bind("::1", 0)
except OSError as error:
    print(error.errno == EAFNOSUPPORT)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux' own")
def test_any_address_of_both_families_is_that_of_ipv4_where_the_system_has_no_ipv6() -> None:
    number = {"x86_64": "41", "aarch64": "198"}[platform.machine()]
    done = subprocess.run([sys.executable, "-c", WITHOUT_IPV6, number], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["0.0.0.0", "True"], done.stderr


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:c000:201", "::ffff:c000:201"),
        ("64:ff9b::192.0.2.1", "64:ff9b::192.0.2.1"),
        ("", ""),
    ],
)
def test_a_client_of_ipv4_is_named_by_its_ipv4_address(address: str, plain: str) -> None:
    assert unmapped(address) == plain
