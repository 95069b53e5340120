"""Quotas on waiting jobs, on real stores."""

import asyncio

import httpx

from goqueue_api.quotas import LOOK
from tests.integration.api.serving import app_on, new_key, serving
from tests.integration.engine import Engine, eventually

ORDER = {"queue": "email", "type": "send_email", "payload": {"to": "ada@example.org", "subject": "Hi", "body": "Hello"}}


async def test_a_tenant_over_its_quota_is_refused_and_no_other_and_let_in_again_when_its_jobs_have_gone(
    engine: Engine,
) -> None:
    acme = await new_key(engine, tenant="acme")
    other = await new_key(engine, tenant="other")
    async with serving(app_on(engine, tenant_quota=10)) as client:

        async def create(key: dict[str, str]) -> httpx.Response:
            return await client.post("/jobs/create", json=ORDER, headers=key)

        answers = await asyncio.gather(*(create(acme) for _ in range(12)))
        assert sorted(answer.status_code for answer in answers) == [201] * 10 + [429] * 2
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.headers["Retry-After"] == str(int(LOOK))
        assert refused.json() == {
            "error": "too many requests",
            "fields": {"limit": "waiting_jobs", "retry_after": int(LOOK)},
        }
        bulk = await client.post("/jobs/bulk", json=[ORDER] * 11, headers=other)
        assert bulk.status_code == 429
        assert (await client.post("/jobs/bulk", json=[ORDER] * 10, headers=other)).status_code == 201
        counts = await engine.rows("SELECT tenant, count(*) FROM jobs GROUP BY tenant ORDER BY tenant")
        assert counts == [("acme", 10), ("other", 10)]

        await engine.execute("UPDATE jobs SET status = 'cancelled', finished_at = now() WHERE tenant = 'acme'")

        async def let_in() -> bool:
            return (await create(acme)).status_code == 201

        await eventually(let_in, 3 * LOOK + 5)
        assert (await create(other)).status_code == 429


async def test_a_quota_counts_what_stood_there_before_the_process_began(engine: Engine) -> None:
    async with serving(app_on(engine, auth="off")) as client:
        assert (await client.post("/jobs/bulk", json=[ORDER] * 5)).status_code == 201
    async with serving(app_on(engine, auth="off", tenant_quota=5)) as client:
        assert (await client.post("/jobs/create", json=ORDER)).status_code == 429
