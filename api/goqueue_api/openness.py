"""Whether the API may be used without credentials."""

import ipaddress

from goqueue.errors import SettingsError
from goqueue.settings import ApiSettings, OidcSettings
from goqueue.store import keys
from goqueue.store.connect import Connection


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def is_open(api: ApiSettings, oidc: OidcSettings | None, connection: Connection) -> bool:
    """Whether requests need no credentials. A key that was made once closes the API for good, revoked or not, and so
    does an issuer of tokens."""
    if api.auth == "auto":
        return not (oidc and oidc.issuer) and is_loopback(api.host) and not await keys.exist(connection)
    return api.auth == "off"


async def refuse_without_keys(api: ApiSettings, oidc: OidcSettings, connection: Connection) -> None:
    """See that an API that others reach has somebody to let in.

    Raises:
        SettingsError: it has nobody, and nothing says that this is meant.
    """
    if api.auth != "auto" or oidc.issuer or is_loopback(api.host):
        return
    if not await keys.exist(connection):
        raise SettingsError(
            f"GOQUEUE_API_HOST is {api.host}, and there is no API key: make one (`goqueue keys create`), name one in "
            "GOQUEUE_API_BOOTSTRAP_KEY or an issuer of tokens in GOQUEUE_OIDC_ISSUER, or let everybody in by "
            "GOQUEUE_API_AUTH=off"
        )
