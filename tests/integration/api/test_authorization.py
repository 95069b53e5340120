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
