"""What the API does beyond the Go project's contract, against a real server."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest

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


async def test_a_callers_trace_context_is_kept_with_the_job(client: httpx.AsyncClient, database: Any) -> None:
    import psycopg

    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    job = (await client.post("/jobs/create", json=ORDER, headers={"traceparent": parent})).json()
    with psycopg.connect(database.dsn) as connection:
        row = connection.execute("SELECT trace_context FROM jobs WHERE id = %s", (job["id"],)).fetchone()
    assert row == (parent,)
