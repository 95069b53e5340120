"""Which queues there are, in every process."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from goqueue.errors import InvalidInput
from goqueue.orders import accept
from goqueue.queues import Queues
from goqueue.registry import JobType, Registry
from goqueue.settings import EngineSettings, WorkerSettings, load

BUILT_IN = ["default", "email", "webhooks", "payment"]


class Squeeze(BaseModel):
    lemons: int = 1


def test_a_setting_adds_queues_to_the_built_in_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOQUEUE_QUEUES", "lemons,email")
    assert list(Queues(Registry(), load(EngineSettings).queues)) == [*BUILT_IN, "lemons"]
    monkeypatch.setenv("GOQUEUE_QUEUES", "")
    assert list(Queues(Registry(), load(EngineSettings).queues)) == BUILT_IN


def test_the_queue_of_a_registered_type_is_known_without_a_setting() -> None:
    registry = Registry([JobType("squeeze", Squeeze, queue="lemons")])
    queues = Queues(registry, ["mine"])
    assert list(queues) == [*BUILT_IN, "lemons", "mine"]
    assert len(queues) == 6
    assert accept({"queue": "lemons", "type": "squeeze", "payload": {}}, registry, queues).queue == "lemons"


def test_the_queue_of_a_type_that_is_registered_later_is_known_from_then_on() -> None:
    registry = Registry()
    queues = Queues(registry)
    assert "lemons" not in queues
    with pytest.raises(
        InvalidInput, match=r"^invalid queue: provided lemons; allowed default, email, payment, webhooks$"
    ):
        accept({"queue": "lemons", "type": "squeeze", "payload": {}}, registry, queues)
    registry.add(JobType("squeeze", Squeeze, queue="lemons"))
    assert "lemons" in queues


@pytest.mark.parametrize("name", ["Lemons", "", "le mons", "lemons\n", "-lemons", "l" * 64])
def test_a_type_whose_queue_is_no_queue_name_is_not_registered(name: str) -> None:
    registry = Registry()
    with pytest.raises(ValueError, match=r"job type 'squeeze': .* is not a queue name"):
        registry.add(JobType("squeeze", Squeeze, queue=name))
    assert registry.names() == []
    assert not registry.queues


def test_a_worker_serves_the_queues_of_its_types_unless_it_names_others() -> None:
    queues = Queues(Registry([JobType("squeeze", Squeeze, queue="lemons")]))
    assert WorkerSettings().weights(queues) == dict.fromkeys([*BUILT_IN, "lemons"], 1)
    assert WorkerSettings(queues=["lemons:3"]).weights(queues) == {"lemons": 3}


MODULE = """
from pydantic import BaseModel
from goqueue import job_type

class Squeeze(BaseModel):
    lemons: int = 1

@job_type("squeeze", payload=Squeeze, queue="lemons")
async def squeeze(payload, job): ...
"""

KNOWN = """
from goqueue_cli import processes
from goqueue.queues import Queues
from goqueue.registry import REGISTRY
engine = processes._begin("test")
print(*Queues(REGISTRY, engine.queues))
"""


def test_every_process_that_loads_the_types_knows_their_queues(tmp_path: Path) -> None:
    (tmp_path / "lemonade.py").write_text(MODULE)
    environment = {"PYTHONPATH": str(tmp_path), "GOQUEUE_JOBS": "lemonade", "GOQUEUE_QUEUES": "mine"}
    done = subprocess.run([sys.executable, "-c", KNOWN], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [*BUILT_IN, "lemons", "mine"], done.stderr
