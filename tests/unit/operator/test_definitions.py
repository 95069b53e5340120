"""The definitions that the chart ships are those that the source says, and agree with the engine."""

from pathlib import Path

from goqueue.settings import QUEUE_NAME
from goqueue_operator.crds import schema
from goqueue_operator.crds.__main__ import rendered
from goqueue_operator.crds.job import ORDER
from goqueue_operator.payloads import NAMES

CHECKOUT = Path(__file__).resolve().parents[3]
SHIPPED = CHECKOUT / "charts" / "goqueue" / "files" / "crds"


def test_the_shipped_definitions_are_those_of_the_source() -> None:
    assert {path.name: path.read_text() for path in SHIPPED.glob("*.yaml")} == rendered(), (
        "run `python -m goqueue_operator.crds charts/goqueue/files/crds`"
    )


def test_queue_names_are_those_of_the_engine() -> None:
    assert QUEUE_NAME.pattern == schema.QUEUE


def test_every_field_of_an_order_reaches_the_engine() -> None:
    assert {*ORDER, "availableAt"} == {*NAMES, "payload", "payloadFrom"}
