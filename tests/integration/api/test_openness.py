"""Whether an API that others reach starts, on a real PostgreSQL."""

import pytest

from goqueue.errors import SettingsError
from goqueue.settings import ApiSettings, OidcSettings
from goqueue_api.openness import is_open, refuse_without_keys
from tests.integration.engine import Engine


async def test_an_issuer_of_tokens_lets_an_api_without_keys_start_and_closes_it(engine: Engine) -> None:
    reached = ApiSettings(host="0.0.0.0")
    issuer = OidcSettings(issuer="https://issuer.example.org", audience="goqueue")
    async with engine.service.database.connection() as connection:
        with pytest.raises(SettingsError, match="GOQUEUE_OIDC_ISSUER"):
            await refuse_without_keys(reached, OidcSettings(), connection)
        await refuse_without_keys(reached, issuer, connection)
        assert not await is_open(reached, issuer, connection)
        assert not await is_open(ApiSettings(host="127.0.0.1"), issuer, connection)
        assert await is_open(ApiSettings(host="127.0.0.1"), OidcSettings(), connection)
