"""How the runner sees from outside what a system has done: cheap, and exact at both ends of a window.

A system that keeps rows is asked through a sample of primary keys while it runs (a thousand look-ups,
whatever the depth) and counted exactly where a clock starts or stops. What Redis holds is counted by the length
of its keys.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import psycopg
from psycopg import sql
from redis import Redis

SAMPLE = 1000


@dataclass
class Stores:
    """Connections of the runner's own to the database and the Valkey of the system under test."""

    postgres: psycopg.Connection[tuple[int]]
    redis: Redis


class Counter(Protocol):
    """Counts the jobs of one system."""

    def stored(self, stores: Stores) -> int:
        """Jobs that are there, waiting or done."""

    def begin(self, stores: Stores, total: int) -> None:
        """Prepare to watch `total` jobs that wait."""

    def roughly(self, stores: Stores) -> int:
        """Jobs finished so far; cheap, and all of them only when that is exact."""

    def exactly(self, stores: Stores) -> int:
        """Jobs finished so far."""


class Rows:
    """Jobs are rows; `finished` says in SQL whose end is persisted (None: those are deleted)."""

    def __init__(self, table: str, finished: str | None, key: str = "id") -> None:
        self.table = table
        self._finished = finished
        self.key = key
        self._sample: list[int] = []
        self._total = 0

    def _count(self, stores: Stores, condition: str, *parameters: object) -> int:
        query = f"SELECT count(*) FROM {self.table} WHERE {condition}"  # noqa: S608 - both are constants of ours
        row = stores.postgres.execute(sql.SQL(query), parameters).fetchone()
        assert row is not None
        return row[0]

    def stored(self, stores: Stores) -> int:
        return self._count(stores, "true")

    def begin(self, stores: Stores, total: int) -> None:
        # The first keys too: the earliest completions, seen at once however deep the backlog is.
        query = (
            f"SELECT {self.key} FROM (SELECT {self.key}, row_number() OVER (ORDER BY {self.key}) AS n"  # noqa: S608 - constants of the benchmarks
            f" FROM {self.table}) AS keys WHERE n %% %s = 0 OR n <= 20"
        )
        step = max(1, total // SAMPLE)
        self._sample = [row[0] for row in stores.postgres.execute(sql.SQL(query), (step,))]
        self._total = total

    def roughly(self, stores: Stores) -> int:
        among = self._count(stores, f"{self.key} = ANY(%s) AND {self._finished or 'true'}", self._sample)
        if self._finished is None:
            among = len(self._sample) - among
        if among == len(self._sample):
            return self.exactly(stores)
        return min(self._total - 1, among * self._total // len(self._sample))

    def exactly(self, stores: Stores) -> int:
        if self._finished is None:
            return self._total - self._count(stores, "true")
        return self._count(stores, self._finished)


class Keys:
    """Jobs live in Redis; `left` says how many are waiting or running there."""

    def __init__(self, left: Callable[[Redis], int]) -> None:
        self._left = left
        self._total = 0

    def stored(self, stores: Stores) -> int:
        return self._left(stores.redis)

    def begin(self, stores: Stores, total: int) -> None:
        self._total = total

    def roughly(self, stores: Stores) -> int:
        return self._total - self._left(stores.redis)

    exactly = roughly


class Results(Rows):
    """Jobs wait in Redis, and a row appears for each whose result is stored."""

    def __init__(self, table: str, finished: str, waiting: Counter) -> None:
        super().__init__(table, finished)
        self._waiting = waiting

    def stored(self, stores: Stores) -> int:
        return self._waiting.stored(stores)

    def begin(self, stores: Stores, total: int) -> None:
        self._total = total

    def roughly(self, stores: Stores) -> int:
        return self.exactly(stores)
