"""docs/settings.md is what the code says."""

from pathlib import Path

import pytest

from goqueue.settings import GROUPS
from goqueue_cli.commands.settings import page, settings_of

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "run `make docs`"


def test_every_setting_stands_on_the_page() -> None:
    for group in GROUPS:
        for name in group.model_fields:
            assert f"| `{group.model_config['env_prefix']}{name.upper()}` |" in page()


def test_values_and_defaults_are_as_one_would_write_them() -> None:
    found = {setting.variable: setting for group in GROUPS for setting in settings_of(group)}
    assert found["DB_RETRY_DELAY"].values == "time span"
    assert found["POSTGRES_PORT"].row[1:3] == ("whole number from 1 to 65535", "5432")
    assert found["DB_MAX_RETRIES"].row[1:3] == ("whole number from 0", "10")
    assert found["DB_PGBOUNCER"].row[1:3] == ("true, false", "false")
    assert found["GOQUEUE_OIDC_ALGORITHMS"].row[1:3] == ("list", "RS256,ES256")
    assert found["GOQUEUE_QUEUES"].row[1:3] == ("list", "")
    assert found["POSTGRES_SSLROOTCERT"].row[1:3] == ("path", "")
    assert found["POSTGRES_PASSWORD"].row[1:3] == ("secret", "")


def test_every_default_is_accepted_and_means_the_same_when_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for group in GROUPS:
        usual = group()
        for setting in settings_of(group):
            if setting.default:
                monkeypatch.setenv(setting.variable, setting.default)
        assert group() == usual
