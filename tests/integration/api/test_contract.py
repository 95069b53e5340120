"""The REST contract of the Go project, line by line, against a real server."""

from typing import Any

import httpx
import pytest

MAIL = {"to": "ada@example.org", "subject": "Hi", "body": "Hello"}


async def created(client: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    answer = await client.post("/jobs/create", json={"queue": "email", "payload": MAIL, **more})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def no_job_was_made(client: httpx.AsyncClient, queue: str = "images") -> None:
    assert (await client.get("/jobs", params={"queue": queue})).json() == []


@pytest.mark.parametrize("path", ["/", "/health", "/health/db", "/livez", "/readyz"])
async def test_health_is_ok(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_create_answers_201_with_the_job(client: httpx.AsyncClient) -> None:
    job = await created(client, max_retries=3)
    assert job["queue"] == "email"
    assert job["type"] == "send_email"
    assert job["payload"] == MAIL
    assert job["max_retries"] == 3
    assert (job["status"], job["attempts"], job["result"], job["error"]) == ("pending", 0, None, None)
    assert (await client.get(f"/jobs/{job['id']}")).json() == job


@pytest.mark.parametrize(
    ("body", "error", "fields"),
    [
        (b"{", "invalid json", None),
        (b"", "invalid json", None),
        (b'{"queue": "email", "payload": {"to": NaN}}', "invalid json", None),
        (b'{"queue": "\xff"}', "invalid json", None),
        (b'{"queue": "images", "payload": {"a": "\\u0000"}}', "invalid json", None),
        (b"[]", "validation failed", {"body"}),
        (b"{}", "validation failed", {"queue", "payload"}),
        (b'{"queue": "images", "payload": {}, "extra": 1}', "validation failed", {"extra"}),
        (b'{"queue": "images", "payload": {}, "max_retries": 21}', "validation failed", {"max_retries"}),
        (b'{"queue": "images", "payload": {}, "max_retries": 1e400}', "invalid json", None),
        (b'{"queue": "images", "payload": {}, "priority": 9999999999999999999}', "validation failed", {"priority"}),
        (b'{"queue": "images", "payload": {"a": 99999999999999999999}}', "invalid json", None),
        (b'{"queue": "nope", "payload": {}}', "invalid queue", {"provided", "allowed"}),
        (b'{"queue": "images", "type": "nope", "payload": {}}', "invalid job type", {"provided", "allowed"}),
        (b'{"queue": "images", "type": "send_email", "payload": 5}', "invalid payload format", None),
        (
            b'{"queue": "images", "type": "send_email", "payload": {}}',
            "payload validation failed",
            {"to", "subject", "body"},
        ),
    ],
)
async def test_a_wrong_create_is_400_and_makes_no_job(
    client: httpx.AsyncClient, body: bytes, error: str, fields: set[str] | None
) -> None:
    answer = await client.post("/jobs/create", content=body)
    assert answer.status_code == 400, answer.text
    found = answer.json()
    assert found["error"].startswith(error)
    assert set(found.get("fields", ())) == (fields or set())
    assert set(found) <= {"error", "fields"}
    await no_job_was_made(client)


@pytest.mark.parametrize("id", ["0", "-1", "x", "1.5", "9223372036854775808", "99999999999999999999999", "%00", "٣"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/jobs/{}"),
        ("PUT", "/jobs/{}/status"),
        ("POST", "/jobs/{}/increment"),
        ("POST", "/jobs/{}/save"),
        ("POST", "/jobs/{}/cancel"),
        ("POST", "/jobs/{}/retry"),
        ("DELETE", "/jobs/{}"),
        ("GET", "/jobs/{}/attempts"),
    ],
)
async def test_an_impossible_id_is_400(client: httpx.AsyncClient, method: str, path: str, id: str) -> None:
    answer = await client.request(method, path.format(id))
    assert (answer.status_code, answer.json()) == (400, {"error": "invalid ID"})


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/jobs/{}", None),
        ("PUT", "/jobs/{}/status", {"status": "failed"}),
        ("POST", "/jobs/{}/increment", None),
        ("POST", "/jobs/{}/save", {"result": 1}),
        ("POST", "/jobs/{}/cancel", None),
        ("POST", "/jobs/{}/retry", None),
        ("DELETE", "/jobs/{}", None),
        ("GET", "/jobs/{}/attempts", None),
    ],
)
async def test_an_unknown_job_is_404(client: httpx.AsyncClient, method: str, path: str, body: Any) -> None:
    answer = await client.request(method, path.format(9223372036854775807), json=body)
    assert (answer.status_code, answer.json()) == (404, {"error": "job not found"})


async def test_status_moves_along_the_state_machine_and_409_where_it_forbids(client: httpx.AsyncClient) -> None:
    job = (await created(client))["id"]
    path = f"/jobs/{job}/status"
    assert (await client.put(path, json={"status": "completed"})).status_code == 409
    assert (await client.put(path, json={"status": "processing"})).status_code == 204
    assert (await client.put(path, json={"status": "completed"})).status_code == 204
    refused = await client.put(path, json={"status": "pending"})
    assert (refused.status_code, refused.json()["fields"]) == (409, {"status": "completed", "requested": "pending"})
    done = (await client.get(f"/jobs/{job}")).json()
    assert done["status"] == "completed"
    assert done["finished_at"] is not None


@pytest.mark.parametrize("body", [b"{}", b'{"status": "running"}', b'{"status": 1}', b"[]", b"nope"])
async def test_a_wrong_status_is_400(client: httpx.AsyncClient, body: bytes) -> None:
    job = (await created(client))["id"]
    assert (await client.put(f"/jobs/{job}/status", content=body)).status_code == 400
    assert (await client.get(f"/jobs/{job}")).json()["status"] == "pending"


async def test_increment_adds_one_attempt_and_loses_none_of_many(client: httpx.AsyncClient) -> None:
    import asyncio

    job = (await created(client))["id"]
    answers = await asyncio.gather(*(client.post(f"/jobs/{job}/increment") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {204}
    assert (await client.get(f"/jobs/{job}")).json()["attempts"] == 20


async def test_save_keeps_result_and_error(client: httpx.AsyncClient) -> None:
    job = (await created(client))["id"]
    answer = await client.post(f"/jobs/{job}/save", json={"result": {"ok": [1, None]}, "error": "half"})
    assert answer.status_code == 204
    saved = (await client.get(f"/jobs/{job}")).json()
    assert (saved["result"], saved["error"]) == ({"ok": [1, None]}, "half")


@pytest.mark.parametrize(
    "body", [b'{"error": 5}', b'{"what": 1}', b"[]", b'{"result": "\\u0000"}', b'{"result": 1e999}']
)
async def test_a_wrong_save_is_400(client: httpx.AsyncClient, body: bytes) -> None:
    job = (await created(client))["id"]
    assert (await client.post(f"/jobs/{job}/save", content=body)).status_code == 400


@pytest.mark.parametrize("path", ["/jobs", "/jobs/", "/jobs?queue=", "/jobs/?limit=5"])
async def test_a_list_without_a_queue_is_400(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.json()) == (400, {"error": "queue parameter is required"})


@pytest.mark.parametrize("path", ["/jobs", "/jobs/"])
async def test_a_list_shows_a_queue_newest_last(client: httpx.AsyncClient, path: str) -> None:
    ids = [(await created(client, queue="default"))["id"] for _ in range(3)]
    answer = await client.get(path, params={"queue": "default", "limit": 1000})
    assert answer.status_code == 200
    assert [job["id"] for job in answer.json()][-3:] == ids


@pytest.mark.parametrize("path", ["/nowhere", "/jobs/1/nowhere", "/health/", "/queues/email"])
async def test_an_unknown_path_is_404_in_the_one_shape(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.json()) == (404, {"error": "not found"})


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/jobs", "GET, HEAD"),
        ("PUT", "/jobs/1", "DELETE, GET, HEAD"),
        ("POST", "/jobs/1/status", "PUT"),
        ("PATCH", "/schedules/daily", "DELETE, GET, HEAD, PUT"),
        ("PUT", "/jobs/create", "DELETE, GET, HEAD, POST"),
    ],
)
async def test_a_wrong_method_is_405_in_the_one_shape_and_names_the_right_ones(
    client: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.json()) == (405, {"error": "method not allowed"})
    assert answer.headers["allow"] == allowed
