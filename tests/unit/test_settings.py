"""Settings: right from the environment, or one line that names the wrong one and hides its value."""

import pytest

from goqueue import settings
from goqueue.errors import SettingsError
from goqueue.settings import (
    GROUPS,
    ApiSettings,
    DatabaseSettings,
    EngineSettings,
    OidcSettings,
    PostgresSettings,
    RedisSettings,
    WebhookSettings,
    WorkerSettings,
)


def test_the_go_projects_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_HOST", "db.example")
    monkeypatch.setenv("POSTGRES_PORT", "6543")
    monkeypatch.setenv("DB_RETRY_DELAY", "500ms")
    monkeypatch.setenv("DB_MAX_RETRIES", "3")
    assert (settings.load(PostgresSettings).host, settings.load(PostgresSettings).port) == ("db.example", 6543)
    assert (settings.load(DatabaseSettings).retry_delay, settings.load(DatabaseSettings).max_retries) == (0.5, 3)


@pytest.mark.parametrize(
    ("group", "variable", "value"),
    [
        (PostgresSettings, "POSTGRES_PORT", "sevenhundred"),
        (DatabaseSettings, "DB_RETRY_DELAY", "2 parsecs"),
        (DatabaseSettings, "DB_LOG_LEVEL", "loud"),
        (RedisSettings, "GOQUEUE_REDIS_URL", "redis:6379"),
        (RedisSettings, "GOQUEUE_REDIS_URL", "http://redis"),
        (RedisSettings, "GOQUEUE_REDIS_URL", "redis://:hunter2@redis:many"),
        (RedisSettings, "GOQUEUE_REDIS_URL", "redis://[::1"),
        (EngineSettings, "GOQUEUE_QUEUES", "UPPER"),
        (EngineSettings, "GOQUEUE_LEASE_SECONDS", "-1"),
        (WorkerSettings, "GOQUEUE_WORKER_CONCURRENCY", "0"),
        (ApiSettings, "GOQUEUE_API_RATE_LIMIT", "1000"),
        (ApiSettings, "GOQUEUE_API_RATE_LIMIT", "0/second"),
        (ApiSettings, "GOQUEUE_API_ADDRESS_RATE_LIMIT", "10/fortnight"),
        (OidcSettings, "GOQUEUE_OIDC_ISSUER", "http://login.example.org"),
        (OidcSettings, "GOQUEUE_OIDC_ISSUER", "file:///etc/passwd"),
        (OidcSettings, "GOQUEUE_OIDC_JWKS_URL", "http://127.0.0.1.evil.example/keys"),
        (OidcSettings, "GOQUEUE_OIDC_ALGORITHMS", "RS256,HS256"),
        (OidcSettings, "GOQUEUE_OIDC_ALGORITHMS", "none"),
        (ApiSettings, "GOQUEUE_API_CORS_ORIGINS", "*"),
        (ApiSettings, "GOQUEUE_API_CORS_ORIGINS", "https://app.example.org/"),
        (ApiSettings, "GOQUEUE_API_CORS_ORIGINS", "https://user@app.example.org"),
        (ApiSettings, "GOQUEUE_API_TRUSTED_PROXIES", "*"),
        (ApiSettings, "GOQUEUE_API_TRUSTED_PROXIES", "10.0.0.1/8"),
    ],
)
def test_a_wrong_value_is_named_in_one_line_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, group: type, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        settings.load(group)
    assert variable in caught.value.message
    assert "\n" not in caught.value.message
    assert "hunter2" not in caught.value.message


def test_a_lease_too_short_for_its_heartbeats_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOQUEUE_LEASE_SECONDS", "5")
    with pytest.raises(SettingsError, match="GOQUEUE_LEASE_SECONDS must be at least 3"):
        settings.load(EngineSettings)


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD", "hunter2")
    monkeypatch.setenv("GOQUEUE_WEBHOOK_SECRETS", "whsec_one,whsec_two")
    assert "hunter2" not in repr(settings.load(PostgresSettings))
    assert "whsec_" not in repr(settings.load(WebhookSettings))
    assert len(settings.load(WebhookSettings).secrets) == 2


def test_queues_get_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOQUEUE_WORKER_QUEUES", "email:3, default")
    assert settings.load(WorkerSettings).weights(["default", "email"]) == {"email": 3, "default": 1}
    assert WorkerSettings().weights(["default", "email"])


@pytest.mark.parametrize("value", ["nope", "email:0", "email:x", "email:1001"])
def test_a_wrong_weight_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("GOQUEUE_WORKER_QUEUES", value)
    with pytest.raises(SettingsError, match="GOQUEUE_WORKER_QUEUES"):
        settings.load(WorkerSettings).weights(["default", "email"])


def test_every_setting_has_a_description() -> None:
    assert not [
        f"{group.__name__}.{name}"
        for group in GROUPS
        for name, field in group.model_fields.items()
        if not field.description
    ]


def test_an_issuer_of_tokens_needs_an_audience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOQUEUE_OIDC_ISSUER", "https://login.example.org")
    with pytest.raises(SettingsError, match="GOQUEUE_OIDC_AUDIENCE must be set"):
        settings.load(OidcSettings)
    monkeypatch.setenv("GOQUEUE_OIDC_AUDIENCE", "goqueue")
    assert settings.load(OidcSettings).audience == "goqueue"
