"""The `Idempotency-Key` header against real stores: one job for one key, whose, for how long, and what is an error."""

import asyncio
import base64
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from goqueue import encryption, inserts, key_management
from goqueue.access import Scope
from goqueue.errors import KeyReused
from goqueue.idempotency import request_key
from goqueue.job import Enqueued, NewJob
from goqueue.key_management import Rotation
from goqueue.keys import Token
from goqueue.settings import EncryptionSettings
from goqueue.store import idempotency
from goqueue_scheduler.pruner import Pruner
from tests.integration.api.serving import OWNER, app_on, new_key, serving
from tests.integration.engine import WITHIN, Engine, eventually, opened
from tests.servers.stores import FreshDatabase, FreshRedis

MAIL = {"to": "ada@example.org", "subject": "Hi", "body": "Hello"}
ORDER: dict[str, Any] = {"queue": "email", "payload": MAIL}
KEY = {"Idempotency-Key": "order-1"}
REUSED = {
    "error": "idempotency key was used with another request",
    "fields": {"Idempotency-Key": "names the job of another request body"},
}


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an open API."""
    async with serving(app_on(engine, auth="off")) as client:
        yield client


async def post(client: httpx.AsyncClient, body: Any = ORDER, **headers: str) -> tuple[int, Any]:
    answer = await client.post("/jobs/create", json=body, headers={**KEY, **headers})
    return answer.status_code, answer.json()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request waits for a held key for as long as the test needs, however slow the machine is."""
    monkeypatch.setattr(inserts, "PATIENCE", 2 * WITHIN)


async def count(engine: Engine) -> int:
    ((jobs,),) = await engine.rows("SELECT count(*) FROM jobs")
    return int(jobs)


async def end(engine: Engine, id: int, ago: str = "0 s", status: str = "completed") -> None:
    """Let a job have ended."""
    statement = "UPDATE jobs SET status = %s, finished_at = now() - %s::interval, active_key = NULL WHERE id = %s"
    assert await engine.execute(statement, status, ago, id) == 1


# --- the same job ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_a_key_gives_its_job_also_after_that_has_ended(
    client: httpx.AsyncClient, engine: Engine, status: str
) -> None:
    first, job = await post(client)
    assert (first, job["unique_key"]) == (201, None)
    await end(engine, job["id"], status=status)
    again, same = await post(client)
    assert (again, same["id"], same["status"]) == (200, job["id"], status)
    assert await count(engine) == 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"payload": {"body": "Hello", "subject": "Hi", "to": "ada@example.org"}, "queue": "email"}',
        b'{"queue":"email","type":"send_email","max_retries":5,"priority":0,"available_at":null,"timeout":null,'
        b'"unique_key":null,"payload":{"to":"ada@example.org","subject":"\\u0048i","body":"Hello"}}',
    ],
)
async def test_the_same_request_in_other_bytes_is_the_same(
    client: httpx.AsyncClient, engine: Engine, body: bytes
) -> None:
    _, job = await post(client)
    answer = await client.post(
        "/jobs/create", content=body, headers={**KEY, "traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}
    )
    assert (answer.status_code, answer.json()["id"]) == (200, job["id"])


async def test_the_same_time_in_another_zone_is_the_same_request(client: httpx.AsyncClient) -> None:
    _, job = await post(client, {**ORDER, "available_at": "2100-01-01T00:00:00Z"})
    assert (await post(client, {**ORDER, "available_at": "2100-01-01T02:00:00+02:00"}))[1]["id"] == job["id"]


@pytest.mark.parametrize(
    "change",
    [
        {"payload": {**MAIL, "to": "bob@example.org"}},
        {"queue": "default"},
        {"queue": "webhooks", "payload": {"url": "https://example.org/", "method": "POST", "body": {}}},
        {"max_retries": 4},
        {"priority": 1},
        {"available_at": "2100-01-01T00:00:00Z"},
        {"timeout": 5},
        {"unique_key": "order-1"},
    ],
    ids=str,
)
async def test_the_same_key_with_another_request_is_422_and_changes_nothing(
    client: httpx.AsyncClient, engine: Engine, change: dict[str, Any]
) -> None:
    _, job = await post(client)
    rows = "SELECT to_jsonb(jobs), to_jsonb(idempotency_keys) FROM jobs, idempotency_keys"
    before = await engine.rows(rows)
    assert await post(client, {**ORDER, **change}) == (422, REUSED)
    assert await engine.rows(rows) == before
    await end(engine, job["id"])
    assert await post(client, {**ORDER, **change}) == (422, REUSED)
    assert (await post(client))[0] == 200


async def test_a_request_that_was_refused_takes_no_key(client: httpx.AsyncClient, engine: Engine) -> None:
    assert (await post(client, {**ORDER, "payload": {}}))[0] == 400
    assert await engine.rows("SELECT count(*) FROM idempotency_keys") == [(0,)]
    assert (await post(client))[0] == 201


async def test_two_keys_in_one_request_are_refused(client: httpx.AsyncClient, engine: Engine) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    answer = await client.post("/jobs/create", json=ORDER, headers=headers)
    assert (answer.status_code, answer.json()["fields"]) == (400, {"Idempotency-Key": "given more than once"})
    assert await count(engine) == 0


# --- concurrency -----------------------------------------------------------------------------------------------------


async def test_requests_with_one_key_at_once_through_two_processes_make_one_job(engine: Engine) -> None:
    async with serving(app_on(engine, auth="off")) as one, serving(app_on(engine, auth="off")) as other:
        answers = await asyncio.gather(*(post(client) for client in (one, other) for _ in range(25)))
    assert sorted(status for status, _ in answers) == [200] * 49 + [201]
    assert len({job["id"] for _, job in answers}) == 1
    assert await count(engine) == 1


@pytest.mark.parametrize("more", [{}, {"unique_key": "invoice-7"}], ids=str)
async def test_two_requests_with_one_key_at_once_make_one_job_and_the_other_is_refused(
    engine: Engine, more: dict[str, str]
) -> None:
    bodies = [{**ORDER, **more, "priority": number % 2} for number in range(20)]
    async with serving(app_on(engine, auth="off")) as one, serving(app_on(engine, auth="off")) as other:
        answers = await asyncio.gather(
            *((one, other)[at % 2].post("/jobs/create", json=body, headers=KEY) for at, body in enumerate(bodies))
        )
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] * 9 + [201] + [422] * 10
    (made,) = [answer.json() for answer in answers if answer.status_code == 201]
    assert {answer.json()["id"] for answer in answers if answer.status_code == 200} == {made["id"]}
    assert await count(engine) == 1


async def test_many_keys_in_opposite_orders_in_two_processes_end_without_a_deadlock(engine: Engine) -> None:
    async with serving(app_on(engine, auth="off")) as one, serving(app_on(engine, auth="off")) as other:

        async def all_of(client: httpx.AsyncClient, numbers: range) -> list[tuple[int, Any]]:
            return await asyncio.gather(*(post(client, **{"Idempotency-Key": f"k{number}"}) for number in numbers))

        forth, back = await asyncio.gather(all_of(one, range(100)), all_of(other, range(99, -1, -1)))
    assert [job["id"] for _, job in forth] == [job["id"] for _, job in reversed(back)]
    assert sorted(status for status, _ in forth + back) == [200] * 100 + [201] * 100
    assert await count(engine) == 100


@pytest.mark.usefixtures("patient")
async def test_a_request_waits_for_one_with_the_same_key_and_gets_its_job_or_makes_one(engine: Engine) -> None:
    order = NewJob("email", "send_email", MAIL)
    key = request_key("order-1", "anybody", order)
    for commits in (True, False):
        await engine.execute("TRUNCATE jobs, idempotency_keys")
        async with engine.database.connection() as connection, serving(app_on(engine, auth="off")) as client:
            async with connection.transaction(force_rollback=not commits):
                ((held,), _) = await idempotency.insert(connection, [(key, order)])
                assert isinstance(held, Enqueued)
                waiting = asyncio.create_task(post(client))
                await eventually(engine.lock_awaited)
            status, job = await waiting
        assert (status, job["id"] == held.id) == ((200, True) if commits else (201, False))
        assert await count(engine) == 1


@pytest.mark.usefixtures("patient")
async def test_a_key_held_by_a_process_that_hangs_holds_up_no_other_request(engine: Engine) -> None:
    order = NewJob("email", "send_email", MAIL)
    key = request_key("order-1", "anybody", order)
    async with engine.database.connection() as connection, serving(app_on(engine, auth="off")) as client:
        async with connection.transaction():
            await idempotency.insert(connection, [(key, order)])
            held = [asyncio.create_task(post(client)) for _ in range(3)]
            await eventually(engine.lock_awaited)
            answers = await asyncio.gather(*(post(client, **{"Idempotency-Key": f"k{n}"}) for n in range(10)))
            assert [status for status, _ in answers] == [201] * 10
            assert not any(task.done() for task in held)
        assert [status for status, _ in await asyncio.gather(*held)] == [200] * 3
    assert await count(engine) == 11


# --- whose, and how long ---------------------------------------------------------------------------------------------


async def test_a_key_belongs_to_its_caller_and_survives_a_rotation_of_its_api_key(engine: Engine) -> None:
    mine, theirs = await new_key(engine, tenant="acme"), await new_key(engine, tenant="acme")
    others = [await new_key(engine, tenant="other"), await new_key(engine)]
    async with serving(app_on(engine)) as client:
        made = [await post(client, **headers) for headers in (mine, theirs, *others)]
        assert [status for status, _ in made] == [201] * 4
        assert len({job["id"] for _, job in made}) == 4
        token = Token.read(mine["Authorization"].removeprefix("Bearer "))
        assert token is not None
        _, second = await key_management.rotate(engine.database, token.prefix, Rotation(), OWNER)
        status, job = await post(client, Authorization=f"Bearer {second.text}")
        assert (status, job["id"]) == (200, made[0][1]["id"])


async def test_a_key_is_remembered_for_24_hours_after_the_end_of_its_job_however_long_that_took(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    pruner = Pruner(engine.database, 1e9, 1e9, 1e9)
    _, job = await post(client)
    passed = "UPDATE idempotency_keys SET look_at = look_at - interval '24 hours'"
    for _ in range(3):  # three days, and the job is still open
        await engine.execute(passed)
        assert (await pruner.walk())["idempotency_keys"] == 0
    await end(engine, job["id"], "23 hours 59 minutes")
    await engine.execute(passed)
    assert (await pruner.walk())["idempotency_keys"] == 0
    assert await engine.rows("SELECT look_at - now() < interval '2 minutes' FROM idempotency_keys") == [(True,)]
    assert (await post(client))[1]["id"] == job["id"]
    await end(engine, job["id"], "24 hours 1 second")
    await engine.execute(passed)
    assert (await pruner.walk())["idempotency_keys"] == 1
    assert (await post(client))[0] == 201


async def test_a_key_outlives_a_job_that_retention_deletes_sooner(client: httpx.AsyncClient, engine: Engine) -> None:
    pruner = Pruner(engine.database, 60.0, 60.0, 1e9)
    _, job = await post(client)
    await end(engine, job["id"], "2 minutes")
    await engine.execute("UPDATE jobs SET created_at = now() - interval '3 minutes'")
    assert (await pruner.walk())["jobs"] == 1
    gone = (409, {"error": "the job with this key was deleted", "fields": {"id": job["id"]}})
    assert await post(client) == gone
    await engine.execute("UPDATE idempotency_keys SET look_at = now()")
    assert (await pruner.walk())["idempotency_keys"] == 0
    assert await post(client) == gone
    await engine.execute("UPDATE idempotency_keys SET look_at = now()")
    assert (await pruner.walk())["idempotency_keys"] == 1
    assert (await post(client))[0] == 201


async def test_a_job_that_a_request_deleted_is_not_made_again(client: httpx.AsyncClient, engine: Engine) -> None:
    _, job = await post(client)
    assert (await client.delete(f"/jobs/{job['id']}")).status_code == 204
    assert (await post(client))[0] == 409
    assert await count(engine) == 1


async def test_keys_are_looked_at_in_bounded_steps(
    client: httpx.AsyncClient, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("goqueue_scheduler.tables.CHUNK", 3)
    for number in range(10):
        _, job = await post(client, **{"Idempotency-Key": f"k{number}"})
        if number % 2:
            await end(engine, job["id"], "25 hours")
    await engine.execute("UPDATE idempotency_keys SET look_at = now() - interval '1 hour'")
    assert (await Pruner(engine.database, 1e9, 1e9, 1e9).walk())["idempotency_keys"] == 5
    assert await engine.rows("SELECT count(*), min(look_at) > now() FROM idempotency_keys") == [(5, True)]


async def test_a_leading_scheduler_forgets_keys(client: httpx.AsyncClient, engine: Engine) -> None:
    _, job = await post(client)
    await end(engine, job["id"], "25 hours")
    await engine.execute("UPDATE idempotency_keys SET look_at = now()")
    async with engine.scheduler():

        async def forgotten() -> bool:
            return await engine.rows("SELECT count(*) FROM idempotency_keys") == [(0,)]

        await eventually(forgotten)


# --- beside unique_key and quotas ------------------------------------------------------------------------------------


async def test_header_and_unique_key_are_two_things(client: httpx.AsyncClient, engine: Engine) -> None:
    unique = {**ORDER, "unique_key": "order-1"}
    _, by_header = await post(client)
    answer = await client.post("/jobs/create", json=unique)
    assert (answer.status_code, answer.json()["unique_key"]) == (201, "order-1")
    assert answer.json()["id"] != by_header["id"]


async def test_a_key_remembers_the_job_that_held_the_unique_key_also_when_that_has_ended(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    unique = {**ORDER, "unique_key": "invoice-7"}
    holder = (await client.post("/jobs/create", json={**unique, "priority": 9})).json()["id"]
    assert (await post(client, unique))[1]["id"] == holder
    await end(engine, holder)
    status, job = await post(client, unique)
    assert (status, job["id"]) == (200, holder)
    status, fresh = await post(client, unique, **{"Idempotency-Key": "another"})
    assert (status, fresh["id"] != holder) == (201, True)


@pytest.mark.usefixtures("patient")
async def test_a_unique_key_held_by_an_open_transaction_holds_up_no_other_request(engine: Engine) -> None:
    async with engine.database.connection() as connection, serving(app_on(engine, auth="off")) as client:
        async with connection.transaction():
            await connection.execute(
                "INSERT INTO jobs (queue, type, payload, unique_key, active_key) "
                "VALUES ('email', 'send_email', '{}', 'held', 'held')"
            )
            held = asyncio.create_task(post(client, {**ORDER, "unique_key": "held"}))
            await eventually(engine.lock_awaited)
            assert (await post(client, **{"Idempotency-Key": "free"}))[0] == 201
            assert not held.done()
        assert (await held)[0] == 200


@pytest.mark.parametrize("kind", ["header", "unique key"])
async def test_at_a_full_quota_a_job_that_was_made_is_shown_and_a_new_one_is_refused(engine: Engine, kind: str) -> None:
    body, headers = (ORDER, KEY) if kind == "header" else ({**ORDER, "unique_key": "u"}, {})
    async with serving(app_on(engine, auth="off", tenant_quota=1)) as client:
        made = await client.post("/jobs/create", json=body, headers=headers)
        assert made.status_code == 201
        again = await client.post("/jobs/create", json=body, headers=headers)
        assert (again.status_code, again.json()["id"]) == (200, made.json()["id"])
        assert (await client.post("/jobs/create", json=ORDER)).status_code == 429
        assert (await post(client, **{"Idempotency-Key": "new"}))[0] == 429
        if kind == "header":
            assert await post(client, {**ORDER, "priority": 1}) == (422, REUSED)
        assert await count(engine) == 1


# --- what is stored --------------------------------------------------------------------------------------------------


def new_keys(number: int) -> list[str]:
    return [base64.b64encode(os.urandom(32)).decode() for _ in range(number)]


def keyring(*keys: str) -> encryption.Keyring:
    loaded = encryption.load(EncryptionSettings(keys=[SecretStr(key) for key in keys]))
    assert loaded is not None
    return loaded


@contextlib.asynccontextmanager
async def encrypted(
    database: FreshDatabase, ready_queues: FreshRedis, ring: encryption.Keyring
) -> AsyncIterator[Engine]:
    async with opened(database, ready_queues, ring) as engine:
        yield engine


async def test_nothing_stored_tells_the_key_or_lets_a_guess_at_the_payload_be_checked(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    await post(client, **{"Idempotency-Key": "a-secret-of-the-client"})
    ((first,),) = await engine.rows("SELECT to_jsonb(idempotency_keys)::text FROM idempotency_keys")
    assert "a-secret-of-the-client" not in first
    await post(client, **{"Idempotency-Key": "another"})
    rows = await engine.rows("SELECT fingerprint FROM idempotency_keys")
    assert len(set(rows)) == 2  # of one request: the fingerprint is keyed by what is not stored


async def test_with_encryption_the_fingerprint_is_sealed_and_still_compared(
    database: FreshDatabase, ready_queues: FreshRedis
) -> None:
    old, new = new_keys(2)
    order, other = NewJob("email", "send_email", MAIL), NewJob("email", "send_email", {**MAIL, "to": "b@example.org"})
    key, changed = (request_key("k", "anybody", one) for one in (order, other))
    async with encrypted(database, ready_queues, keyring(old)) as engine:
        made = await engine.service.enqueue(order, key)
        assert (await engine.service.get(made.id)).payload == MAIL
        ((fingerprint, payload),) = await engine.rows(
            "SELECT fingerprint, payload::text FROM idempotency_keys JOIN jobs ON jobs.id = job_id"
        )
        assert encryption.is_sealed_text(fingerprint)
        assert key.fingerprint not in fingerprint
        assert "ada" not in payload
        assert (await engine.service.enqueue(order, key)).id == made.id
        with pytest.raises(KeyReused):
            await engine.service.enqueue(other, changed)
        async with engine.database.connection() as connection:
            for ring in (keyring(new, old), keyring(old)):
                found = await idempotency.find(connection, [key, changed], ring)
                assert [type(one) for one in found.values()] == [Enqueued, KeyReused]
            # Once the key is given up nobody can compare; a second job would be the worse error.
            for without in (keyring(new), None):
                found = await idempotency.find(connection, [key, changed], without)
                assert found == {key: Enqueued(made.id, False), changed: Enqueued(made.id, False)}


@pytest.mark.parametrize("unique", [None, "u"])
async def test_a_job_made_with_a_key_reaches_redis_and_no_other_is_pushed(engine: Engine, unique: str | None) -> None:
    async with serving(app_on(engine, auth="off")) as client:
        body = {**ORDER, "unique_key": unique}
        for _ in range(3):
            await post(client, body)

        async def pushed() -> bool:
            shown = (await client.get("/queues")).json()["queues"]
            return [queue["depth"] for queue in shown if queue["name"] == "email"] == [1]

        await eventually(pushed)
    assert await count(engine) == 1


async def test_a_key_without_the_scope_or_for_another_queue_learns_nothing(engine: Engine) -> None:
    reader, other = await new_key(engine, Scope.JOBS_READ), await new_key(engine, queues={"payment"})
    async with serving(app_on(engine)) as client:
        assert [(await post(client, **headers))[0] for headers in (reader, other)] == [403, 403]
    assert await engine.rows("SELECT count(*) FROM idempotency_keys") == [(0,)]
