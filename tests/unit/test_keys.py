"""Keys and reach: what opens a key, and what it covers."""

from datetime import UTC, datetime, timedelta

import pytest

from goqueue.access import Reach, Scope
from goqueue.keys import NO_KEY, ApiKey, Token

NOW = datetime(2030, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=1)
EARLIER = NOW - timedelta(seconds=1)
TOKEN, FORMER, OTHER = (Token.new("0123456789ab") for _ in range(3))


def key(**more: object) -> ApiKey:
    return ApiKey("0123456789ab", "ci", TOKEN.digest, frozenset({Scope.JOBS_READ}), Reach(), **more)  # type: ignore[arg-type]


def test_a_token_survives_being_written_and_read_and_shows_its_secret_in_no_repr() -> None:
    assert Token.read(TOKEN.text) == TOKEN
    assert TOKEN.secret not in repr(TOKEN)
    assert len({Token.new().text for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "text",
    ["", "gq_", "gq_0123456789ab_", TOKEN.text + "x", TOKEN.text[:-1], TOKEN.text.upper(), " " + TOKEN.text, "x.y.z"],
)
def test_anything_else_is_no_token(text: str) -> None:
    assert Token.read(text) is None


@pytest.mark.parametrize(
    ("there", "token", "opens"),
    [
        (key(), TOKEN, True),
        (key(), OTHER, False),
        (key(revoked_at=EARLIER), TOKEN, False),
        (key(expires_at=LATER), TOKEN, True),
        (key(expires_at=NOW), TOKEN, False),
        (key(former_digest=FORMER.digest, former_until=LATER), FORMER, True),
        (key(former_digest=FORMER.digest, former_until=LATER), TOKEN, True),
        (key(former_digest=FORMER.digest, former_until=NOW), FORMER, False),
        (key(former_digest=FORMER.digest, former_until=LATER, revoked_at=EARLIER), FORMER, False),
        (key(former_digest=FORMER.digest, former_until=LATER, expires_at=EARLIER), FORMER, False),
        (NO_KEY, TOKEN, False),
    ],
)
def test_a_key_opens_for_its_secret_while_it_is_good(there: ApiKey, token: Token, opens: bool) -> None:
    assert there.opened_by(token.digest, NOW) is opens


@pytest.mark.parametrize(
    ("reach", "job", "covered"),
    [
        (Reach(), (None, "email", "send_email"), True),
        (Reach(), ("acme", "email", "send_email"), False),
        (Reach("acme"), ("acme", "email", "send_email"), True),
        (Reach("acme"), (None, "email", "send_email"), False),
        (Reach("acme"), ("other", "email", "send_email"), False),
        (Reach("acme", frozenset({"email"})), ("acme", "email", "send_email"), True),
        (Reach("acme", frozenset({"email"})), ("acme", "payment", "send_email"), False),
        (Reach("acme", None, frozenset({"send_email"})), ("acme", "payment", "send_email"), True),
        (Reach("acme", None, frozenset({"send_email"})), ("acme", "email", "send_webhook"), False),
    ],
)
def test_a_reach_covers_the_jobs_of_its_tenant_queues_and_types(
    reach: Reach, job: tuple[str | None, str, str], covered: bool
) -> None:
    assert reach.covers(*job) is covered


@pytest.mark.parametrize(
    ("wide", "narrow", "included"),
    [
        (Reach(), Reach(), True),
        (Reach(), Reach("acme"), False),
        (Reach(), Reach(None, frozenset({"a"})), True),
        (Reach(None, frozenset({"a"})), Reach(), False),
        (Reach(None, frozenset({"a", "b"})), Reach(None, frozenset({"a"})), True),
        (Reach(None, frozenset({"a"})), Reach(None, frozenset({"a", "b"})), False),
        (Reach(None, None, frozenset({"t"})), Reach(None, frozenset({"a"})), False),
    ],
)
def test_a_reach_includes_only_what_it_covers_wholly(wide: Reach, narrow: Reach, included: bool) -> None:
    assert wide.includes(narrow) is included
