"""API keys at work: what opens, what does not and in which way, how soon a revocation counts, what is kept."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from goqueue import key_management
from goqueue.access import Scope
from goqueue.key_management import Rotation
from goqueue.keys import Token
from tests.integration.api.serving import OWNER, app_on, new_key, serving
from tests.integration.engine import Engine, eventually

REFUSED = {"error": "unauthorized"}


def token_of(headers: dict[str, str]) -> Token:
    token = Token.read(headers["Authorization"].removeprefix("Bearer "))
    assert token is not None
    return token


def sent(token: Token) -> dict[str, str]:
    return {"Authorization": f"Bearer {token.text}"}


async def test_what_is_not_good_gets_one_answer_by_the_same_statements_whatever_is_wrong(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown prefix, wrong secret (of a key in use, too), revoked, expired: nobody learns which."""
    statements: list[Any] = []
    execute = psycopg.AsyncConnection.execute

    async def recording(self: Any, query: Any, *more: Any, **options: Any) -> Any:
        if "api_keys" in str(query):
            statements.append(query)
        return await execute(self, query, *more, **options)

    good = await new_key(engine)
    wrong = Token.new(token_of(good).prefix)
    revoked, expired = token_of(await new_key(engine)), token_of(await new_key(engine, expires_in=0.001))
    await key_management.revoke(engine.database, revoked.prefix, OWNER)
    bad = {"unknown": Token.new(), "wrong secret": wrong, "revoked": revoked, "expired": expired}
    answers: dict[str, tuple[int, Any, list[tuple[str, str]], list[Any]]] = {}
    async with serving(app_on(engine)) as client:
        monkeypatch.setattr(psycopg.AsyncConnection, "execute", recording)
        for turn in ("the key was not used yet", "the key is in use"):
            for name, token in bad.items():
                statements.clear()
                answer = await client.get("/queues", headers=sent(token))
                headers = [(key, value) for key, value in answer.headers.items() if key != "x-request-id"]
                answers[f"{name}, {turn}"] = answer.status_code, answer.json(), headers, list(statements)
            statements.clear()
            assert (await client.get("/queues", headers=good)).status_code == 200
        assert statements == []  # remembered by now
    first = next(iter(answers.values()))
    assert first[:2] == (401, REFUSED)
    assert len(first[3]) == 1
    assert ("www-authenticate", "Bearer") in first[2]
    assert [name for name, answer in answers.items() if answer != first] == []


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer x", "Basic Z3E6Z3E=", "Bearer gq_x_y", "gq_x_y"])
async def test_no_credential_or_none_of_ours_is_refused_in_the_same_words(engine: Engine, header: str | None) -> None:
    async with serving(app_on(engine)) as client:
        answer = await client.get("/jobs/1", headers={} if header is None else {"Authorization": header})
    assert (answer.status_code, answer.json()) == (401, REFUSED)


async def test_a_revocation_counts_within_the_time_of_the_cache(engine: Engine) -> None:
    headers = await new_key(engine)
    async with serving(app_on(engine, key_cache=1.0)) as client:
        assert (await client.get("/types", headers=headers)).status_code == 200
        await key_management.revoke(engine.database, token_of(headers).prefix, OWNER)
        revoked_at = let_in = time.monotonic()

        async def refused() -> bool:
            nonlocal let_in
            asked = time.monotonic()
            if (await client.get("/types", headers=headers)).status_code == 401:
                return True
            let_in = asked
            return False

        await eventually(refused)
    took = let_in - revoked_at  # the last time that it was asked and said yes: no busy machine makes that later
    print(f"last let in {took:.2f} s after the revocation, cache 1 s")
    assert took < 1.0


async def test_a_key_made_by_somebody_else_is_good_at_once(engine: Engine) -> None:
    token = Token.new()
    async with serving(app_on(engine)) as client:
        assert (await client.get("/types", headers=sent(token))).status_code == 401
        made = await new_key(engine)
        assert (await client.get("/types", headers=made)).status_code == 200


async def test_after_a_rotation_both_secrets_open_until_the_grace_ends(engine: Engine) -> None:
    headers = await new_key(engine)
    prefix = token_of(headers).prefix
    async with serving(app_on(engine, key_cache=0.1)) as client:
        _, second = await key_management.rotate(engine.database, prefix, Rotation(grace=3600), OWNER)
        for good in (headers, sent(second)):
            assert (await client.get("/types", headers=good)).status_code == 200
        await engine.execute("UPDATE api_keys SET former_until = now()")

        async def former_ended() -> bool:
            return (await client.get("/types", headers=headers)).status_code == 401

        await eventually(former_ended)
        assert (await client.get("/types", headers=sent(second))).status_code == 200
        _, third = await key_management.rotate(engine.database, prefix, Rotation(grace=0), OWNER)
        assert (await client.get("/types", headers=sent(third))).status_code == 200


async def test_only_the_digest_is_stored_and_the_last_use_is_noted(engine: Engine) -> None:
    headers = await new_key(engine)
    async with serving(app_on(engine)) as client:
        assert (await client.get("/types", headers=headers)).status_code == 200
    [row] = await engine.rows("SELECT to_jsonb(api_keys)::text, last_used_at FROM api_keys")
    assert token_of(headers).secret not in row[0]
    assert datetime.now(UTC) - row[1] < timedelta(minutes=1)


async def test_many_requests_that_want_the_same_key_ask_for_it_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from goqueue.store import keys

    asked: list[str] = []
    find = keys.find

    async def counting(connection: Any, prefix: str) -> Any:
        asked.append(prefix)
        return await find(connection, prefix)

    monkeypatch.setattr(keys, "find", counting)
    headers = await new_key(engine)
    async with serving(app_on(engine)) as client:
        answers = await asyncio.gather(*(client.get("/types", headers=headers) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(asked) == 1


async def test_keys_are_made_listed_rotated_and_revoked_by_the_api_and_each_is_written_down(engine: Engine) -> None:
    headers = await new_key(engine)
    wanted = {"name": "ci", "scopes": ["jobs:read"], "queues": ["email"], "expires_in": 60}
    async with serving(app_on(engine, key_cache=0.1)) as client:
        made = await client.post("/admin/keys", json=wanted, headers=headers)
        assert made.status_code == 201
        assert made.headers["cache-control"] == "no-store"
        body = made.json()
        mine = {"Authorization": f"Bearer {body['key']}"}
        assert (await client.get("/queues", headers=mine)).status_code == 200
        listed = (await client.get("/admin/keys", headers=headers)).json()
        assert [key["name"] for key in listed] == ["test", "ci"]
        assert body["key"] not in str(listed)
        url = f"/admin/keys/{body['prefix']}"
        rotated = await client.post(f"{url}/rotate", json={}, headers=headers)
        assert rotated.json()["key"] != body["key"]
        assert (await client.delete(url, headers=headers)).status_code == 204
        assert (await client.post(f"{url}/rotate", json={}, headers=headers)).status_code == 409
        audit = (await client.get("/admin/audit", headers={**headers, "X-Request-ID": "r"})).json()
    assert [(entry["action"], entry["object"]) for entry in audit[:3]] == [
        (action, body["prefix"]) for action in ("key.revoked", "key.rotated", "key.created")
    ]
    assert audit[0]["actor"] == f"key:{token_of(headers).prefix}"
    assert audit[0]["address"] == "192.0.2.7"
    assert body["key"] not in str(audit)


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        ({"scopes": ["keys:manage"]}, {"scopes": ["jobs:read"]}),
        ({"tenant": "acme"}, {"tenant": "other"}),
        ({"queues": ["email"]}, {"queues": ["email", "payment"]}),
        ({"queues": ["email"]}, {}),
        ({"types": ["send_email"]}, {"types": ["send_webhook"]}),
    ],
)
async def test_nobody_hands_out_more_than_they_have(
    engine: Engine, own: dict[str, Any], wanted: dict[str, Any]
) -> None:
    more = dict(own)
    headers = await new_key(engine, *more.pop("scopes", []), **more)
    async with serving(app_on(engine)) as client:
        answer = await client.post(
            "/admin/keys", json={"name": "more", "scopes": ["keys:manage"], **wanted}, headers=headers
        )
    assert answer.status_code == 403, answer.text
    assert await engine.rows("SELECT count(*) FROM api_keys") == [(1,)]


@pytest.mark.parametrize("act", ["revoke", "rotate"])
@pytest.mark.parametrize(
    ("own", "other", "status"),
    [
        ({"scopes": ["keys:manage"]}, {}, 403),
        ({"scopes": ["keys:manage", "jobs:read"]}, {"scopes": ["jobs:write"]}, 403),
        ({"queues": ["email"]}, {}, 403),
        ({"queues": ["email"]}, {"queues": ["email", "payment"]}, 403),
        ({"types": ["send_email"]}, {}, 403),
        ({"types": ["send_email"]}, {"types": ["send_webhook"]}, 403),
        ({"queues": ["email"]}, {"tenant": "acme"}, 403),
        ({"tenant": "acme", "queues": ["email"]}, {"tenant": "acme"}, 403),
        ({"tenant": "acme"}, {}, 404),
        ({"tenant": "acme"}, {"tenant": "other"}, 404),
        ({}, {}, 200),
        ({}, {"tenant": "acme"}, 200),
        ({"queues": ["email"]}, {"queues": ["email"], "types": ["send_email"]}, 200),
        ({"queues": ["email"]}, {"queues": ["email"], "tenant": "acme"}, 200),
        ({"scopes": ["keys:manage", "jobs:read"]}, {"scopes": ["jobs:read"]}, 200),
    ],
    ids=str,
)
async def test_nobody_revokes_or_rotates_a_key_that_may_do_more_than_they_may(
    engine: Engine, own: dict[str, Any], other: dict[str, Any], status: int, act: str
) -> None:
    headers = await new_key(engine, *own.get("scopes", []), **{k: v for k, v in own.items() if k != "scopes"})
    theirs = await new_key(engine, *other.get("scopes", []), **{k: v for k, v in other.items() if k != "scopes"})
    url = f"/admin/keys/{token_of(theirs).prefix}"
    before = await engine.rows("SELECT to_jsonb(api_keys) - 'last_used_at' FROM api_keys ORDER BY prefix")
    async with serving(app_on(engine)) as client:
        if act == "revoke":
            answer = await client.delete(url, headers=headers)
        else:
            answer = await client.post(f"{url}/rotate", json={}, headers=headers)
    assert answer.status_code == (204 if (act, status) == ("revoke", 200) else status), answer.text
    if status != 200:
        assert await engine.rows("SELECT to_jsonb(api_keys) - 'last_used_at' FROM api_keys ORDER BY prefix") == before
        assert await engine.rows("SELECT count(*) FROM audit_log WHERE action <> 'key.created'") == [(0,)]


async def test_whoever_has_a_key_of_their_own_may_revoke_it(engine: Engine) -> None:
    headers = await new_key(engine, Scope.KEYS_MANAGE, queues={"email"})
    async with serving(app_on(engine)) as client:
        answer = await client.delete(f"/admin/keys/{token_of(headers).prefix}", headers=headers)
    assert answer.status_code == 204


@pytest.mark.parametrize("restriction", [{"queues": {"email"}}, {"types": {"send_email"}}], ids=str)
@pytest.mark.parametrize("tenant", [None, "acme"])
async def test_a_key_restricted_to_queues_or_types_reads_no_audit_log_which_covers_all_of_them(
    engine: Engine, restriction: dict[str, set[str]], tenant: str | None
) -> None:
    restricted, whole = await new_key(engine, tenant=tenant, **restriction), await new_key(engine, tenant=tenant)
    async with serving(app_on(engine)) as client:
        refused = await client.get("/admin/audit", headers=restricted)
        assert (refused.status_code, refused.json()["fields"].keys()) == (403, restriction.keys())
        assert (await client.get("/admin/audit", headers=whole)).status_code == 200


@pytest.mark.parametrize(
    ("settings", "keys", "open"),
    [
        ({"auth": "auto", "host": "127.0.0.1"}, 0, True),
        ({"auth": "auto", "host": "127.0.0.1"}, 1, False),
        ({"auth": "auto", "host": "0.0.0.0"}, 0, False),
        ({"auth": "required", "host": "127.0.0.1"}, 0, False),
        ({"auth": "off", "host": "0.0.0.0"}, 1, True),
    ],
)
async def test_who_is_let_in_without_a_key(engine: Engine, settings: dict[str, Any], keys: int, open: bool) -> None:
    for _ in range(keys):
        headers = await new_key(engine, Scope.JOBS_READ)
        await key_management.revoke(engine.database, token_of(headers).prefix, OWNER)
    async with serving(app_on(engine, **settings)) as client:
        assert (await client.get("/queues")).status_code == (200 if open else 401)
        assert (await client.get("/readyz")).status_code == 200


OPEN: dict[str, dict[str, Any]] = {"auto": {"auth": "auto"}, "off": {"auth": "off"}}


@pytest.mark.parametrize("mode", OPEN)
@pytest.mark.parametrize("header", ["Bearer", "Bearer x", "Bearer gq_nonsense", "gq_x_y", f"Bearer {Token.new().text}"])
async def test_an_open_api_refuses_credentials_that_are_not_good(engine: Engine, mode: str, header: str) -> None:
    async with serving(app_on(engine, **OPEN[mode])) as client:
        answer = await client.get("/queues", headers={"Authorization": header})
        assert (answer.status_code, answer.json()) == (401, REFUSED)
        assert (await client.get("/queues")).status_code == 200
        assert (await client.get("/livez", headers={"Authorization": header})).status_code == 200


@pytest.mark.parametrize("mode", OPEN)
async def test_an_open_api_holds_a_restricted_key_to_its_restrictions_and_names_it_in_the_audit_log(
    engine: Engine, mode: str
) -> None:
    async with serving(app_on(engine, **OPEN[mode])) as client:
        other = await engine.enqueue("send_email", "default")
        limited = await new_key(engine, "jobs:read", "queues:manage", queues=["email"])
        assert (await client.get("/jobs?queue=default", headers=limited)).status_code == 403
        assert (await client.get(f"/jobs/{other}", headers=limited)).status_code == 404
        assert (await client.get("/admin/keys", headers=limited)).json()["fields"] == {"scope": "keys:manage"}
        assert (await client.post("/queues/default/pause", headers=limited)).status_code == 403
        assert (await client.post("/queues/email/pause", headers=limited)).status_code == 204
    [(actor,)] = await engine.rows("SELECT actor FROM audit_log WHERE action = 'queue.paused'")
    assert actor == f"key:{token_of(limited).prefix}"


@pytest.mark.parametrize("mode", OPEN)
async def test_an_open_api_takes_a_proxys_password_for_no_credential(engine: Engine, mode: str) -> None:
    async with serving(app_on(engine, **OPEN[mode])) as client:
        assert (await client.get("/queues", headers={"Authorization": "Basic YTpi"})).status_code == 200


async def test_a_wrong_wish_for_a_key_is_refused_with_its_fields(engine: Engine) -> None:
    headers = await new_key(engine)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"scopes": ["jobs:read"]}, "name"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "scopes": ["all"]}, "scopes.0"),
        ({"name": "x", "scopes": ["jobs:read"], "tenant": "A b"}, "tenant"),
        ({"name": "x", "scopes": ["jobs:read"], "expires_in": -1}, "expires_in"),
        ({"name": "x", "scopes": ["jobs:read"], "secret": "mine"}, "secret"),
    ]
    async with serving(app_on(engine)) as client:
        answers: list[httpx.Response] = [
            await client.post("/admin/keys", json=body, headers=headers) for body, _ in wrong
        ]
    assert [answer.status_code for answer in answers] == [400] * len(wrong)
    assert [next(iter(answer.json()["fields"])) for answer in answers] == [field for _, field in wrong]
