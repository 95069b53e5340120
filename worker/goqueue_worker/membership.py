"""The worker's sign of life, written by a thread of its own so that no handler can keep it from its heartbeat.

The rescuer takes a worker for dead when its `beat` stood still for a whole lease. So that no job runs twice, the
worker must give up first: once `FENCE_AT` of a lease has passed since the start of its last successful heartbeat it
fences itself, i.e. stops what it runs and hands it back. What it then still writes is fenced by the jobs' leases.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
import psycopg
import structlog

from goqueue import metrics
from goqueue.settings import EngineSettings
from goqueue.store import session, sql
from goqueue.store.connect import Hosts

FENCE_AT: Final = 0.7
"""Share of the lease after which a worker without a written heartbeat stops its jobs."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Standing:
    """What the worker tells with each heartbeat."""

    busy: int
    draining: bool
    stats: dict[str, Any]


class Membership:
    """Registers the worker and keeps it registered; the callbacks run in the heartbeat thread.

    `on_fence` is called when the lease may be lost; `on_joined(worker_id)` when a (new) registration holds.
    """

    def __init__(
        self,
        dsn: str,
        engine: EngineSettings,
        name: str,
        queues: list[str],
        concurrency: int,
        standing: Callable[[], Standing],
        on_joined: Callable[[int], None],
        on_fence: Callable[[], None],
        pgbouncer: bool = False,
    ) -> None:
        self._dsn = dsn
        self._pgbouncer = pgbouncer
        self._lease = engine.lease_seconds
        self._interval = engine.heartbeat_seconds
        self._me = (name, queues, concurrency)
        self._standing = standing
        self._on_joined = on_joined
        self._on_fence = on_fence
        self._stop = threading.Event()
        self._empty = True
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._connection: psycopg.Connection[Any] | None = None
        self.worker_id: int | None = None
        self.beaten_at = 0.0
        """`time.monotonic()` at the start of the last heartbeat that was written."""

    def start(self) -> None:
        """Begin to register and beat."""
        self._thread.start()

    def leave(self, *, empty: bool) -> None:
        """Stop beating, and deregister if `empty`: a worker that leaves jobs behind is not forgotten but buried, when
        its lease is over, and its jobs are rescued then. Call it in a thread that may wait."""
        self._empty = empty
        self._stop.set()
        self._thread.join(timeout=10)

    @property
    def fenced(self) -> bool:
        """True while the worker must not run jobs."""
        return self.worker_id is None or time.monotonic() - self.beaten_at > FENCE_AT * self._lease

    @property
    def age(self) -> float:
        """Seconds since the last heartbeat that was written; NaN before the first."""
        return time.monotonic() - self.beaten_at if self.beaten_at else math.nan

    def _run(self) -> None:
        was_fenced = True
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                was = self.worker_id
                self._beat()
                self.beaten_at = started
                metrics.HEARTBEATS.inc(1, "written")
                if (was_fenced or was != self.worker_id) and self.worker_id is not None:
                    self._on_joined(self.worker_id)
                was_fenced = False
            except (psycopg.Error, OSError) as error:
                log.warning("heartbeat not written", error=type(error).__name__)
                metrics.HEARTBEATS.inc(1, "missed")
                self._hang_up()
            if self.fenced and not was_fenced:
                was_fenced = True
                log.error("fenced: no heartbeat within the lease", lease_seconds=self._lease)
                self._on_fence()
            pause = self._interval if not was_fenced else min(self._interval, 0.5)
            self._stop.wait(max(0.05, pause - (time.monotonic() - started)))
        self._depart()

    def _beat(self) -> None:
        if self._connection is None:
            # Shorter than the time to the fence, so that a database that does not answer is noticed in time.
            limit = max(1, int(self._lease * FENCE_AT / 2))
            hosts = Hosts(self._dsn, limit)
            each = max(2, limit // hosts.count)
            self._connection = psycopg.connect(
                hosts.conninfo(), autocommit=True, connect_timeout=each, tcp_user_timeout=limit * 1000
            )
            if self._pgbouncer:
                self._connection.prepare_threshold = None
            self._connection.execute(
                session.preamble(
                    self._connection.info.server_version,
                    pgbouncer=self._pgbouncer,
                    statement_timeout_ms=limit * 1000,
                ),
                prepare=False,
            )
        if self.worker_id is not None:
            now = self._standing()
            row = self._connection.execute(
                sql.HEARTBEAT,
                {
                    "worker": self.worker_id,
                    "busy": now.busy,
                    "draining": now.draining,
                    "stats": orjson.dumps(now.stats).decode(),
                },
            ).fetchone()
            if row is not None:
                return
            log.error("declared dead by the rescuer, registering anew", worker_id=self.worker_id)
            self.worker_id = None
            self._on_fence()
        row = self._connection.execute(sql.REGISTER_WORKER, self._me).fetchone()
        assert row is not None  # noqa: S101 - INSERT … RETURNING
        self.worker_id = int(row[0])

    def _depart(self) -> None:
        try:
            if self.worker_id is not None and self._connection is not None and self._empty:
                self._connection.execute(sql.DEREGISTER_WORKER, (self.worker_id,))
        except psycopg.Error as error:
            log.warning("could not deregister; the rescuer will", error=type(error).__name__)
        self._hang_up()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
