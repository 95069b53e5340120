"""Schemathesis over the whole OpenAPI against a real server: never a 5xx, and nothing that is not documented."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from goqueue.broker import Broker
from goqueue.builtin import TYPE_OF_QUEUE
from goqueue.keys import Token
from goqueue.settings import ApiSettings, DatabaseSettings, EngineSettings, RedisSettings
from goqueue.store.connect import Database
from goqueue_api.app import create_app
from tests.integration.api.conftest import running_api
from tests.servers.stores import FreshDatabase, FreshRedis

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]


@schemathesis.serializer("application/x-ndjson")
def ndjson(context: Any, value: Any) -> bytes:
    """Generated text goes as it is; anything else as one line."""
    return value.encode(errors="replace") if isinstance(value, str) else json.dumps(value).encode()


def _document() -> dict[str, Any]:
    app = create_app(
        Database("", DatabaseSettings()),
        Broker(RedisSettings()),
        api=ApiSettings(),
        engine=EngineSettings(),
        connect=DatabaseSettings(),
    )
    return app.openapi()


schema = schemathesis.openapi.from_dict(_document())
schema.config.generation.update(with_security_parameters=False)  # the tests have keys of their own


KEY = Token.new()


@pytest.fixture(scope="module")
def closed_api_url(
    database: FreshDatabase, ready_queues: FreshRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """An API that asks for keys and knows one."""
    more = {"GOQUEUE_API_AUTH": "required", "GOQUEUE_API_BOOTSTRAP_KEY": KEY.text}
    with running_api(database, ready_queues, tmp_path_factory.mktemp("api"), **more) as url:
        yield url


@pytest.mark.timeout(120)
@schema.parametrize()
@settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_documented_and_none_is_a_failure(case: schemathesis.Case[Any], closed_api_url: str) -> None:
    response = case.call(base_url=closed_api_url, headers={"Authorization": f"Bearer {KEY.text}"})
    assert response.status_code not in (401, 403)
    case.validate_response(response, checks=CHECKS)
    if response.status_code >= 400:
        assert {"error"} <= set(response.json()) <= {"error", "fields"}


@settings(
    max_examples=5, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
)
@schema.parametrize()
def test_without_a_key_every_answer_but_of_open_routes_is_401(
    case: schemathesis.Case[Any], closed_api_url: str
) -> None:
    response = case.call(base_url=closed_api_url, headers={"Authorization": ""})
    case.validate_response(response, checks=CHECKS)
    if case.operation.definition.raw["security"]:
        assert response.status_code in (401, 404, 405)  # an empty name makes the path another one


def test_every_operation_documents_its_errors() -> None:
    for path, operations in _document()["paths"].items():
        for method, operation in operations.items():
            assert {"408", "500", "503"} <= set(operation["responses"]), f"{method} {path}"
            assert ("422" in operation["responses"]) == (path == "/jobs/create"), f"{method} {path}"
            assert ("415" in operation["responses"]) == ("requestBody" in operation), f"{method} {path}"
            assert method in ("get", "post", "put", "delete"), f"{method} {path}"
            if "{" in path:
                assert "400" in operation["responses"], f"{method} {path}"
            for status, response in operation["responses"].items():
                assert "X-Request-ID" in response["headers"], f"{method} {path} {status}"
                if status >= "400":
                    shape = response["content"]["application/json"]["schema"]
                    assert shape == {"$ref": "#/components/schemas/Error"}, f"{method} {path} {status}"


def test_the_document_begins_with_what_a_newcomer_needs() -> None:
    info = _document()["info"]
    for named in ("GET /types", "POST /jobs/create", "Authorization: Bearer"):
        assert named in info["description"]


def test_every_operation_has_a_summary_that_is_a_phrase_of_its_own() -> None:
    named = {
        f"{method} {path}": (operation["summary"], operation["operationId"].split("_", 1)[1])
        for path, operations in _document()["paths"].items()
        for method, operation in operations.items()
    }
    summaries = [summary for summary, _ in named.values()]
    assert len(summaries) == len(set(summaries))
    made_up = [name for name, (summary, function) in named.items() if summary == function.replace("_", " ").title()]
    assert made_up == []
    assert named["post /jobs/create"][0] == "Create a job"


@pytest.mark.parametrize(
    ("path", "method", "count"),
    [
        ("/jobs/create", "post", 4),
        ("/jobs/bulk", "post", 1),
        ("/schedules/{name}", "put", 1),
        ("/admin/keys", "post", 1),
    ],
)
async def test_each_example_of_a_body_is_accepted_as_it_is(
    closed_api_url: str, path: str, method: str, count: int
) -> None:
    operation = _document()["paths"][path][method]
    examples = operation["requestBody"]["content"]["application/json"]["examples"]
    assert len(examples) == count
    headers = {"Authorization": f"Bearer {KEY.text}"}
    async with httpx.AsyncClient(base_url=closed_api_url, headers=headers) as client:
        for name, example in examples.items():
            answer = await client.request(method, path.format(name="example"), json=example["value"])
            assert answer.status_code in (200, 201), f"{name}: {answer.text}"  # 200: its `unique_key` is in use


def test_there_is_an_example_for_each_built_in_type() -> None:
    operation = _document()["paths"]["/jobs/create"]["post"]
    examples = operation["requestBody"]["content"]["application/json"]["examples"]
    assert set(TYPE_OF_QUEUE.values()) <= set(examples)


def test_the_document_says_which_fields_are_needed_where_the_contract_is_odd() -> None:
    document = _document()
    [queue] = [one for one in document["paths"]["/jobs"]["get"]["parameters"] if one["name"] == "queue"]
    assert queue["required"] is True
    assert "default" not in queue["schema"]
    order = document["components"]["schemas"]["Order"]
    assert order["required"] == ["payload"]
    assert all(order["properties"][name]["description"] for name in ("queue", "type", "payload"))


def test_operation_ids_are_names_that_a_client_can_use() -> None:
    ids = [operation["operationId"] for path in _document()["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
    assert {"jobs_create", "jobs_create_many", "jobs_find", "queues_pause", "schedules_put"} <= set(ids)
