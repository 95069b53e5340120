"""Schemathesis over the whole OpenAPI against a real server: never a 5xx, always the one error shape."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings

from goqueue.broker import Broker
from goqueue.settings import ApiSettings, DatabaseSettings, EngineSettings, RedisSettings
from goqueue.store.connect import Database
from goqueue_api.app import create_app


def _schema() -> dict[str, object]:
    app = create_app(
        Database("", DatabaseSettings()),
        Broker(RedisSettings()),
        api=ApiSettings(),
        engine=EngineSettings(),
        connect=DatabaseSettings(),
    )
    return app.openapi()


schema = schemathesis.openapi.from_dict(_schema())


@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("default")
@schema.parametrize()
@settings(
    max_examples=20,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_input_makes_the_server_fail(case: schemathesis.Case[Any], api_url: str) -> None:
    response = case.call(base_url=api_url)
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert set(response.json()) <= {"error", "fields"}
        assert "error" in response.json()


def test_every_operation_documents_its_errors() -> None:
    document = _schema()
    paths = document["paths"]
    assert isinstance(paths, dict)
    for path, operations in paths.items():
        for method, operation in operations.items():
            assert {"408", "500", "503"} <= set(operation["responses"]), f"{method} {path}"
            if "{" in path:
                assert "400" in operation["responses"], f"{method} {path}"
