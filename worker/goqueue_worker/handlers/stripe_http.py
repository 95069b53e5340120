"""Stripe's HTTP client, with one more try where a connection ended without an answer.

Each request may arrive twice: Stripe's library gives every POST an idempotency key. So a kept connection that Stripe
closed just now costs no attempt, and fewer charges end with an outcome that is not known. A time-out is not repeated:
it may take as long once more.
"""

from collections.abc import Mapping
from typing import Any, Final

import httpx
import stripe

LOST: Final = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)


class RepeatingClient(stripe.HTTPXClient):
    """httpx, as Stripe's library uses it."""

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """As the library's, but for the second try."""
        try:
            return await super().request_async(method, url, headers, post_data)
        except stripe.APIConnectionError as error:
            if not isinstance(error.__cause__, LOST):
                raise
        return await super().request_async(method, url, headers, post_data)
