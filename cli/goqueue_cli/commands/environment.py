"""Which PostgreSQL and Redis a command talks to: those of the environment, or else those of a running `goqueue dev`."""

import os

from goqueue import development
from goqueue_cli.dev.surroundings import forget_stores


def adopt() -> None:
    """Put the values of a running `goqueue dev` into this process's environment, where that names no POSTGRES_*.

    Its stores go together, so what the environment says of Redis, and of how libpq connects, goes.

    Raises:
        SettingsError: its file cannot be read or trusted.
    """
    if found := development.values():
        forget_stores(os.environ)
        os.environ.update(found)
