"""Bodies, keys and parameters made to break a parser, a database or a reader: all refused by name, nothing changed."""

import json
from typing import Any

import httpx
import psycopg
import pytest

from tests.servers.stores import FreshDatabase


def order(payload: bytes) -> bytes:
    """A whole order of a type that takes any object in `body`, with these bytes in it."""
    url = b"https://shop.example/hook"
    start = b'{"queue": "webhooks", "payload": {"url": "%b", "method": "POST", "body": ' % url
    return start + payload + b"}}"


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "a hundred levels of arrays": (order(b'{"a":' + b"[" * 100 + b"]" * 100 + b"}"), 400, "nested deeper"),
    "a hundred levels of objects": (order(b'{"a":' * 100 + b"1" + b"}" * 100), 400, "nested deeper"),
    "levels behind many flat ones": (
        order(b'{"f":[' + b"{}," * 500 + b"[" * 70 + b"]" * 71 + b"}"),
        400,
        "nested deeper",
    ),
    "half a million brackets": (b"[" * 500_000, 400, "invalid json"),
    "half a million brackets, closed": (b"[" * 250_000 + b"]" * 250_000, 400, "invalid json"),
    "brackets that never close": (order(b'{"a":' + b"[" * 60), 400, "invalid json"),
    "a whole number of 65 bits": (order(b'{"n": 36893488147419103232}'), 400, "more than 64 bits"),
    "one of minus 65 bits": (order(b'{"n": -18446744073709551616}'), 400, "more than 64 bits"),
    "a number of a hundred thousand digits": (order(b'{"n": ' + b"9" * 100_000 + b"}"), 400, "infinity"),
    "a number beyond any float": (order(b'{"n": 1e999}'), 400, "invalid json"),
    "a negative one": (order(b'{"n": -1e999}'), 400, "invalid json"),
    "an exponent of a hundred thousand digits": (order(b'{"n": 1e' + b"9" * 100_000 + b"}"), 400, "invalid json"),
    "NaN": (order(b'{"n": NaN}'), 400, "invalid json"),
    "Infinity": (order(b'{"n": Infinity}'), 400, "invalid json"),
    "a hexadecimal number": (order(b'{"n": 0x10}'), 400, "invalid json"),
    "a leading zero": (order(b'{"n": 010}'), 400, "invalid json"),
    "a NUL, escaped": (order(b'{"s": "a\\u0000b"}'), 400, "NUL"),
    "a NUL as a key": (order(b'{"\\u0000": 1}'), 400, "NUL"),
    "a NUL behind an escaped backslash": (order(b'{"s": "\\\\\\u0000"}'), 400, "NUL"),
    "a NUL, raw": (order(b'{"s": "a\x00b"}'), 400, "invalid json"),
    "a control character, raw": (order(b'{"s": "a\nb"}'), 400, "invalid json"),
    "a lone high surrogate": (order(b'{"s": "\\ud800"}'), 400, "invalid json"),
    "a lone low surrogate": (order(b'{"s": "\\udc00x"}'), 400, "invalid json"),
    "surrogates the wrong way round": (order(b'{"s": "\\udc00\\ud800"}'), 400, "invalid json"),
    "a byte that is no UTF-8": (order(b'{"s": "\xff"}'), 400, "invalid json"),
    "UTF-8 that is too long": (order(b'{"s": "\xc0\xaf"}'), 400, "invalid json"),
    "a surrogate in UTF-8": (order(b'{"s": "\xed\xa0\x80"}'), 400, "invalid json"),
    "beyond Unicode": (order(b'{"s": "\xf4\x90\x80\x80"}'), 400, "invalid json"),
    "UTF-16": ('{"queue": "email"}'.encode("utf-16"), 400, "invalid json"),
    "a byte order mark": (b"\xef\xbb\xbf" + order(b"{}"), 400, "invalid json"),
    "a comment": (order(b'{/* */"a": 1}'), 400, "invalid json"),
    "a comma too many": (order(b'{"a": 1,}'), 400, "invalid json"),
    "two documents": (order(b"{}") + order(b"{}"), 400, "invalid json"),
    "nothing": (b"", 400, "invalid json"),
    "a body over the limit": (order(b'{"s": "' + b"x" * 2**20 + b'"}'), 413, "too large"),
    "a string for an object": (b'"' + b"x" * 100_000 + b'"', 400, "validation failed"),
    "fields that nobody knows": (b'{"queue": "email", "payload": {}, "__proto__": {"a": 1}}', 400, "validation failed"),
    "a thousand wrong fields": (
        json.dumps({"queue": "email", "payload": {}, **{f"f{n}": n for n in range(1000)}}).encode(),
        400,
        "validation failed",
    ),
    "a key of a megabyte": (b'{"' + b"k" * 1_000_000 + b'": 1}', 400, "validation failed"),
    "a unique key with a line break": (
        b'{"queue": "email", "unique_key": "a\\nb", "payload": {"to": "a@b.example", "subject": "s", "body": "b"}}',
        400,
        "validation failed",
    ),
}


@pytest.fixture
async def count(database: FreshDatabase) -> Any:
    async def jobs() -> int:
        async with await psycopg.AsyncConnection.connect(database.dsn) as connection:
            row = await (await connection.execute("SELECT count(*) FROM jobs")).fetchone()
            assert row is not None
            return int(row[0])

    return jobs


@pytest.mark.parametrize("name", REFUSED)
async def test_a_hostile_body_is_refused_by_name_and_changes_nothing(
    client: httpx.AsyncClient, count: Any, name: str
) -> None:
    body, status, error = REFUSED[name]
    before = await count()
    answer = await client.post("/jobs/create", content=body)
    assert answer.status_code == status
    assert error in answer.json()["error"]
    assert len(answer.content) < 20_000, "the answer is as large as the attack"
    assert await count() == before
    assert (await client.get("/livez")).status_code == 200


@pytest.mark.parametrize("name", [name for name, (_, status, _) in REFUSED.items() if status != 413])
async def test_a_hostile_job_of_a_bulk_is_refused_with_all_its_neighbours(
    client: httpx.AsyncClient, count: Any, name: str
) -> None:
    before = await count()
    answer = await client.post("/jobs/bulk", content=b"[%b, %b]" % (order(b"{}"), REFUSED[name][0]))
    assert answer.status_code == 400
    assert len(answer.content) < 20_000
    assert await count() == before


ACCEPTED: dict[str, bytes] = {
    "sixty levels": order(b'{"a":' + b"[" * 60 + b"]" * 60 + b"}"),
    "64 bits": order(b'{"n": [18446744073709551615, -9223372036854775808]}'),
    "a long fraction": order(b'{"n": 0.' + b"1" * 1000 + b"}"),
    "a long string": order(b'{"s": "' + b"x" * 900_000 + b'"}'),
    "ten thousand keys": order(json.dumps({f"k{n}": n for n in range(10_000)}).encode()),
    "an escaped backslash before u0000": order(b'{"s": "\\\\u0000"}'),
    "a pair of surrogates": order(b'{"s": "\\ud83d\\ude00"}'),
    "DEL and C1 controls": order('{"s": "\x7f\x85\u2028"}'.encode()),
}


@pytest.mark.parametrize("name", ACCEPTED)
async def test_what_is_only_unusual_is_kept_as_it_came(client: httpx.AsyncClient, name: str) -> None:
    made = await client.post("/jobs/create", content=ACCEPTED[name])
    assert made.status_code == 201, made.text
    shown = await client.get(f"/jobs/{made.json()['id']}")
    assert shown.json()["payload"]["body"] == json.loads(ACCEPTED[name])["payload"]["body"]


async def test_of_a_hundred_thousand_equal_keys_the_last_counts(client: httpx.AsyncClient) -> None:
    body = b'{"a": 0' + b"".join(b', "a": %d' % n for n in range(1, 80_000)) + b"}"
    made = await client.post("/jobs/create", content=order(body))
    assert made.json()["payload"]["body"] == {"a": 79_999}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/jobs?type=%00"),
        ("GET", "/jobs?queue=%00"),
        ("GET", "/jobs?type=%ff"),
        ("GET", "/jobs?after=99999999999999999999"),
        ("GET", "/jobs?limit=1e3"),
        ("GET", "/jobs/%00"),
        ("GET", "/jobs/1%00"),
        ("GET", "/jobs/%d9%a3"),
        ("GET", "/jobs/99999999999999999999"),
        ("GET", "/jobs/0x10"),
        ("GET", "/schedules/%00"),
        ("GET", "/schedules/..%2f..%2fetc"),
        ("PUT", "/schedules/a%00b"),
        ("POST", "/queues/%00/pause"),
        ("GET", "/docs/%2e%2e%2f%2e%2e%2fetc%2fpasswd"),
        ("GET", "/docs/..%5c..%5cwin.ini"),
        ("GET", "//jobs//1"),
    ],
)
async def test_hostile_addresses_are_refused_in_the_one_shape(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    request = client.build_request(method, "/", content=b"{}" if method != "GET" else None)
    request.url = request.url.copy_with(raw_path=path.encode())  # as it stands: httpx would tidy it up
    answer = await client.send(request)
    assert answer.status_code in (400, 404), answer.text
    assert set(answer.json()) <= {"error", "fields"}


@pytest.mark.parametrize("key", [b"", b"a\tb", b"\xc2\x85", b"\xe2\x80\xa8", b"k" * 256])
async def test_a_hostile_idempotency_key_is_refused(client: httpx.AsyncClient, key: bytes) -> None:
    answer = await client.post("/jobs/create", content=order(b"{}"), headers=[(b"Idempotency-Key", key)])
    assert answer.status_code == 400
    assert answer.json()["fields"].keys() == {"Idempotency-Key"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"result": {"s": "\\u0000"}}', 400),
        (b'{"error": "a\\u0000b"}', 400),
        (b'{"result": ' + b"[" * 100 + b"]" * 100 + b"}", 400),
        (b'{"result": 123456789012345678901234567890}', 400),
        (b'{"result": "' + b"x" * 2**20 + b'"}', 413),
        (b'{"error": "' + b"x" * 70_000 + b'"}', 400),
    ],
)
async def test_a_hostile_or_oversize_result_is_refused_and_the_old_one_stays(
    client: httpx.AsyncClient, body: bytes, status: int
) -> None:
    order = {"queue": "email", "payload": {"to": "ada@example.org", "subject": "s", "body": "b"}}
    job = (await client.post("/jobs/create", json=order)).json()["id"]
    assert (await client.post(f"/jobs/{job}/save", json={"result": "kept"})).status_code == 204
    assert (await client.post(f"/jobs/{job}/save", content=body)).status_code == status
    assert (await client.get(f"/jobs/{job}")).json()["result"] == "kept"
