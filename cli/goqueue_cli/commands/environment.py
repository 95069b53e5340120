"""Which PostgreSQL and Redis a command talks to: those of the environment, or else those of a running `goqueue dev`."""

import os
import sys

from goqueue import development
from goqueue_cli.dev.surroundings import forget_stores


def adopt() -> None:
    """Put the values of a running `goqueue dev` into this process's environment, where that names no POSTGRES_*.

    Its stores go together, so what the environment says of Redis, and of how libpq connects, goes.
    The modules of its GOQUEUE_JOBS may lie where it was started, which Python searches there, but not for a command.

    Raises:
        SettingsError: its file cannot be read or trusted.
    """
    folder, values = development.find()
    if values:
        forget_stores(os.environ)
        os.environ.update(values)
    if folder is not None:
        sys.path += [*filter(None, values.get("PYTHONPATH", "").split(os.pathsep)), str(folder.absolute().parent)]
