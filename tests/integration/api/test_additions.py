"""What the API does beyond the Go project's contract, against a real server."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import psycopg
import pytest

from tests.cronlines import ACCEPTED, REFUSED, WRONG
from tests.servers.stores import FreshDatabase

MAIL = {"to": "ada@example.org", "subject": "Hi", "body": "Hello"}
ORDER = {"queue": "email", "payload": MAIL}


async def created(client: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    answer = await client.post("/jobs/create", json={**ORDER, **more})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_fifty_creates_at_once_with_one_key_make_one_job(client: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "order-1"}
    answers = await asyncio.gather(*(client.post("/jobs/create", json=ORDER, headers=headers) for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_a_key_is_free_again_when_its_job_is_final(client: httpx.AsyncClient) -> None:
    first = await created(client, unique_key="again")
    assert (await client.post("/jobs/create", json={**ORDER, "unique_key": "again"})).json()["id"] == first["id"]
    await client.post(f"/jobs/{first['id']}/cancel")
    assert (await created(client, unique_key="again"))["id"] != first["id"]


@pytest.mark.parametrize("key", [b"", b"x" * 256, b"a\xa0b"])
async def test_an_impossible_key_is_400(client: httpx.AsyncClient, key: bytes) -> None:
    answer = await client.post("/jobs/create", json=ORDER, headers={b"Idempotency-Key": key})
    assert (answer.status_code, list(answer.json()["fields"])) == (400, ["Idempotency-Key"])


async def test_many_creates_at_once_are_many_jobs(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(client.post("/jobs/create", json=ORDER) for _ in range(200)))
    assert len({answer.json()["id"] for answer in answers}) == 200


async def test_priority_time_and_timeout_are_kept(client: httpx.AsyncClient) -> None:
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    job = await created(client, priority=7, available_at=later.isoformat(), timeout=1.5)
    assert (job["priority"], job["timeout"]) == (7, 1.5)
    assert datetime.fromisoformat(job["available_at"]) == later
    assert (await client.get(f"/jobs/{job['id']}")).json() == job


@pytest.mark.parametrize("ndjson", [False, True])
async def test_bulk_accepts_all_in_order(client: httpx.AsyncClient, ndjson: bool) -> None:
    orders = [{**ORDER, "priority": number % 10} for number in range(1000)]
    body = b"\n".join(map(orjson.dumps, orders)) if ndjson else orjson.dumps(orders)
    answer = await client.post("/jobs/bulk", content=body)
    assert answer.status_code == 201
    ids = answer.json()["ids"]
    assert answer.json()["created"] == len(set(ids)) == 1000
    assert (await client.get(f"/jobs/{ids[537]}")).json()["priority"] == 7


async def test_bulk_with_one_wrong_order_makes_none_and_names_its_index(client: httpx.AsyncClient) -> None:
    orders = [{**ORDER, "queue": "images", "type": "send_email"}] * 5 + [{"queue": "images"}]
    answer = await client.post("/jobs/bulk", json=orders)
    assert (answer.status_code, list(answer.json()["fields"])) == (400, ["5"])
    assert (await client.get("/jobs", params={"queue": "images"})).json() == []


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"5", b'[{"queue"', b'{"queue": "email"}\nnope', orjson.dumps([ORDER] * 10_001)]
)
async def test_an_impossible_bulk_is_400(client: httpx.AsyncClient, body: bytes) -> None:
    assert (await client.post("/jobs/bulk", content=body)).status_code == 400


async def test_bulk_finds_jobs_by_their_keys(client: httpx.AsyncClient) -> None:
    orders = [{**ORDER, "unique_key": "b1"}, ORDER, {**ORDER, "unique_key": "b1"}]
    first = (await client.post("/jobs/bulk", json=orders)).json()
    assert first["created"] == 2
    assert first["ids"][0] == first["ids"][2] != first["ids"][1]


async def test_pages_by_key_show_every_job_once(client: httpx.AsyncClient) -> None:
    await client.post("/jobs/bulk", json=[{**ORDER, "queue": "default"}] * 25)
    seen: list[int] = []
    after = 0
    while page := (await client.get("/jobs", params={"queue": "default", "limit": 10, "after": after})).json():
        seen += [job["id"] for job in page]
        after = seen[-1]
    assert len(seen) == len(set(seen)) == 25
    newest = (await client.get("/jobs", params={"queue": "default", "newest_first": True, "limit": 1})).json()
    assert newest[0]["id"] == seen[-1]


async def test_the_link_header_leads_from_page_to_page_and_is_missing_at_the_end(client: httpx.AsyncClient) -> None:
    made = (await client.post("/jobs/bulk", json=[{**ORDER, "queue": "default"}] * 5)).json()["ids"]
    first = min(made) - 1
    address = f"/jobs?queue=default&limit=2&after={first}"
    seen: list[int] = []
    while address:
        answer = await client.get(address)
        seen += [job["id"] for job in answer.json()]
        following = answer.links.get("next", {}).get("url")
        address = str(answer.url.join(following)) if following else ""
    assert seen == sorted(made)


async def test_filters_narrow_the_list(client: httpx.AsyncClient) -> None:
    job = await created(client)
    await client.post(f"/jobs/{job['id']}/cancel")
    cancelled = (await client.get("/jobs", params={"queue": "email", "status": "cancelled", "limit": 1000})).json()
    assert job["id"] in {one["id"] for one in cancelled}
    assert {one["status"] for one in cancelled} == {"cancelled"}
    none = await client.get("/jobs", params={"queue": "email", "created_after": "2100-01-01T00:00:00Z"})
    assert none.json() == []
    assert (await client.get("/jobs", params={"queue": "email", "type": "send_webhook"})).json() == []


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "1001"},
        {"limit": "x"},
        {"status": "running"},
        {"created_after": "yesterday"},
        {"created_after": "2026-01-01T00:00:00"},
        {"after": "-1"},
        {"after": "9223372036854775808"},
        {"surprise": "1"},
    ],
)
async def test_a_wrong_query_is_400_and_named(client: httpx.AsyncClient, query: dict[str, str]) -> None:
    answer = await client.get("/jobs", params={"queue": "email", **query})
    assert (answer.status_code, list(answer.json()["fields"])) == (400, list(query))


async def test_cancel_retry_and_delete(client: httpx.AsyncClient) -> None:
    path = f"/jobs/{(await created(client))['id']}"
    assert (await client.post(f"{path}/retry")).status_code == 409
    assert (await client.post(f"{path}/cancel")).json() == {"status": "cancelled"}
    assert (await client.post(f"{path}/cancel")).status_code == 409
    assert (await client.post(f"{path}/retry")).json()["status"] == "pending"
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).status_code == 404
    assert (await client.delete(path)).status_code == 404


async def test_queues_show_depth_and_pause(client: httpx.AsyncClient) -> None:
    await created(client, queue="payment", type="send_email")

    async def payment() -> dict[str, Any]:
        shown = (await client.get("/queues")).json()
        assert shown["degraded"] is False
        return next(dict(queue) for queue in shown["queues"] if queue["name"] == "payment")

    assert (await payment())["depth"] == 1
    assert (await client.post("/queues/payment/pause")).status_code == 204
    assert (await payment())["paused"] is True
    assert (await client.post("/queues/payment/resume")).status_code == 204
    assert (await payment())["paused"] is False
    answer = await client.post("/queues/nope/pause")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid queue")


async def test_a_queue_of_types_that_the_api_has_not_loaded_is_shown_and_paused_while_it_is_in_use(
    client: httpx.AsyncClient, database: FreshDatabase
) -> None:
    assert (await client.post("/queues/lemons/pause")).status_code == 400
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO jobs (queue, type, payload) VALUES ('lemons', 'squeeze', '{}')")
    shown = (await client.get("/queues")).json()["queues"]
    assert [queue["name"] for queue in shown] == ["default", "email", "webhooks", "payment", "images", "lemons"]
    assert (await client.post("/queues/lemons/pause")).status_code == 204
    assert (await client.get("/queues")).json()["queues"][-1]["paused"] is True
    assert (await client.post("/queues/lemons/resume")).status_code == 204
    answer = await client.post("/jobs/create", json={"queue": "lemons", "type": "send_email", "payload": {}})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid queue")
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("DELETE FROM jobs WHERE queue = 'lemons'")


async def test_a_schedule_is_made_replaced_shown_and_deleted(client: httpx.AsyncClient) -> None:
    body = {"cron": "0 9 * * *", "time_zone": "Europe/Berlin", "job": ORDER}
    made = await client.put("/schedules/daily", json=body)
    assert made.status_code == 201
    assert len(made.json()["next_ticks"]) == 5
    replaced = await client.put("/schedules/daily", json={**body, "enabled": False})
    assert (replaced.status_code, replaced.json()["next_ticks"]) == (200, [])
    assert (await client.get("/schedules/daily")).json()["time_zone"] == "Europe/Berlin"
    assert [one["name"] for one in (await client.get("/schedules")).json()] == ["daily"]
    assert (await client.delete("/schedules/daily")).status_code == 204
    assert (await client.get("/schedules/daily")).status_code == 404


async def test_a_schedule_is_paused_resumed_and_run_without_its_definition(
    client: httpx.AsyncClient, database: FreshDatabase
) -> None:
    job = {"type": "send_email", "payload": MAIL, "priority": 7}
    made = (await client.put("/schedules/weekly", json={"cron": "0 9 * * 1", "job": job})).json()
    assert made["job"] == {**job, "queue": "email"}
    paused = await client.post("/schedules/weekly/pause")
    assert (paused.status_code, paused.json()["enabled"], paused.json()["next_ticks"]) == (200, False, [])
    ran = await client.post("/schedules/weekly/run")
    assert ran.status_code == 201
    assert (ran.json()["queue"], ran.json()["priority"], ran.json()["source"]) == ("email", 7, "schedule")
    assert (await client.get(f"/jobs/{ran.json()['id']}")).json() == ran.json()
    for _ in range(2):  # the second one changes nothing
        resumed = await client.post("/schedules/weekly/resume")
        assert (resumed.status_code, resumed.json()["next_ticks"]) == (200, made["next_ticks"])
    for act in ("pause", "resume", "run"):
        answer = await client.post(f"/schedules/nothing/{act}")
        assert (answer.status_code, answer.json()) == (404, {"error": "schedule not found"})
    with psycopg.connect(database.dsn) as connection:
        acts = connection.execute(
            "SELECT action, details->'job_id' FROM audit_log WHERE object = 'weekly' ORDER BY id"
        ).fetchall()
    assert acts == [
        ("schedule.put", None),
        ("schedule.paused", None),
        ("schedule.run", ran.json()["id"]),
        ("schedule.resumed", None),
    ]
    assert (await client.delete("/schedules/weekly")).status_code == 204


async def test_a_resumed_schedule_fires_at_no_tick_that_it_missed_and_a_due_tick_of_one_that_fires_stays(
    client: httpx.AsyncClient, database: FreshDatabase
) -> None:
    await client.put("/schedules/missed", json={"cron": "0 9 * * *", "job": ORDER})
    with psycopg.connect(database.dsn, autocommit=True) as connection:

        def is_due() -> bool:
            row = connection.execute("SELECT next_tick <= now() FROM schedules WHERE name = 'missed'").fetchone()
            return bool(row and row[0])

        connection.execute("UPDATE schedules SET next_tick = now() - interval '1 minute' WHERE name = 'missed'")
        await client.post("/schedules/missed/resume")
        assert is_due()
        await client.post("/schedules/missed/pause")
        await client.post("/schedules/missed/resume")
        assert not is_due()
    await client.delete("/schedules/missed")


async def test_a_schedule_that_is_run_while_its_unique_job_is_open_gives_that_job(client: httpx.AsyncClient) -> None:
    job = {**ORDER, "unique_key": "one-at-a-time"}
    await client.put("/schedules/single", json={"cron": "0 9 * * *", "job": job})
    first, second = [await client.post("/schedules/single/run") for _ in range(2)]
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]
    await client.delete("/schedules/single")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"cron": "nope"}, "cron"),
        ({"cron": "0 0 30 2 *"}, "cron"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"job": {"queue": "nope", "payload": {}}}, "job.provided"),
        ({"job": {**ORDER, "available_at": "2030-01-01T00:00:00Z"}}, "job.available_at"),
        ({"surprise": 1}, "surprise"),
    ],
)
async def test_a_wrong_schedule_is_400_and_not_kept(client: httpx.AsyncClient, change: Any, field: str) -> None:
    answer = await client.put("/schedules/wrong", json={"cron": "* * * * *", "job": ORDER, **change})
    assert answer.status_code == 400
    assert field in answer.json()["fields"]
    assert (await client.get("/schedules/wrong")).status_code == 404


async def test_lines_of_other_systems_are_400_in_words_and_usual_names_are_understood(
    client: httpx.AsyncClient,
) -> None:
    for line, words in {**REFUSED, **WRONG}.items():
        answer = await client.put("/schedules/wrong", json={"cron": line, "job": ORDER})
        assert (answer.status_code, answer.json()["error"]) == (400, "validation failed"), line
        assert answer.json()["fields"]["cron"].startswith(words), line
    assert (await client.get("/schedules")).json() == []
    for line in ACCEPTED:
        answer = await client.put("/schedules/right", json={"cron": line, "job": ORDER})
        assert answer.status_code in (200, 201), line
        assert len(answer.json()["next_ticks"]) == 5


async def test_types_show_their_payloads_schema(client: httpx.AsyncClient) -> None:
    shown = {kind["name"]: kind for kind in (await client.get("/types")).json()}
    assert set(shown) == {"send_email", "send_webhook", "process_payment"}
    assert set(shown["send_email"]["payload"]["required"]) == {"to", "subject", "body"}


async def test_a_body_over_the_limit_is_413_also_without_a_declared_length(client: httpx.AsyncClient) -> None:
    large = orjson.dumps({**ORDER, "payload": {**MAIL, "body": "x" * 1024 * 1024}})

    async def chunks() -> Any:
        yield large

    for content in (large, chunks()):
        answer = await client.post("/jobs/create", content=content)
        assert (answer.status_code, answer.json()["error"]) == (413, "request body is too large")


async def test_a_request_keeps_its_decent_id_and_gets_one_where_it_has_none(client: httpx.AsyncClient) -> None:
    assert (await client.get("/livez", headers={"X-Request-ID": "abc-123"})).headers["x-request-id"] == "abc-123"
    made = (await client.get("/livez", headers={"X-Request-ID": "not decent"})).headers["x-request-id"]
    assert len(made) == 32


async def test_a_callers_trace_context_is_kept_with_the_job(client: httpx.AsyncClient, database: FreshDatabase) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    job = (await client.post("/jobs/create", json=ORDER, headers={"traceparent": parent})).json()
    with psycopg.connect(database.dsn) as connection:
        row = connection.execute("SELECT trace_context FROM jobs WHERE id = %s", (job["id"],)).fetchone()
    assert row == (parent,)


async def test_bulk_takes_ten_thousand_jobs(client: httpx.AsyncClient) -> None:
    answer = await client.post("/jobs/bulk", content=orjson.dumps([ORDER] * 10_000))
    assert (answer.status_code, answer.json()["created"]) == (201, 10_000)


async def test_bulk_has_a_limit_of_its_own_and_says_it(client: httpx.AsyncClient) -> None:
    answer = await client.post("/jobs/bulk", content=b" " * (16 * 1024 * 1024 + 1))
    assert (answer.status_code, answer.json()["fields"]) == (413, {"limit_bytes": 16 * 1024 * 1024})


async def test_one_key_for_a_whole_bulk_is_refused_rather_than_ignored(client: httpx.AsyncClient) -> None:
    answer = await client.post("/jobs/bulk", json=[ORDER], headers={"Idempotency-Key": "k"})
    assert (answer.status_code, list(answer.json()["fields"])) == (400, ["Idempotency-Key"])


async def test_the_key_of_a_deleted_job_that_still_runs_is_a_conflict(
    client: httpx.AsyncClient, database: FreshDatabase
) -> None:
    job = (await created(client, unique_key="running"))["id"]
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("UPDATE jobs SET status = 'processing', worker_id = 7 WHERE id = %s", (job,))
    assert (await client.delete(f"/jobs/{job}")).status_code == 204
    answer = await client.post("/jobs/create", json={**ORDER, "unique_key": "running"})
    assert (answer.status_code, answer.json()["fields"]) == (409, {"id": job})


async def test_a_running_job_is_asked_to_stop(client: httpx.AsyncClient, database: FreshDatabase) -> None:
    job = (await created(client))["id"]
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("UPDATE jobs SET status = 'processing', worker_id = 7 WHERE id = %s", (job,))
    answer = await client.post(f"/jobs/{job}/cancel")
    assert (answer.status_code, answer.json()) == (202, {"status": "processing"})
    assert (await client.get(f"/jobs/{job}")).json()["cancel_requested"] is True


async def test_attempts_and_log_lines_are_shown_and_lines_come_in_pages(
    client: httpx.AsyncClient, database: FreshDatabase
) -> None:
    job = (await created(client))["id"]
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO job_attempts (job_id, lease, attempt, outcome, error, worker) "
            "SELECT %s, n, n, 'retried', 'broke', 'w1' FROM generate_series(1, 2) AS n",
            (job,),
        )
        connection.execute(
            "INSERT INTO job_logs (job_id, attempt, level, message) "
            "SELECT %s, 1, 'info', 'line ' || n FROM generate_series(1, 5) AS n",
            (job,),
        )
    shown = (await client.get(f"/jobs/{job}/attempts")).json()
    assert [(one["attempt"], one["outcome"], one["error"], one["worker"]) for one in shown["attempts"]] == [
        (1, "retried", "broke", "w1"),
        (2, "retried", "broke", "w1"),
    ]
    path = f"/jobs/{job}/logs"
    page = await client.get(path, params={"limit": 3})
    first = page.json()
    following = await client.get(path + page.links["next"]["url"])
    rest = following.json()
    assert "link" not in following.headers
    assert first + rest == shown["logs"]
    assert [line["message"] for line in first + rest] == [f"line {n}" for n in range(1, 6)]


async def test_queues_show_what_workers_have_in_hand(client: httpx.AsyncClient, database: FreshDatabase) -> None:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO workers (name, queues, concurrency, stats) VALUES "
            """('w1', '{images}', 5, '{"images": {"busy": 3, "finished": 9}}'),"""
            """('w2', '{images}', 5, '{"images": {"busy": 1, "finished": 0}}')"""
        )
    shown = (await client.get("/queues")).json()["queues"]
    assert next(queue["in_flight"] for queue in shown if queue["name"] == "images") == 4


async def test_the_docs_page_and_the_document_are_served(client: httpx.AsyncClient) -> None:
    assert (await client.get("/docs")).status_code == 200
    assert (await client.get("/openapi.json")).json()["info"]["title"] == "GoQueue"
