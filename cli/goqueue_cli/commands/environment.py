"""Which PostgreSQL and Redis a command talks to: those of the environment, or else those of a running `goqueue dev`."""

import os

from goqueue import development


def adopt() -> None:
    """Put the values of a running `goqueue dev` into this process's environment, where that names no POSTGRES_*.

    Raises:
        SettingsError: its file cannot be read or trusted.
    """
    os.environ.update(development.values())
