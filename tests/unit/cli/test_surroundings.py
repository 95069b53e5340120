"""What of the environment does not reach the embedded stores of `goqueue dev`."""

from psycopg import pq

from goqueue.settings import DatabaseSettings, PostgresSettings
from goqueue.store.connect import dsn
from goqueue_cli.dev.surroundings import LIBPQ, NAMED, forget_stores


def test_each_variable_that_libpq_reads_is_removed_or_named_by_our_connection_strings() -> None:
    read = {option.envvar.decode(): option.keyword.decode() for option in pq.Conninfo.get_defaults() if option.envvar}
    assert set(read) <= LIBPQ | NAMED
    named = {option.keyword.decode() for option in pq.Conninfo.parse(_dsn().encode()) if option.val is not None}
    assert {read[variable] for variable in NAMED} <= named


def _dsn() -> str:
    return dsn(PostgresSettings(host="127.0.0.1", password="x", sslmode="disable"), DatabaseSettings())


def test_other_stores_are_forgotten_and_all_else_stays() -> None:
    environment = {
        "PGOPTIONS": "-c search_path=x",
        "PGSERVICE": "x",
        "POSTGRES_HOST": "x",
        "postgres_db": "x",
        "GOQUEUE_REDIS_SENTINEL_HOSTS": "x:1",
        "DB_PGBOUNCER": "true",
        "PGHOST": "of a handler",
        "DB_MAX_RETRIES": "3",
        "GOQUEUE_JOBS": "shop",
        "PATH": "/bin",
    }
    forget_stores(environment)
    assert set(environment) == {"PGHOST", "DB_MAX_RETRIES", "GOQUEUE_JOBS", "PATH"}
