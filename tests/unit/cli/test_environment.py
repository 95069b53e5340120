"""Whose stores a command uses: those that the environment names, or those of `goqueue dev`, never a mixture."""

import os
import sys
from pathlib import Path

import pytest

from goqueue.errors import SettingsError
from goqueue_cli.commands import environment


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a running `goqueue dev` leaves, in an environment that names no store."""
    for name in os.environ:
        if name.upper().startswith(("POSTGRES_", "GOQUEUE_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(sys, "path", sys.path.copy())
    os.environ["GOQUEUE_DEV_DIR"] = str(tmp_path)
    path = tmp_path / "environment"
    path.touch(0o600)
    path.write_text("POSTGRES_PORT=6543\nPOSTGRES_PASSWORD=a=b # c\nGOQUEUE_REDIS_URL=redis://dev\n")
    return path


def test_the_file_is_used_where_the_environment_names_no_database(file: Path) -> None:
    environment.adopt()
    assert os.environ["POSTGRES_PORT"] == "6543"
    assert os.environ["POSTGRES_PASSWORD"] == "a=b # c"


def test_its_redis_goes_with_its_database(file: Path) -> None:
    os.environ["GOQUEUE_REDIS_URL"] = "redis://elsewhere"
    environment.adopt()
    assert os.environ["GOQUEUE_REDIS_URL"] == "redis://dev"


@pytest.mark.parametrize("name", ["POSTGRES_HOST", "postgres_db"])
def test_one_variable_of_postgres_is_enough_to_leave_it_alone(file: Path, name: str) -> None:
    os.environ[name] = "mine"
    before = dict(os.environ)
    environment.adopt()
    assert dict(os.environ) == before


def test_what_the_environment_says_of_queues_and_types_stays(file: Path) -> None:
    file.write_text("POSTGRES_PORT=6543\nGOQUEUE_QUEUES=theirs\nGOQUEUE_JOBS=theirs\n")
    os.environ["GOQUEUE_QUEUES"] = "mine"
    environment.adopt()
    assert (os.environ["GOQUEUE_QUEUES"], os.environ["GOQUEUE_JOBS"]) == ("mine", "theirs")


def test_the_file_is_found_from_a_folder_below_and_what_others_left_there_is_passed_over(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del os.environ["GOQUEUE_DEV_DIR"]
    below = file.parent / "a" / "b"
    below.mkdir(parents=True)
    (file.parent / ".goqueue").mkdir()
    file.rename(file.parent / ".goqueue" / "environment")
    foreign = file.parent / "a" / ".goqueue" / "environment"
    foreign.parent.mkdir()
    foreign.write_text("POSTGRES_PORT=1\n")
    foreign.chmod(0o602)
    monkeypatch.chdir(below)
    environment.adopt()
    assert os.environ["POSTGRES_PORT"] == "6543"
    assert sys.path[-1] == str(file.parent)


def test_without_a_file_the_environment_stays(file: Path) -> None:
    file.unlink()
    before = dict(os.environ)
    environment.adopt()
    assert dict(os.environ) == before


def test_the_file_is_looked_for_in_the_current_folder_unless_a_setting_names_another(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del os.environ["GOQUEUE_DEV_DIR"]
    monkeypatch.chdir(file.parent)
    environment.adopt()
    assert "POSTGRES_PORT" not in os.environ
    Path(".goqueue").mkdir()
    file.rename(".goqueue/environment")
    environment.adopt()
    assert os.environ["POSTGRES_PORT"] == "6543"


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_may_write_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(SettingsError, match="must be your own, and writable by nobody else"):
        environment.adopt()
    assert "POSTGRES_PORT" not in os.environ


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(file: Path) -> None:
    os.chown(file, 65534, -1)
    with pytest.raises(SettingsError, match="must be your own"):
        environment.adopt()


@pytest.mark.parametrize("text", ["POSTGRES_PORT=1\nswordfish\n", "=swordfish\n", "a b=swordfish\n", "\x00=swordfish"])
def test_a_line_of_another_kind_is_named_and_not_shown(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"line \d is not KEY=VALUE") as caught:
        environment.adopt()
    assert "swordfish" not in caught.value.message
    assert "POSTGRES_PORT" not in os.environ


def test_a_folder_in_its_place_is_told_in_one_line(file: Path) -> None:
    file.unlink()
    file.mkdir()
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        environment.adopt()
