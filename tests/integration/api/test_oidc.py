"""Bearer tokens of a real issuer: who is let in, the table of those who are not, keys that change, an issuer away."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from goqueue.settings import OidcSettings
from goqueue_api import jwks
from goqueue_api.jwks import KeySet
from goqueue_api.oidc import Tokens
from tests.integration.api.serving import app_on, new_key, serving
from tests.integration.engine import Engine
from tests.servers.issuer import Issuer, ec_key, rsa_key, run_issuer


@pytest.fixture(scope="module")
def running() -> Iterator[Issuer]:
    with run_issuer() as issuer:
        yield issuer


@pytest.fixture
def issuer(running: Issuer) -> Issuer:
    """The issuer as it began."""
    running.keys = dict(running.first)
    running.about = {"issuer": running.url, "jwks_uri": f"{running.url}/keys"}
    running.extra, running.broken = [], False
    running.asked.clear()
    return running


def chosen(issuer: Issuer, **more: Any) -> OidcSettings:
    return OidcSettings(**{"issuer": issuer.url, "audience": "goqueue", "leeway_seconds": 2, **more})


@pytest.fixture
async def client(engine: Engine, issuer: Issuer) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API that takes keys and the issuer's tokens."""
    async with serving(app_on(engine, oidc=chosen(issuer))) as client:
        yield client


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def by_public_key(issuer: Issuer, form: serialization.PublicFormat, encoding: serialization.Encoding) -> str:
    """Signed by HS256 with the public key as the secret, for verifiers that let the token choose."""
    secret = issuer.keys["rsa-1"].public_key().public_bytes(encoding, form)
    head = unsigned({"alg": "HS256", "typ": "JWT", "kid": "rsa-1"}, issuer.claims()).rsplit(".", 1)[0]
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(head.encode(), secret)
    return f"{head}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def foreign(issuer: Issuer, **headers: Any) -> str:
    """Signed by a key of somebody else's."""
    return jwt.encode(issuer.claims(), rsa_key(), "RS256", headers={"kid": "rsa-1", **headers})


def changed(issuer: Issuer) -> str:
    """A good token whose claims were changed afterwards."""
    head, _, signature = issuer.token().split(".")
    return f"{head}.{unsigned({}, issuer.claims(scope='keys:manage')).split('.')[1]}.{signature}"


def own_jwk(issuer: Issuer) -> str:
    """One that brings the key along by which it verifies."""
    key = rsa_key()
    own = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return jwt.encode(issuer.claims(), key, "RS256", headers={"kid": "mine", "jwk": own})


PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
SPKI, PKCS1 = serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PublicFormat.PKCS1
NOW = time.time

REFUSED: dict[str, Callable[[Issuer], str]] = {
    "alg none": lambda i: unsigned({"alg": "none", "kid": "rsa-1"}, i.claims()),
    "alg None": lambda i: unsigned({"alg": "None", "kid": "rsa-1"}, i.claims()),
    "alg nOnE": lambda i: unsigned({"alg": "nOnE", "kid": "rsa-1"}, i.claims()),
    "alg none with a good signature": lambda i: ".".join(
        [unsigned({"alg": "none", "kid": "rsa-1"}, {}).split(".")[0], *i.token().split(".")[1:]]
    ),
    "no alg": lambda i: unsigned({"kid": "rsa-1"}, i.claims()),
    "alg is a list": lambda i: unsigned({"alg": ["RS256"], "kid": "rsa-1"}, i.claims()),
    "HS256 by the public key, PEM": lambda i: by_public_key(i, SPKI, PEM),
    "HS256 by the public key, DER": lambda i: by_public_key(i, SPKI, DER),
    "HS256 by the public key, PKCS#1": lambda i: by_public_key(i, PKCS1, PEM),
    "HS256 by an empty secret": lambda i: by_public_key(i, SPKI, PEM)[:-5] + "AAAAA",
    "RS384, which is not in the list": lambda i: i.token(algorithm="RS384"),
    "PS256, which is not in the list": lambda i: i.token(algorithm="PS256"),
    "ES256 by name, with an RSA key": lambda i: ".".join(
        [unsigned({"alg": "ES256", "kid": "rsa-1"}, {}).split(".")[0], *i.token().split(".")[1:]]
    ),
    "the id of another key": lambda i: i.token(headers={"kid": "ec-1"}),
    "an unknown key": lambda i: i.token(headers={"kid": "other"}),
    "a key id that is a path": lambda i: i.token(headers={"kid": "../../../../dev/null"}),
    "a key id that is SQL": lambda i: i.token(headers={"kid": "x' UNION SELECT 'secret"}),
    "a key id that is a number": lambda i: unsigned({"alg": "RS256", "kid": 1}, i.claims()),
    "a key id that is an object": lambda i: unsigned({"alg": "RS256", "kid": {"a": 1}}, i.claims()),
    "no key id, of two keys": lambda i: jwt.encode(i.claims(), i.keys["rsa-1"], "RS256"),
    "somebody else's key": lambda i: foreign(i),
    "somebody else's key, and where it is (jku)": lambda i: foreign(i, jku=f"{i.url}/evil"),
    "the same as x5u": lambda i: foreign(i, x5u=f"{i.url}/evil"),
    "the same as x5c": lambda i: foreign(i, x5c=["MIIB"]),
    "a key that it brings along (jwk)": own_jwk,
    "an extension that must be understood": lambda i: i.token(headers={"crit": ["exp2"], "exp2": 1}),
    "a payload that is not encoded (b64)": lambda i: i.token(headers={"crit": ["b64"], "b64": False}),
    "claims changed afterwards": changed,
    "no signature": lambda i: i.token().rsplit(".", 1)[0] + ".",
    "a signature cut short": lambda i: i.token()[:-10],
    "another issuer": lambda i: i.token(iss="https://evil.example"),
    "the issuer with a slash": lambda i: i.token(iss=i.url + "/"),
    "no issuer": lambda i: i.token(iss=None),
    "another audience": lambda i: i.token(aud="shop"),
    "other audiences": lambda i: i.token(aud=["shop", "goqueue2"]),
    "the audience in capitals": lambda i: i.token(aud="GOQUEUE"),
    "an audience that is a number": lambda i: i.token(aud=[1]),
    "no audience": lambda i: i.token(aud=None),
    "expired": lambda i: i.token(exp=int(NOW()) - 60),
    "expired, just beyond the leeway": lambda i: i.token(exp=int(NOW()) - 3),
    "no end": lambda i: i.token(exp=None),
    "an end that is a word": lambda i: i.token(exp="never"),
    "not yet good": lambda i: i.token(nbf=int(NOW()) + 60),
    "issued in the future": lambda i: i.token(iat=int(NOW()) + 600),
    "no subject": lambda i: i.token(sub=None),
    "an empty subject": lambda i: i.token(sub=""),
    "a subject that is a number": lambda i: i.token(sub=7),
    "a subject with a line break": lambda i: i.token(sub="ada\nadmin"),
    "an endless subject": lambda i: i.token(sub="a" * 256),
    "claims that are a list": lambda i: ".".join([i.token().split(".")[0], "WzFd", i.token().split(".")[2]]),
    "an encrypted token": lambda i: "a.b.c.d.e",
    "three empty parts": lambda i: "..",
    "no base64": lambda i: "!!.??.++",
    "a token of 20 kB": lambda i: i.token(pad="x" * 15_000),
    "a token twice": lambda i: f"{i.token()} {i.token()}",
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_token_that_is_not_good_gets_the_same_401_as_none(
    client: httpx.AsyncClient, issuer: Issuer, name: str
) -> None:
    none = await client.get("/jobs?limit=1")
    answer = await client.get("/jobs?limit=1", headers=bearing(REFUSED[name](issuer)))
    assert (answer.status_code, answer.content) == (401, none.content)
    assert answer.headers["www-authenticate"] == none.headers["www-authenticate"]


def test_the_table_of_refused_tokens_is_complete() -> None:
    print(f"{len(REFUSED)} kinds of tokens are refused")
    assert len(REFUSED) >= 50


@pytest.mark.parametrize(
    ("key", "algorithm", "claims"),
    [
        ("rsa-1", "RS256", {}),
        ("ec-1", "ES256", {}),
        ("rsa-1", "RS256", {"aud": ["shop", "goqueue"]}),
        ("rsa-1", "RS256", {"exp": int(NOW()) + 10_000, "nbf": int(NOW())}),
        ("rsa-1", "RS256", {"scope": ["jobs:read", "openid"]}),
    ],
)
async def test_a_good_token_is_let_in_with_its_scopes(
    client: httpx.AsyncClient, issuer: Issuer, key: str, algorithm: str, claims: dict[str, Any]
) -> None:
    headers = bearing(issuer.token(key, algorithm, **claims))
    assert (await client.get("/jobs/999999", headers=headers)).status_code == 404
    forbidden = await client.post("/jobs/create", headers=headers, content=b"{}")
    assert (forbidden.status_code, forbidden.json()["fields"]) == (403, {"scope": "jobs:write"})


async def test_keys_and_tokens_go_side_by_side(client: httpx.AsyncClient, engine: Engine) -> None:
    assert (await client.get("/jobs/999999", headers=await new_key(engine))).status_code == 404


async def test_a_scope_of_another_spelling_or_without_its_prefix_is_none(engine: Engine, issuer: Issuer) -> None:
    oidc = chosen(issuer, scope_prefix="gq.", scopes_claim="realm_access.roles")
    async with serving(app_on(engine, oidc=oidc)) as client:
        for roles, status in (
            (["gq.jobs:read"], 404),
            (["jobs:read"], 403),
            (["gq.gq.jobs:read"], 403),
            (["GQ.jobs:read"], 403),
            ("gq.jobs:write gq.jobs:read", 404),
            ({"gq.jobs:read": True}, 403),
            (None, 403),
        ):
            token = issuer.token(realm_access={"roles": roles}, scope="gq.jobs:read")
            assert (await client.get("/jobs/999999", headers=bearing(token))).status_code == status, roles


async def test_a_claim_that_a_setting_names_must_be_there(issuer: Issuer) -> None:
    oidc = chosen(issuer, tenant_claim="org", queues_claim="https://goqueue.example/queues", types_claim="types")
    tokens = Tokens(oidc, KeySet(oidc))
    whole: dict[str, Any] = {"org": "acme", "https://goqueue.example/queues": "email default", "types": ["send_email"]}
    caller = await tokens.caller(issuer.token(**whole))
    assert caller is not None
    assert (caller.id, caller.tenant) == ("oidc:ada", "acme")
    assert (caller.queues, caller.types) == (frozenset({"email", "default"}), frozenset({"send_email"}))
    changes: list[dict[str, Any]] = [
        *({name: None} for name in whole),
        {"org": "a:b"},
        {"org": ["acme"]},
        {"org": "ACME\n"},
        {"types": [1]},
    ]
    for wrong in ({**whole, **change} for change in changes):
        assert await tokens.caller(issuer.token(**wrong)) is None, wrong


async def test_a_good_token_is_verified_once_and_never_beyond_its_end(issuer: Issuer) -> None:
    now = time.time()
    clock = [now]
    oidc = chosen(issuer)
    keys = KeySet(oidc)
    tokens = Tokens(oidc, keys, lambda: clock[0])
    token = issuer.token(exp=int(now) + 20)
    first = await tokens.caller(token)
    assert first is not None
    assert await tokens.caller(token) is first
    clock[0] = int(now) + 20 + 2 - 0.1  # the leeway of two seconds
    assert await tokens.caller(token) is first
    issuer.keys["rsa-1"] = rsa_key()
    other = Tokens(oidc, KeySet(oidc), lambda: clock[0])  # a process that has never seen it
    assert await other.caller(token) is None
    clock[0] = int(now) + 20 + 2
    keys._keys = {}
    assert await tokens.caller(token) is None, "it was verified again"


async def test_a_new_key_is_known_at_its_first_token_and_an_old_one_goes_with_the_next_fetch(issuer: Issuer) -> None:
    oidc = chosen(issuer)
    keys = KeySet(oidc, pause=0)
    tokens = Tokens(oidc, keys)
    old = issuer.token()
    assert await tokens.caller(old) is not None
    retired = issuer.keys.pop("rsa-1")
    issuer.keys["rsa-2"] = rsa_key()
    assert await tokens.caller(issuer.token("rsa-2")) is not None
    late = jwt.encode(issuer.claims(sub="eve"), retired, "RS256", headers={"kid": "rsa-1"})
    assert await tokens.caller(late) is None


async def test_however_many_unknown_keys_are_shown_the_issuer_is_asked_once(issuer: Issuer) -> None:
    oidc = chosen(issuer)
    tokens = Tokens(oidc, KeySet(oidc))
    shown = [issuer.token(headers={"kid": f"k{number}"}) for number in range(100)]
    assert set(await asyncio.gather(*map(tokens.caller, shown))) == {None}
    assert issuer.asked["/keys"] == 1


async def test_while_the_issuer_is_away_its_known_keys_stay_good(issuer: Issuer) -> None:
    oidc = chosen(issuer)
    keys = KeySet(oidc, pause=0)
    tokens = Tokens(oidc, keys)
    assert await tokens.caller(issuer.token()) is not None
    issuer.broken = True
    assert await tokens.caller(issuer.token(sub="bob")) is not None
    assert await tokens.caller(issuer.token(headers={"kid": "other"})) is None
    assert issuer.asked["/keys"] + issuer.asked["/.well-known/openid-configuration"] >= 3


async def test_keys_older_than_a_day_are_good_no_more(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    oidc = chosen(issuer)
    keys = KeySet(oidc)
    assert await keys.find("rsa-1", "RS256") is not None
    monkeypatch.setattr(jwks, "STALE", 0.0)
    issuer.broken = True
    with pytest.raises(Exception, match="the token issuer is unavailable"):
        await keys.find("rsa-1", "RS256")


async def test_an_issuer_that_was_never_there_costs_its_tokens_a_503_and_nobody_else_anything(
    engine: Engine, issuer: Issuer
) -> None:
    issuer.broken = True
    async with serving(app_on(engine, oidc=chosen(issuer))) as client:
        refused = await client.get("/jobs/1", headers=bearing(issuer.token()))
        assert (refused.status_code, refused.json()) == (503, {"error": "the token issuer is unavailable"})
        assert (await client.get("/jobs/999999", headers=await new_key(engine))).status_code == 404
        assert (await client.get("/jobs/1")).status_code == 401


@pytest.mark.parametrize(
    "about",
    [
        {"issuer": "https://evil.example"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "http://keys.example/keys"},
        {"jwks_uri": "ftp://127.0.0.1/keys"},
        {"jwks_uri": 7},
        {"jwks_uri": None},
    ],
)
async def test_a_discovery_document_that_leads_astray_is_not_followed(issuer: Issuer, about: dict[str, Any]) -> None:
    issuer.about |= about
    keys = KeySet(chosen(issuer))
    with pytest.raises(Exception, match="the token issuer is unavailable"):
        await keys.find("rsa-1", "RS256")
    assert issuer.asked["/keys"] == 0


async def test_secrets_and_keys_for_other_uses_in_the_key_set_verify_nothing(issuer: Issuer) -> None:
    secret = base64.urlsafe_b64encode(b"s" * 32).decode()
    issuer.keys["enc"] = ec_key()
    issuer.extra = [
        {"kty": "oct", "kid": "shared", "k": secret, "alg": "HS256"},
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
        {**issuer.jwk("enc"), "kid": "encrypts", "use": "enc"},
        {**issuer.jwk("rsa-1"), "kid": "only-384", "alg": "RS384"},
        "nonsense",
    ]
    tokens = Tokens(oidc := chosen(issuer), KeySet(oidc))
    assert await tokens.caller(issuer.token()) is not None
    assert await tokens.caller(jwt.encode(issuer.claims(), b"s" * 32, "HS256", headers={"kid": "shared"})) is None
    for key, algorithm, key_id in (
        ("enc", "ES256", "encrypts"),
        ("rsa-1", "RS256", "only-384"),
        ("rsa-1", "RS256", "broken"),
    ):
        assert await tokens.caller(issuer.token(key, algorithm, headers={"kid": key_id})) is None, key_id


async def test_a_token_without_a_key_id_means_the_only_key_there_is(issuer: Issuer) -> None:
    del issuer.keys["ec-1"]
    tokens = Tokens(oidc := chosen(issuer), KeySet(oidc))
    assert await tokens.caller(jwt.encode(issuer.claims(), issuer.keys["rsa-1"], "RS256")) is not None
