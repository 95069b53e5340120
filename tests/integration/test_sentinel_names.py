"""By which name the Sentinels tell the master after a failover: its certificate must have it (docs/security.md)."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from goqueue_cli.embedded import EmbeddedValkey
from tests.integration.engine import eventually
from tests.servers.sentinel import MASTER, run_sentinel

HOST = "localhost"
RESOLVED = ("sentinel resolve-hostnames yes", "sentinel announce-hostnames yes")


@contextlib.contextmanager
def replica_of(master: EmbeddedValkey, folder: Path, *, named: bool) -> Iterator[EmbeddedValkey]:
    """A replica with its master's password, which says `localhost` of itself, or nothing."""
    folder.mkdir()
    (folder / "password").touch(0o600)
    (folder / "password").write_text(master.password)
    settings = {"replica-announce-ip": HOST} if named else {}
    with EmbeddedValkey(folder, ephemeral=True, settings=settings) as replica:
        with redis.Redis.from_url(replica.url) as client:
            client.config_set("masterauth", master.password)
            client.replicaof(HOST, str(master.port))
        yield replica


@pytest.mark.parametrize(
    ("monitored", "settings", "named", "expected"),
    [
        ("127.0.0.1", (), False, ("127.0.0.1", "127.0.0.1")),
        (HOST, RESOLVED, False, (HOST, "127.0.0.1")),
        (HOST, RESOLVED, True, (HOST, HOST)),
    ],
)
async def test_after_a_failover_the_master_has_a_name_only_if_it_announced_one(
    own_valkey: EmbeddedValkey,
    tmp_path: Path,
    monitored: str,
    settings: tuple[str, ...],
    named: bool,
    expected: tuple[str, str],
) -> None:
    with (
        replica_of(own_valkey, tmp_path / "replica", named=named) as replica,
        run_sentinel(tmp_path, own_valkey, *settings, host=monitored) as port,
        redis.Redis(port=port, decode_responses=True) as sentinel,
    ):

        def master() -> list[str]:
            return list(sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER))

        async def may_fail_over() -> bool:
            try:
                return bool(sentinel.execute_command("SENTINEL", "FAILOVER", MASTER))
            except redis.ResponseError:  # no good replica yet
                return False

        async def failed_over() -> bool:
            return master()[1] == str(replica.port)

        before = master()
        assert before[1] == str(own_valkey.port)
        await eventually(may_fail_over, 40)
        await eventually(failed_over, 40)
        assert (before[0], master()[0]) == expected
