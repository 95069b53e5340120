"""Every route, every scope, every tenant: who gets in, who is refused, and who cannot tell that there is anything.

DECISIONS says it all in one place, and by hand: a route that is added without a line here fails the tests.
"""

from typing import Any, Final

import httpx
import pytest

from goqueue.access import Scope
from goqueue.keys import Token
from goqueue_api.routing import Guarded, all_routes
from tests.integration.api.serving import app_on, new_key, serving
from tests.integration.engine import Engine

OPEN: Final = None
DECISIONS: Final[dict[tuple[str, str], str | None]] = {
    ("GET", "/"): OPEN,
    ("GET", "/health"): OPEN,
    ("GET", "/health/db"): OPEN,
    ("GET", "/livez"): OPEN,
    ("GET", "/readyz"): OPEN,
    ("GET", "/docs"): OPEN,
    ("GET", "/docs/"): OPEN,
    ("GET", "/docs/{name}"): OPEN,
    ("POST", "/jobs/create"): "jobs:write",
    ("POST", "/jobs/bulk"): "jobs:write",
    ("GET", "/jobs"): "jobs:read",
    ("GET", "/jobs/"): "jobs:read",
    ("GET", "/jobs/{id}"): "jobs:read",
    ("DELETE", "/jobs/{id}"): "jobs:write",
    ("PUT", "/jobs/{id}/status"): "jobs:write",
    ("POST", "/jobs/{id}/increment"): "jobs:write",
    ("POST", "/jobs/{id}/save"): "jobs:write",
    ("POST", "/jobs/{id}/cancel"): "jobs:write",
    ("POST", "/jobs/{id}/retry"): "jobs:write",
    ("GET", "/jobs/{id}/attempts"): "jobs:read",
    ("GET", "/jobs/{id}/logs"): "jobs:read",
    ("GET", "/queues"): "jobs:read",
    ("POST", "/queues/{name}/pause"): "queues:manage",
    ("POST", "/queues/{name}/resume"): "queues:manage",
    ("GET", "/schedules"): "jobs:read",
    ("GET", "/schedules/{name}"): "jobs:read",
    ("PUT", "/schedules/{name}"): "schedules:manage",
    ("POST", "/schedules/{name}/pause"): "schedules:manage",
    ("POST", "/schedules/{name}/resume"): "schedules:manage",
    ("POST", "/schedules/{name}/run"): "schedules:manage",
    ("DELETE", "/schedules/{name}"): "schedules:manage",
    ("GET", "/types"): "jobs:read",
    ("GET", "/admin/keys"): "keys:manage",
    ("POST", "/admin/keys"): "keys:manage",
    ("DELETE", "/admin/keys/{prefix}"): "keys:manage",
    ("POST", "/admin/keys/{prefix}/rotate"): "keys:manage",
    ("GET", "/admin/audit"): "keys:manage",
}
GUARDED: Final = {route: scope for route, scope in DECISIONS.items() if scope is not None}


def path_of(template: str, **names: Any) -> str:
    """The path with names of things that do not exist, or those given."""
    return template.format(**{"id": 999_999_999, "name": "default", "prefix": "0" * 12, **names})


async def call(
    client: httpx.AsyncClient, route: tuple[str, str], headers: dict[str, str], path: str = "", **more: Any
) -> httpx.Response:
    """One request; a body that is wrong everywhere, so that whoever is let in changes nothing."""
    method, template = route
    if method in ("POST", "PUT") and "json" not in more:
        more["content"] = b"nonsense"
    if route[1].rstrip("/") == "/jobs":
        more["params"] = {"queue": "default"}
    return await client.request(method, path or path_of(template), headers=headers, **more)


def test_every_route_is_in_the_table_with_its_scope(engine: Engine) -> None:
    routes = [route for route in all_routes(app_on(engine)) if isinstance(route, Guarded)]
    decided = {
        (method, route.path): None if route.decision.scope is None else route.decision.scope.value
        for route in routes
        for method in route.methods or ()
    }
    assert decided == DECISIONS


async def test_each_route_lets_in_its_own_scope_and_no_other(engine: Engine) -> None:
    keys = {scope.value: await new_key(engine, scope) for scope in Scope}
    nobody = {
        "no key": {},
        "a key that is none": {"Authorization": "Bearer nonsense"},
        "a key that nobody made": {"Authorization": f"Bearer {Token.new().text}"},
    }
    tested, wrong = 0, []
    async with serving(app_on(engine)) as client:
        for route, needed in DECISIONS.items():
            for name, headers in {**nobody, **keys}.items():
                answer = await call(client, route, headers)
                if needed is OPEN or name == needed:
                    right = answer.status_code not in (401, 403)
                elif name in nobody:
                    right = (answer.status_code, answer.json()) == (401, {"error": "unauthorized"})
                else:
                    expected = {"error": "forbidden", "fields": {"scope": needed}}
                    right = (answer.status_code, answer.json()) == (403, expected)
                tested += 1
                if not right:
                    wrong.append((*route, name, answer.status_code, answer.text[:100]))
    print(f"{tested} decisions: {len(DECISIONS)} routes × {len(keys)} scopes and {len(nobody)} times nobody")
    assert wrong == []
    assert tested == len(DECISIONS) * 8


@pytest.mark.parametrize("path", ["/nothing", "/jobs/1/nothing", "/admin"])
async def test_what_does_not_exist_is_404_for_everybody(engine: Engine, path: str) -> None:
    async with serving(app_on(engine)) as client:
        assert (await client.get(path)).status_code == 404


# --- tenants ---------------------------------------------------------------------------------------------------------

HELD: Final = "2100-01-01T00:00:00Z"
MAIL: Final = {"to": "ada@example.org", "subject": "Hi", "body": "Hello"}
ORDER: Final = {"queue": "email", "type": "send_email", "payload": MAIL, "available_at": HELD}
HOOK: Final = {"url": "http://example.org/", "method": "POST", "body": {}}
PLAN: Final[dict[str, Any]] = {"cron": "0 6 * * *", "job": {"queue": "email", "type": "send_email", "payload": MAIL}}
BODIES: Final[dict[tuple[str, str], Any]] = {
    ("PUT", "/jobs/{id}/status"): {"status": "processing"},
    ("POST", "/jobs/{id}/save"): {"result": 1},
    ("POST", "/admin/keys/{prefix}/rotate"): {},
}
OF_ONE_THING: Final = [
    route for route in GUARDED if "{" in route[1] and not route[1].startswith("/queues/") and route[0] != "PUT"
] + [("PUT", "/jobs/{id}/status")]
"""Routes that name a job, a schedule or a key. (PUT /schedules/{name} makes one: see below.)"""

STRANGERS: Final[dict[str, dict[str, Any]]] = {
    "another tenant": {"tenant": "other"},
    "the default tenant": {},
    "the tenant, other queues": {"tenant": "acme", "queues": {"payment"}},
    "the tenant, other types": {"tenant": "acme", "types": {"send_webhook"}},
}


async def things(client: httpx.AsyncClient, headers: dict[str, str], status: str) -> dict[str, Any]:
    """A job that can be told to do what the routes tell it, a schedule and a key, made by the caller."""
    job = (await client.post("/jobs/create", json=ORDER, headers=headers)).json()["id"]
    if status == "cancelled":
        assert (await client.post(f"/jobs/{job}/cancel", headers=headers)).status_code == 200
    name = f"daily-{job}"
    assert (await client.put(f"/schedules/{name}", json=PLAN, headers=headers)).status_code == 201
    key = await client.post("/admin/keys", json={"name": "k", "scopes": ["jobs:read"]}, headers=headers)
    return {"id": job, "name": name, "prefix": key.json()["prefix"]}


@pytest.mark.timeout(120)
async def test_what_is_not_within_reach_is_answered_as_if_it_were_not_there(engine: Engine) -> None:
    owner = await new_key(engine, tenant="acme")
    strangers = {name: await new_key(engine, **more) for name, more in STRANGERS.items()}
    tested, wrong = 0, []
    async with serving(app_on(engine)) as client:
        for route in OF_ONE_THING:
            status = "cancelled" if route[1].endswith("/retry") else "pending"
            found = await things(client, owner, status)
            path = path_of(route[1], **found)
            before = await engine.rows("SELECT to_jsonb(jobs) FROM jobs WHERE id = %s", found["id"])
            body = {"json": BODIES[route]} if route in BODIES else {}
            for name, headers in strangers.items():
                if "{prefix}" in route[1] and name != "another tenant":
                    continue  # whoever manages the keys of the default tenant manages all; keys are in no queue
                answer = await call(client, route, headers, path, **body)
                nothing = await call(client, route, headers, path_of(route[1], name="nothing"), **body)
                tested += 1
                if (answer.status_code, answer.content) != (404, nothing.content):
                    wrong.append((*route, name, answer.status_code, answer.text[:100]))
            assert await engine.rows("SELECT to_jsonb(jobs) FROM jobs WHERE id = %s", found["id"]) == before
            answer = await call(client, route, owner, path, **body)
            tested += 1
            if answer.status_code >= 300:
                wrong.append((*route, "its owner", answer.status_code, answer.text[:100]))
    print(f"{tested} decisions: {len(OF_ONE_THING)} routes × {len(strangers)} strangers and the owner")
    assert wrong == []


async def test_lists_counts_and_the_audit_log_show_a_tenant_its_own_only(engine: Engine) -> None:
    callers = {tenant: await new_key(engine, tenant=tenant) for tenant in ("acme", "other", None)}
    ready = {key: value for key, value in ORDER.items() if key != "available_at"}
    own: dict[str | None, list[int]] = {}
    async with serving(app_on(engine)) as client:
        for number, (tenant, headers) in enumerate(callers.items(), start=1):
            made = await client.post("/jobs/bulk", json=[ready] * number, headers=headers)
            own[tenant] = made.json()["ids"]
            await client.put("/schedules/daily", json=PLAN, headers=headers)
            await client.post(f"/jobs/{own[tenant][0]}/cancel", headers=headers)
        for number, (tenant, headers) in enumerate(callers.items(), start=1):
            for newest_first in ("true", "false"):
                query = {"queue": "email", "newest_first": newest_first}
                listed = (await client.get("/jobs", params=query, headers=headers)).json()
                assert sorted(job["id"] for job in listed) == own[tenant]
                assert {job["tenant"] for job in listed} == {tenant}
            queues = {queue["name"]: queue for queue in (await client.get("/queues", headers=headers)).json()["queues"]}
            assert queues["email"]["depth"] == number - 1
            schedules = (await client.get("/schedules", headers=headers)).json()
            assert [(one["name"], one["tenant"]) for one in schedules] == [("daily", tenant)]
            audit = (await client.get("/admin/audit", headers=headers)).json()
            keys = (await client.get("/admin/keys", headers=headers)).json()
            if tenant is not None:
                assert {entry["tenant"] for entry in audit} == {tenant}
                assert [key["tenant"] for key in keys] == [tenant]
            cancelled = [entry for entry in audit if entry["action"] == "job.cancelled" and entry["tenant"] == tenant]
            assert [entry["object"] for entry in cancelled] == [str(own[tenant][0])]
        assert (await client.delete("/schedules/daily", headers=callers["acme"])).status_code == 204
        assert (await client.get("/schedules/daily", headers=callers["other"])).status_code == 200


@pytest.mark.parametrize("bulk", [False, True])
async def test_a_unique_key_is_one_within_a_tenant_only(engine: Engine, bulk: bool) -> None:
    callers = {tenant: await new_key(engine, tenant=tenant) for tenant in ("acme", "other", None)}
    order = {**ORDER, "unique_key": "invoice-7"}
    first: dict[str | None, int] = {}
    async with serving(app_on(engine)) as client:

        async def made(headers: dict[str, str]) -> tuple[int, bool]:
            if bulk:
                answer = (await client.post("/jobs/bulk", json=[order], headers=headers)).json()
                return answer["ids"][0], answer["created"] == 1
            answer = await client.post("/jobs/create", json=order, headers=headers)
            return answer.json()["id"], answer.status_code == 201

        for tenant, headers in callers.items():
            first[tenant], new = await made(headers)
            assert new
        assert len(set(first.values())) == 3
        for tenant, headers in callers.items():
            assert await made(headers) == (first[tenant], False)
            path = f"/jobs/{first[tenant]}"
            await client.post(f"{path}/cancel", headers=headers)
            await client.post(f"{path}/retry", headers=headers)
            assert await made(headers) == (first[tenant], False)  # a retried job has its key again


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/jobs/create", {**ORDER, "queue": "payment"}),
        (
            "POST",
            "/jobs/create",
            {
                "queue": "email",
                "type": "send_webhook",
                "payload": {"url": "http://x.example", "method": "POST", "body": {}},
            },
        ),
        (
            "POST",
            "/jobs/create",
            {"type": "send_webhook", "payload": {"url": "http://x.example", "method": "POST", "body": {}}},
        ),
        ("POST", "/jobs/bulk", [ORDER, {**ORDER, "queue": "default"}]),
        ("PUT", "/schedules/mine", {"cron": "0 6 * * *", "job": {**PLAN["job"], "queue": "default"}}),
        ("PUT", "/schedules/theirs", PLAN),
        ("POST", "/queues/default/pause", None),
        ("POST", "/queues/default/resume", None),
        ("GET", "/jobs?queue=default", None),
        ("GET", "/jobs?queue=email&type=send_webhook", None),
    ],
)
async def test_a_restricted_key_is_refused_what_it_names_beyond_its_queues_and_types_and_changes_nothing(
    engine: Engine, method: str, path: str, body: Any
) -> None:
    restricted = await new_key(engine, tenant="acme", queues={"email"}, types={"send_email"})
    everything = await new_key(engine, tenant="acme")
    theirs = {"cron": "0 6 * * *", "job": {"queue": "default", "type": "send_email", "payload": MAIL}}
    async with serving(app_on(engine)) as client:
        await client.put("/schedules/theirs", json=theirs, headers=everything)
        before = await engine.rows("SELECT to_jsonb(schedules) FROM schedules")
        answer = await client.request(method, path, json=body, headers=restricted)
        assert (answer.status_code, answer.json()["error"]) == (403, "forbidden"), answer.text
        assert await engine.rows("SELECT to_jsonb(schedules) FROM schedules") == before
        assert await engine.rows("SELECT count(*) FROM jobs") == [(0,)]
        assert await engine.rows("SELECT count(*) FROM queues WHERE paused_at IS NOT NULL") == [(0,)]
        queues = (await client.get("/queues", headers=restricted)).json()["queues"]
        assert [queue["name"] for queue in queues] == ["email"]
        assert (await client.post("/jobs/create", json=ORDER, headers=restricted)).status_code == 201


async def test_a_tenant_pauses_only_queues_that_its_key_names_since_all_share_them(engine: Engine) -> None:
    whole, named = await new_key(engine, tenant="acme"), await new_key(engine, tenant="acme", queues={"email"})
    async with serving(app_on(engine)) as client:
        assert (await client.post("/queues/email/pause", headers=whole)).status_code == 403
        assert (await client.post("/queues/email/pause", headers=named)).status_code == 204


async def test_a_key_restricted_to_types_pauses_only_queues_that_it_names_since_all_types_share_them(
    engine: Engine,
) -> None:
    of_a_type = await new_key(engine, types={"send_email"})
    named = await new_key(engine, types={"send_email"}, queues={"email"})
    async with serving(app_on(engine)) as client:
        for act in ("pause", "resume"):
            assert (await client.post(f"/queues/payment/{act}", headers=of_a_type)).status_code == 403
            assert (await client.post(f"/queues/payment/{act}", headers=named)).status_code == 403
            assert (await client.post(f"/queues/email/{act}", headers=named)).status_code == 204
