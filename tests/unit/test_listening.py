"""Listening on addresses of either family."""

import socket
from collections.abc import Iterator

import httpx
import pytest

from goqueue.errors import SettingsError
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
