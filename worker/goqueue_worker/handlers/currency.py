"""From a currency's own unit to the whole number that Stripe takes. Pure.

Stripe counts in a currency's smallest unit, with its own list of which that is (docs.stripe.com/currencies): some
have none; some have three decimals of which the last must be 0; ISK and UGX lost their decimals, but are still sent
times 100.
"""

from decimal import Decimal
from typing import Final

ZERO_DECIMAL: Final = frozenset(
    {"bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"}
)
THREE_DECIMAL: Final = frozenset({"bhd", "jod", "kwd", "omr", "tnd"})
WHOLE_TIMES_HUNDRED: Final = frozenset({"isk", "ugx"})

LARGEST: Final = 999_999_999_999
"""Stripe's twelve digits; a float holds all such amounts exactly enough to print them back."""


def decimals(currency: str) -> int:
    """How many decimals an amount in this currency may have."""
    code = currency.lower()
    if code in ZERO_DECIMAL or code in WHOLE_TIMES_HUNDRED:
        return 0
    return 3 if code in THREE_DECIMAL else 2


def stripe_amount(amount: float, currency: str) -> int:
    """The amount as Stripe takes it: 12.5 USD is 1250, 500 JPY is 500, 5 UGX is 500, 1.23 KWD is 1230.

    Raises:
        ValueError: the amount is not positive, has more decimals than the currency, or more digits than Stripe takes.
    """
    code = currency.lower()
    exact = Decimal(repr(amount))  # the shortest decimal that reads as this float: what the caller wrote
    places = decimals(code)
    scaled = exact.scaleb(places)
    if not exact.is_finite() or exact <= 0:
        raise ValueError("the amount must be positive")
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{exact} {code.upper()} has more decimals than the currency ({places})")
    whole = int(scaled)
    if code in THREE_DECIMAL and whole % 10:
        raise ValueError(f"Stripe takes {code.upper()} only with a third decimal of 0, not {exact}")
    if code in WHOLE_TIMES_HUNDRED:
        whole *= 100
    if whole > LARGEST:
        raise ValueError(f"{exact} {code.upper()} is more than Stripe takes")
    return whole
