"""What a first start says where the database is not as it must be: one line with the cause, and no traceback."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from goqueue_cli.embedded import EmbeddedPostgres
from tests.servers.process import GOQUEUE
from tests.servers.stores import FreshDatabase, FreshRedis, fresh_database

ROLE = "guest"
PASSWORD = "wr0ng-pony"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL whose pg_hba.conf and roles this module may change."""
    folder = Path(os.path.realpath("/tmp")) / f"goqueue-first-start-{os.getpid()}"
    with EmbeddedPostgres(folder, ephemeral=True) as server:
        with psycopg.connect(server.dsn, autocommit=True) as admin:
            for name, limit in ((ROLE, -1), ("crowded", 0), ("shut", -1), ("reader", -1)):
                admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT {limit}".encode())
            admin.execute("ALTER ROLE reader SET default_transaction_read_only = on")
            lines = "host all shut 127.0.0.1/32 reject|host all all 127.0.0.1/32 scram-sha-256"
            place = admin.execute("SHOW hba_file").fetchone()
            assert place is not None
            content = f"SELECT unnest(string_to_array('{lines}', '|'))"
            admin.execute(f"COPY ({content}) TO '{place[0]}'".encode())
            admin.execute("SELECT pg_reload_conf()")
        yield server


@pytest.fixture(scope="module")
def migrated(server: EmbeddedPostgres) -> Iterator[FreshDatabase]:
    with fresh_database(server) as database:
        yield database


CASES: dict[str, tuple[str, dict[str, str], str]] = {
    "password": ("worker", {"POSTGRES_PASSWORD": PASSWORD}, "password authentication failed"),
    "no database": ("scheduler", {"POSTGRES_DB": "nowhere"}, 'database "nowhere" does not exist'),
    "TLS": ("api", {"POSTGRES_SSLMODE": "require"}, "POSTGRES_SSLMODE=disable"),
    "rejected": ("worker", {"POSTGRES_USER": "shut", "POSTGRES_PASSWORD": PASSWORD}, "pg_hba.conf"),
    "crowded": ("migrate", {"POSTGRES_USER": "crowded", "POSTGRES_PASSWORD": PASSWORD}, "CONNECTION LIMIT"),
    "read-only": ("scheduler", {"POSTGRES_USER": "reader", "POSTGRES_PASSWORD": PASSWORD}, "takes writes"),
    "no rights": ("worker", {"POSTGRES_USER": ROLE, "POSTGRES_PASSWORD": PASSWORD}, "goqueue migrate --grant-to"),
    "host": ("worker", {"POSTGRES_HOST": "a..b"}, "POSTGRES_"),
    "console": ("queues list", {"POSTGRES_PASSWORD": PASSWORD}, "password authentication failed"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_process_that_cannot_use_its_database_ends_with_one_line(
    case: str, migrated: FreshDatabase, ready_queues: FreshRedis
) -> None:
    part, wrong, told = CASES[case]
    environment = {
        "PATH": "/usr/bin:/bin",
        **migrated.environment,
        **ready_queues.environment,
        "DB_MAX_RETRIES": "0",
        "GOQUEUE_API_AUTH": "off",
        **wrong,
    }
    done = subprocess.run([GOQUEUE, *part.split()], env=environment, capture_output=True, text=True, timeout=55)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, done.stderr
    assert told in lines[0]
    assert "Traceback" not in done.stdout + done.stderr
    assert PASSWORD not in done.stdout + done.stderr
