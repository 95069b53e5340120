from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goqueue_worker.handlers.currency import LARGEST, THREE_DECIMAL, WHOLE_TIMES_HUNDRED, ZERO_DECIMAL, stripe_amount

TWO_DECIMAL = ["usd", "EUR", "inr", "huf", "twd"]


@pytest.mark.parametrize(
    ("amount", "currency", "sent"),
    [
        (12.5, "USD", 1250),
        (0.01, "usd", 1),
        (19.99, "eur", 1999),
        (1.1, "usd", 110),
        (4.35, "usd", 435),
        (1.005e3, "usd", 100500),
        (500, "JPY", 500),
        (500.0, "krw", 500),
        (5, "ugx", 500),
        (5, "ISK", 500),
        (5, "mga", 5),
        (1.23, "kwd", 1230),
        (5, "BHD", 5000),
        (10.45, "huf", 1045),
        (800.45, "twd", 80045),
        (9_999_999_999.99, "idr", LARGEST),
    ],
)
def test_stripe_gets_the_smallest_unit(amount: float, currency: str, sent: int) -> None:
    assert stripe_amount(amount, currency) == sent


@pytest.mark.parametrize(
    ("amount", "currency"),
    [
        (0.001, "usd"),
        (12.345, "eur"),
        (0.1 + 0.2, "usd"),
        (1.5, "jpy"),
        (5.5, "ugx"),
        (5.01, "isk"),
        (1.2345, "kwd"),
        (5.124, "kwd"),
        (1e-300, "usd"),
        (1e20, "usd"),
        (1e308, "jpy"),
        (0.0, "usd"),
        (-1.0, "usd"),
        (float("inf"), "usd"),
        (float("nan"), "usd"),
    ],
)
def test_an_amount_that_the_currency_cannot_have_is_refused(amount: float, currency: str) -> None:
    with pytest.raises(ValueError, match=r"amount|decimal|Stripe"):
        stripe_amount(amount, currency)


@given(st.integers(1, LARGEST), st.sampled_from(TWO_DECIMAL))
def test_every_amount_with_two_decimals_arrives_exactly(cents: int, currency: str) -> None:
    assert stripe_amount(float(Decimal(cents) / 100), currency) == cents


@given(st.integers(1, LARGEST), st.sampled_from(sorted(ZERO_DECIMAL)))
def test_every_whole_amount_of_a_currency_without_decimals_arrives_unchanged(units: int, currency: str) -> None:
    assert stripe_amount(float(units), currency) == units


@given(st.integers(1, LARGEST // 10), st.sampled_from(sorted(THREE_DECIMAL)))
def test_every_amount_with_three_decimals_ends_in_zero(hundredths: int, currency: str) -> None:
    assert stripe_amount(float(Decimal(hundredths) / 100), currency) == hundredths * 10


@given(st.integers(1, LARGEST // 100), st.sampled_from(sorted(WHOLE_TIMES_HUNDRED)))
def test_currencies_that_lost_their_decimals_are_sent_times_a_hundred(units: int, currency: str) -> None:
    assert stripe_amount(float(units), currency) == units * 100


@given(st.floats(allow_nan=True, allow_infinity=True), st.from_regex(r"[A-Za-z]{3}", fullmatch=True))
def test_any_float_gives_a_positive_whole_number_or_a_refusal(amount: float, currency: str) -> None:
    try:
        sent = stripe_amount(amount, currency)
    except ValueError:
        return
    assert 0 < sent <= LARGEST
