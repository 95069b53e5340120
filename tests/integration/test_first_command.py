"""The README's first command does what it says in a folder that no other user may enter, as a home often is."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from goqueue_cli.embedded import free_port
from tests.servers.process import Process

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(900)  # it installs all locked packages, which a new machine has to fetch
def test_make_run_completes_jobs_in_a_checkout_that_only_its_user_may_enter(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    checkout = home / "goqueue"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, check=True, capture_output=True, text=True)
    for name in filter(None, tracked.stdout.split("\0")):
        if (CHECKOUT / name).is_file():  # not one that is deleted and not committed yet
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, checkout / name)
    environment = {
        "GOQUEUE_API_PORT": str(free_port()),
        "MAKEFLAGS": "",
        "MFLAGS": "",
    }
    with Process(["make", "run"], log=tmp_path / "output", environment=environment, cwd=checkout) as run:
        output = _output_until(run, "Ctrl-C stops")
        assert output.count(": completed") == 3, output
        os.killpg(run.pid, signal.SIGINT)  # as a terminal's Ctrl-C: to make and all below it
        run.wait(60)
        assert "stopped; the jobs are kept" in run.log.read_text()
    assert not home.stat().st_mode & 0o077


def _output_until(run: Process, sign: str) -> str:
    """All that the command has printed once the sign is in it, or once it has ended."""
    while sign not in (output := run.log.read_text()) and run.returncode is None:
        time.sleep(0.1)  # a file has no signal for a new line; the test's limit ends it
    return output
