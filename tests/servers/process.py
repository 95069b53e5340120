"""Processes that a test starts. They end with the tests, however those end."""

import sys
from pathlib import Path

from goqueue_cli.child import Child as Process

GOQUEUE = str(Path(sys.executable).with_name("goqueue"))
"""The console command of the environment that the tests run in."""

__all__ = ["GOQUEUE", "Process"]
