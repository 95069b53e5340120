"""Which zone data are in force: the package's, whatever the system has and whatever others have read before."""

import ast
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tzdata  # type: ignore[import-untyped]

from goqueue import zonedata
from tests import zonefiles

CHECKOUT = Path(__file__).resolve().parents[2]
JANUARY = datetime(2027, 1, 15, 12, tzinfo=UTC)
ODD = timedelta(hours=5, minutes=17)


@pytest.fixture(autouse=True)
def nothing_read() -> Iterator[None]:
    zonedata.zone.cache_clear()
    yield
    zonedata.zone.cache_clear()


def offset(name: str) -> timedelta | None:
    return JANUARY.astimezone(zonedata.zone(name)).utcoffset()


def test_an_older_system_does_not_hide_the_package_even_where_others_have_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(zonedata.PATH_VARIABLE, raising=False)
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath([zonefiles.write(tmp_path, "Europe/Berlin", ODD)])
    zoneinfo.ZoneInfo.clear_cache()
    try:
        assert JANUARY.astimezone(zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset() == ODD  # what user code sees
        assert offset("Europe/Berlin") == timedelta(hours=1)
    finally:
        zoneinfo.reset_tzpath(before)
        zoneinfo.ZoneInfo.clear_cache()
    assert zonedata.release() == f"{tzdata.IANA_VERSION} (package tzdata {tzdata.__version__})"


def test_folders_that_are_asked_for_come_first_and_their_release_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dated = zonefiles.write(tmp_path / "dated", "Europe/Berlin", ODD, release="2031c")
    plain = zonefiles.write(tmp_path / "plain", "Test/Town", -ODD)
    monkeypatch.setenv(zonedata.PATH_VARIABLE, f"{dated}:relative:{plain}")
    assert (offset("Europe/Berlin"), offset("Test/Town"), offset("Asia/Kolkata")) == (
        ODD,
        -ODD,
        timedelta(hours=5, minutes=30),
    )
    assert zonedata.release().startswith(f"2031c ({dated}), then unknown release ({plain}), then {tzdata.IANA_VERSION}")


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "/etc/passwd", "Europe", "Europe/", "./UTC", "zone.tab", "x" * 5000, "\0", "\ud800"]
)
@pytest.mark.parametrize("folders", ["", "/usr/share/zoneinfo"])
def test_what_is_no_zone_is_not_found(name: str, folders: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(zonedata.PATH_VARIABLE, folders)
    with pytest.raises(KeyError):
        zonedata.zone(name)


def test_no_other_module_of_the_product_reads_zones() -> None:
    parts = ["api", "cli", "goqueue", "migrations", "operator", "scheduler", "worker"]
    reading = set()
    for path in (path for part in parts for path in (CHECKOUT / part).rglob("*.py")):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        if "ZoneInfo" in names:
            reading.add(path.relative_to(CHECKOUT).as_posix())
    assert reading == {"goqueue/cron.py", "goqueue/zonedata.py"}  # cron only names it as a type
