"""docs/payloads.md says what becomes of numbers and keys on their way: each row of its table is sent here."""

from pathlib import Path
from typing import Any

import pytest

from goqueue.builtin import SendWebhook
from goqueue.encryption import Keyring, new_key
from goqueue.errors import InvalidInput
from goqueue.jsontext import decode
from goqueue.registry import JobContext, JobType
from goqueue.settings import WebhookSettings
from goqueue_worker.handlers.send_webhook import WebhookSender
from tests.integration.engine import Anything, Engine
from tests.integration.handlers.receiver import receiver

PAGE = Path(__file__).resolve().parents[2] / "docs" / "payloads.md"


def rows() -> list[list[str]]:
    """The table's cells, without the back quotes."""
    table = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table]


async def arrived(engine: Engine, texts: list[str]) -> list[tuple[str, str]]:
    """What a handler and the receiver of a webhook get, for each text."""
    handled: dict[int, str] = {}

    async def keep(payload: Anything, job: JobContext) -> None:
        handled[job.job_id] = repr((payload.model_extra or {})["v"])

    engine.registry.add(JobType("keep", Anything, handler=keep))
    with receiver() as target:
        sender = WebhookSender(WebhookSettings(allow_networks=["127.0.0.1/32"]))
        engine.registry.add(JobType("send_webhook", SendWebhook, handler=sender.send))
        kept: list[int] = []
        sent: list[int] = []
        async with engine.worker():
            for text in texts:
                body = f'{{"v": {text}}}'
                kept.append(await engine.enqueue("keep", payload=decode(body)))
                order = f'{{"url": "{target.url}/{len(sent)}", "method": "POST", "body": {body}}}'
                sent.append(await engine.enqueue("send_webhook", payload=decode(order)))
            for job_id in (*kept, *sent):
                await engine.until(job_id, "completed")
        await sender.close()
        bodies = {int(request.path[1:]): request.body.decode() for request in target.requests}
    return [
        (handled[job_id], bodies[number].removeprefix('{"v":').removesuffix("}")) for number, job_id in enumerate(kept)
    ]


@pytest.mark.parametrize("encrypted", [False, True], ids=["jsonb", "encrypted"])
async def test_each_value_arrives_as_the_page_says(engine: Engine, encrypted: bool) -> None:
    if encrypted:
        engine.database.keyring = Keyring([new_key()])
    table = rows()
    assert len(table) >= 15
    found = await arrived(engine, [row[0] for row in table])
    said = [(row[3], row[4]) if encrypted else (row[1], row[2]) for row in table]
    assert dict(zip([row[0] for row in table], found, strict=True)) == dict(
        zip([row[0] for row in table], said, strict=True)
    )


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1])
def test_whole_numbers_of_more_than_64_bits_are_refused(number: int) -> None:
    with pytest.raises(InvalidInput, match="a whole number needs more than 64 bits"):
        decode(f'{{"v": {number}}}')


async def test_results_take_the_same_way(engine: Engine) -> None:
    async def give(payload: Anything, job: JobContext) -> dict[str, Any]:
        return {"b": 2**64 - 1, "aa": 1.0, "a": 1e16}

    engine.registry.add(JobType("give", Anything, handler=give))
    async with engine.worker():
        job = await engine.until(await engine.enqueue("give"), "completed")
    assert repr(job.result) == "{'a': 10000000000000000, 'b': 18446744073709551615, 'aa': 1.0}"
