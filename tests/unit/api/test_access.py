"""The gate: which header is a credential, and that no route comes without a decision."""

import pytest
from fastapi import APIRouter, FastAPI, Request
from starlette.responses import Response

from goqueue.access import Scope
from goqueue.errors import Forbidden
from goqueue_api.access import (
    Caller,
    Undecided,
    bearer,
    check_decided,
    decision_of,
    needs,
    open_to_all,
    shows_credentials,
)
from goqueue_api.openness import is_loopback
from goqueue_api.routing import Direct, Guarded, all_routes


@pytest.mark.parametrize(
    ("headers", "credential"),
    [
        ([], None),
        ([(b"authorization", b"Bearer abc")], "abc"),
        ([(b"authorization", b"bearer  abc ")], "abc"),
        ([(b"authorization", b"Basic YTpi")], None),
        ([(b"authorization", b"Bearer")], None),
        ([(b"authorization", b"Bearer abc"), (b"authorization", b"Bearer def")], None),
        ([(b"authorization", "Bearer é".encode())], None),
        ([(b"x-api-key", b"abc")], None),
    ],
)
def test_one_bearer_header_is_a_credential_and_nothing_else_is(
    headers: list[tuple[bytes, bytes]], credential: str | None
) -> None:
    assert bearer(headers) == credential


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        ([], False),
        ([(b"authorization", b"")], False),
        ([(b"authorization", b"Basic YTpi")], False),
        ([(b"authorization", b"NTLM")], False),
        ([(b"authorization", b"Bearer abc")], True),
        ([(b"authorization", b"Bearer")], True),
        ([(b"authorization", b"gq_x_y")], True),
        ([(b"authorization", b"Token gq_x_y")], True),
        ([(b"authorization", b"Basic YTpi"), (b"authorization", b"Bearer abc")], True),
    ],
)
def test_whatever_may_be_meant_for_this_api_is_shown_as_a_credential(
    headers: list[tuple[bytes, bytes]], shown: bool
) -> None:
    assert shows_credentials(headers) is shown


@pytest.mark.parametrize("kind", [Guarded, Direct])
def test_a_route_without_a_decision_cannot_be_registered(kind: type[Guarded]) -> None:
    router = APIRouter(route_class=kind)

    async def forgotten(request: Request) -> Response:
        return Response()

    with pytest.raises(Undecided, match="forgotten needs @needs"):
        router.get("/forgotten")(forgotten)


def test_an_app_with_a_route_of_another_kind_does_not_start() -> None:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/past-the-gate")
    async def past(request: Request) -> Response:
        return Response()

    with pytest.raises(Undecided, match="past needs @needs"):
        check_decided(all_routes(app))


def test_a_decision_is_read_off_the_function() -> None:
    @needs(Scope.JOBS_READ)
    async def guarded(request: Request) -> Response:
        return Response()

    @open_to_all
    async def opened(request: Request) -> Response:
        return Response()

    assert (decision_of(guarded).scope, decision_of(opened).scope) == (Scope.JOBS_READ, None)


def test_a_restricted_caller_names_only_its_own_queues_and_types() -> None:
    caller = Caller("key:x", None, frozenset(), frozenset({"email"}), frozenset({"send_email"}))
    caller.check_use("email", "send_email")
    caller.check_use("email")
    for queue, type, field in [("payment", "send_email", "queue"), ("email", "send_webhook", "type")]:
        with pytest.raises(Forbidden) as caught:
            caller.check_use(queue, type)
        assert list(caught.value.fields) == [field]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("api.example.org", False),
        ("localhost.evil", False),
    ],
)
def test_which_addresses_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
