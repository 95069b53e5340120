"""The address of Redis: understood as it is written, or one line that names the variable and shows nothing of it."""

import pytest

from goqueue import settings
from goqueue.broker.connect import connect
from goqueue.errors import SettingsError
from goqueue.settings import RedisSettings

SECRETS = ("hunter2", "sesame")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("URL", "redis:6379"),
        ("URL", "host:6379/0"),
        ("URL", "redis://:hunter2@host:0"),
        ("URL", "redis://:hunter2@host:65536"),
        ("URL", "redis://:hunter2@host:port"),
        ("URL", "redis://::1:6379/0"),
        ("URL", "redis://2001:db8::1/0"),
        ("URL", "redis://:hunter2/sesame@host/0"),
        ("URL", "redis://:hunter2#sesame@host/0"),
        ("URL", "redis://:hunter2?sesame@host/0"),
        ("URL", "redis://hunter2?sesame@host/0"),
        ("URL", "redis://hunter2/sesame@host"),
        ("URL", "redis://host/zero"),
        ("URL", "redis://host/0?socket_timeout=1"),
        ("URL", "redis://host/0?decode_responses=true"),
        ("URL", "redis://host/0?protocol=3"),
        ("URL", "redis://host/0?max_connections=1"),
        ("URL", "redis://host/0?hunter2=1"),
        ("URL", "redis://host/0?db=two"),
        ("URL", "redis://host/0?ssl_cert_reqs=none"),
        ("URL", "rediss://host/0?ssl_cert_reqs=CERT_NONE"),
        ("URL", "unix://"),
        ("SENTINEL_HOSTS", "::1"),
        ("SENTINEL_HOSTS", "2001:db8::1:26379"),
        ("SENTINEL_HOSTS", "s-0:x"),
        ("SENTINEL_HOSTS", "s-0:99999"),
        ("SENTINEL_HOSTS", "s-0:0"),
        ("SENTINEL_HOSTS", "s-0:26379,[::1"),
        ("SENTINEL_HOSTS", "redis://s-0:26379"),
        ("SENTINEL_USERNAME", "goqueue"),
        ("USERNAME", "goqueue"),
    ],
)
def test_a_wrong_address_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(f"GOQUEUE_REDIS_{variable}", value)
    with pytest.raises(SettingsError) as caught:
        settings.load(RedisSettings)
    assert f"GOQUEUE_REDIS_{variable}" in caught.value.message
    assert "\n" not in caught.value.message
    assert not [secret for secret in SECRETS if secret in caught.value.message]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://host", {"host": "host"}),
        ("redis://host:6380/2", {"host": "host", "port": 6380, "db": 2}),
        ("redis://[2001:db8::1]:6380/0", {"host": "2001:db8::1", "port": 6380}),
        ("redis://:p%2F%23%40%25w@host/0", {"password": "p/#@%w"}),
        ("redis://jobs:secret@host/0?db=3", {"username": "jobs", "password": "secret", "db": 3}),
        ("unix:///run/valkey.sock?db=1", {"path": "/run/valkey.sock", "db": 1}),
        ("rediss://host/0?ssl_cert_reqs=none", {"ssl_cert_reqs": "none"}),
    ],
)
def test_a_right_address_reaches_the_client_with_the_engines_own_times(
    monkeypatch: pytest.MonkeyPatch, url: str, expected: dict[str, object]
) -> None:
    monkeypatch.setenv("GOQUEUE_REDIS_URL", url)
    given = connect(settings.load(RedisSettings)).connection_pool.connection_kwargs
    assert {name: given[name] for name in expected} == expected
    assert (given["socket_timeout"], given["protocol"]) == (4.0, 2)


@pytest.mark.parametrize("password", ["letters123", "ab/cd+ef==", "p#w", "p?w", "100%25", "a%2Fb", "a b", "ü@:"])
@pytest.mark.parametrize("sentinels", ["", "s-0:26379"])
def test_a_password_of_its_own_is_taken_as_it_is_and_wins_over_the_urls(
    monkeypatch: pytest.MonkeyPatch, password: str, sentinels: str
) -> None:
    monkeypatch.setenv("GOQUEUE_REDIS_URL", "redis://old:former@host/0")
    monkeypatch.setenv("GOQUEUE_REDIS_USERNAME", "jobs")
    monkeypatch.setenv("GOQUEUE_REDIS_PASSWORD", password)
    monkeypatch.setenv("GOQUEUE_REDIS_SENTINEL_HOSTS", sentinels)
    given = connect(settings.load(RedisSettings)).connection_pool.connection_kwargs
    assert (given["username"], given["password"]) == ("jobs", password)
    assert password not in repr(settings.load(RedisSettings))


def test_sentinels_are_named_by_host_with_or_without_a_port_and_ipv6_in_brackets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GOQUEUE_REDIS_SENTINEL_HOSTS", "s-0:26380, s-1, [::1]:26379, [2001:db8::10]")
    chosen = settings.load(RedisSettings)
    addresses = [("s-0", 26380), ("s-1", 26379), ("::1", 26379), ("2001:db8::10", 26379)]
    assert chosen.sentinels == addresses
    pools = [one.connection_pool for one in connect(chosen).connection_pool.sentinel_manager.sentinels]
    assert [(pool.connection_kwargs["host"], pool.connection_kwargs["port"]) for pool in pools] == addresses


def test_a_cluster_and_sentinels_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOQUEUE_REDIS_SENTINEL_HOSTS", "s-0")
    monkeypatch.setenv("GOQUEUE_REDIS_CLUSTER", "true")
    with pytest.raises(SettingsError, match="cannot both be set"):
        settings.load(RedisSettings)
