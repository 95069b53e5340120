"""Statements run, with READ COMMITTED semantics.

A statement sees what was committed before it began. An UPDATE, DELETE or SELECT FOR UPDATE that meets a row which
another transaction has changed since waits for that transaction, and then looks at the newest version of that one row:
all other rows of the join are those that it saw before (EvalPlanQual;
https://www.postgresql.org/docs/current/transaction-iso.html#XACT-READ-COMMITTED, and the README of its executor).
"""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final

from psycopg import errors

from tests.simulation.pg import syntax
from tests.simulation.pg.parser import Unsupported
from tests.simulation.pg.storage import Cell, Snapshot, Storage, Table, Transaction
from tests.simulation.pg.syntax import Env, Row, Select, Source
from tests.simulation.pg.values import AGGREGATES, cast

Tuple = tuple[Any, ...]
CELL: Final = "\0cell"
"""The key under which a row of a table carries its `Cell` while a statement works on it."""


class Result:
    """Rows with the names of their columns; `count` is what psycopg calls `rowcount`."""

    def __init__(self, names: list[str] | None, rows: list[Tuple], count: int) -> None:
        self.names = names
        self.rows = rows
        self.count = count


class Execution:
    """One statement of one transaction."""

    def __init__(
        self,
        storage: Storage,
        transaction: Transaction,
        statement: syntax.Statement,
        parameters: Any,
        pause: Callable[[], Awaitable[None]],
        lock_timeout: float,
    ) -> None:
        """`pause` is awaited where other transactions may come between; `lock_timeout` in seconds, 0: none."""
        self.parameters = parameters
        self.now = transaction.now
        self._storage = storage
        self._transaction = transaction
        self._statement = statement
        self._pause = pause
        self._lock_timeout = lock_timeout
        self._snapshot: Snapshot
        self._named: dict[str, list[Row]] = {}
        self._columns: dict[str, list[str]] = {}
        self._locked: dict[int, list[Tuple]] = {}

    async def run(self) -> Result:
        """Carry it out.

        Raises:
            psycopg.Error: as PostgreSQL would refuse it.
        """
        self._snapshot = self._storage.snapshot(self._transaction)
        await self._pause()
        for query in self._statement.locking:
            if query is not self._statement.body:
                self._locked[id(query)] = await self._select_locking(query)
        for cte in self._statement.ctes:
            if cte.recursive and cte.body.more:
                self._repeat(cte)
            else:
                result = await self._carry_out(cte.body)
                self._columns[cte.name] = cte.columns or result.names or []
                self._named[cte.name] = _named(self._columns[cte.name], result.rows)
        return await self._carry_out(self._statement.body)

    def _repeat(self, cte: syntax.Cte) -> None:
        """WITH RECURSIVE: the part behind UNION ALL again and again, on what it found last."""
        [(_, step)] = cte.body.more
        names = self._columns[cte.name] = cte.columns or self._names(cte.body)
        start = Select(cte.body.items, cte.body.sources, cte.body.where, first=cte.body.first)
        found = last = _named(names, self.subselect(start, None))
        while last:
            self._named[cte.name] = last
            last = _named(names, self.subselect(step, None))
            found = found + last
        self._named[cte.name] = found

    async def _carry_out(self, body: Any) -> Result:
        match body:
            case Select():
                if id(body) in self._locked:
                    rows = self._locked[id(body)]
                elif body.lock is not None and body.lock.row:
                    rows = await self._select_locking(body)
                else:
                    rows = self.subselect(body, None)
                return Result(self._names(body), rows, len(rows))
            case syntax.Insert():
                return await self._insert(body)
            case syntax.Update():
                return await self._change(body, body.sets)
            case syntax.Delete():
                return await self._change(body, None)
            case syntax.LockTable():
                self._transaction.writes.add(body.table)
                return Result(None, [], -1)
        raise Unsupported(f"statement {body!r}")

    # --- queries -----------------------------------------------------------------------------------------------------

    def subselect(self, query: Select, env: Env | None) -> list[Tuple]:
        """The rows of a query without locks, or those of a locking one that were found before."""
        if id(query) in self._locked:
            return self._locked[id(query)]
        if query.values is not None:
            return [tuple(one(Env({}, self, env)) for one in row) for row in query.values]
        if query.first is not None:
            rows: list[tuple[Tuple, dict[str, Row]]] = [(row, {}) for row in self.subselect(query.first, env)]
        else:
            rows = self._projected(query, self._filtered(query, env))
        for keep, other in query.more:
            rows += [(row, {}) for row in self.subselect(other, env)]
            if not keep:
                rows = [(row, {}) for row in dict.fromkeys(row for row, _ in rows)]
        return self._ordered(query, rows, env)

    def _filtered(self, query: Select, outer: Env | None) -> list[Env]:
        envs = self._joined(query.sources, Env({}, self, outer))
        return [env for env in envs if query.where is None or query.where(env) is True]

    def _projected(self, query: Select, envs: list[Env]) -> list[tuple[Tuple, dict[str, Row]]]:
        if query.aggregates or query.group is not None:
            envs = self._grouped(query, envs)
        for window in query.windows:
            self._lead(window, envs)
        rows = [(self._values(query, env), env.rows) for env in envs]
        if query.distinct:
            rows = list({row: (row, found) for row, found in rows}.values())
        return rows

    def _lead(self, window: syntax.Lead, envs: list[Env]) -> None:
        ordered = sorted(envs, key=window.order)
        for env, following in itertools.zip_longest(ordered, ordered[1:]):
            if env is not None:
                value = None if following is None else window.argument(following)
                env.windows = [*(env.windows or []), value]

    def _grouped(self, query: Select, envs: list[Env]) -> list[Env]:
        groups: dict[Tuple, list[Env]] = {} if query.group is not None else {(): []}
        for env in envs:
            groups.setdefault(tuple(one(env) for one in query.group or ()), []).append(env)
        found = []
        for members in groups.values():
            values = []
            for aggregate in query.aggregates:
                passed = [env for env in members if aggregate.filter is None or aggregate.filter(env) is True]
                argument = aggregate.argument
                if argument is None:
                    values.append(len(passed))
                    continue
                items = [argument(env) for env in passed]
                values.append(AGGREGATES[aggregate.name]([item for item in items if item is not None]))
            rows = members[0].rows if members else {}
            outer = members[0].outer if members else None
            found.append(Env(rows, self, outer, values))
        return [env for env in found if query.having is None or query.having(env) is True]

    def _ordered(self, query: Select, rows: list[tuple[Tuple, dict[str, Row]]], outer: Env | None) -> list[Tuple]:
        names = self._names(query) if query.order else []
        for order, falling in reversed(query.order):
            keyed = []
            for row, found in rows:
                output = dict(zip(names, row, strict=False))
                value = order(Env({"\0output": output, **found}, self, outer))
                keyed.append((value is None, value, row, found))
            nones = [(row, found) for none, _, row, found in keyed if none]
            some = sorted((item for item in keyed if not item[0]), key=lambda item: item[1], reverse=falling)
            there = [(row, found) for _, _, row, found in some]
            rows = nones + there if falling else there + nones
        found_rows = [row for row, _ in rows]
        return found_rows if query.limit is None else found_rows[: query.limit(Env({}, self, outer))]

    def _joined(self, sources: list[Source], start: Env) -> list[Env]:
        envs = [start]
        for source in sources:
            more = []
            for env in envs:
                matched = False
                for row in self._rows_of(source, env):
                    joined = Env({**env.rows, source.alias: row}, self, env.outer)
                    if source.on is None or source.on(joined) is True:
                        matched = True
                        more.append(joined)
                if source.left and not matched:
                    nothing = dict.fromkeys(self._columns_of(source))
                    more.append(Env({**env.rows, source.alias: nothing}, self, env.outer))
            envs = more
        return envs

    def _columns_of(self, source: Source) -> list[str]:
        if source.table is not None and source.table in self._storage.tables:
            return list(self._storage.tables[source.table].defaults)
        if source.query is not None:
            return source.columns or self._names(source.query)
        return source.columns or self._columns.get(str(source.table), [])

    def _names(self, query: Select) -> list[str]:
        """The columns of what a query finds."""
        names = []
        for _, name in query.items:
            if name == syntax.STAR:
                names += [column for source in query.sources for column in self._columns_of(source)]
            else:
                names.append(name)
        return names

    def _values(self, query: Select, env: Env) -> Tuple:
        found: list[Any] = []
        for value, name in query.items:
            if name == syntax.STAR:
                for source in query.sources:
                    found += [env.rows[source.alias][column] for column in self._columns_of(source)]
            else:
                found.append(value(env))
        return tuple(found)

    def _rows_of(self, source: Source, env: Env) -> Iterator[Row]:
        if source.query is not None:
            names = source.columns or self._names(source.query)
            for values in self.subselect(source.query, env):
                yield dict(zip(names, values, strict=True))
        elif source.functions is not None:
            yield from self._made(source, env)
        elif source.table in self._named:
            yield from self._named[source.table]
        elif source.table in self._storage.tables:
            table = self._storage.tables[source.table]
            for cell, row in self._storage.rows(table, self._snapshot, self._transaction):
                yield {**row, CELL: cell}
        else:
            yield from self._virtual(str(source.table))

    def _made(self, source: Source, env: Env) -> Iterator[Row]:
        assert source.functions is not None
        [(name, expressions)] = source.functions
        arguments = [one(env) for one in expressions]
        if name == "unnest":
            longest = max((len(one) for one in arguments if one is not None), default=0)
            columns = [[*(one or []), *[None] * (longest - len(one or []))] for one in arguments]
        elif name == "generate_series":
            columns = [list(range(arguments[0], arguments[1] + 1))]
            longest = len(columns[0])
        else:
            raise Unsupported(f"FROM {name}()")
        if source.ordinality:
            columns.append(list(range(1, longest + 1)))
        names = source.columns or [source.alias]
        for values in zip(*columns, strict=True):
            yield dict(zip(names, values, strict=True))

    def _virtual(self, name: str) -> Iterator[Row]:
        """Views of the server's own."""
        if name == "pg_locks":
            for transaction in self._storage.open.values():
                for table in sorted(transaction.writes):
                    yield {
                        "locktype": "relation",
                        "relation": table,
                        "mode": "RowExclusiveLock",
                        "granted": True,
                        "database": 1,
                        "virtualtransaction": f"1/{transaction.number}",
                    }
        elif name == "pg_database":
            yield {"oid": 1, "datname": "goqueue"}
        elif name.endswith("_seq"):
            sequence = self._storage.sequence(name)
            yield {"last_value": sequence.value or 1, "is_called": sequence.value > 0}
        else:
            raise Unsupported(f"table {name}")

    def call(self, name: str, arguments: list[Any]) -> Any:
        """The value of a function of the server's state."""
        if name == "now":
            return self.now
        if name == "nextval":
            return self._storage.draw(arguments[0])
        if name == "random":
            return random.random()
        if name == "set_config":
            return self._set(*arguments)
        if name == "current_database":
            return "goqueue"
        raise Unsupported(f"function {name}()")

    def _set(self, name: str, value: str, local: bool) -> str:
        """`set_config`, of which only a bound to waits in a transaction makes a difference here."""
        if name == "lock_timeout" and local:
            self._transaction.lock_timeout = int(str(value).removesuffix("ms")) / 1000
        return value

    # --- locks -------------------------------------------------------------------------------------------------------

    async def _select_locking(self, query: Select) -> list[Tuple]:
        """SELECT … FOR UPDATE: lock what was found, in its order, and look at the newest versions."""
        assert query.lock is not None
        unlimited = self._filtered(query, None)
        names = {source.alias: source for source in query.sources if source.table in self._storage.tables}
        of = query.lock.of or next(iter(names))
        order = self._ordered(
            Select([(lambda env: None, "")], order=query.order), [((env,), env.rows) for env in unlimited], None
        )
        table = self._storage.tables[str(names[of].table)]
        most = None if query.limit is None else query.limit(Env({}, self))
        found: list[Tuple] = []
        for (env,) in order:
            if most is not None and len(found) >= most:
                break
            newest = await self._newest(table, env, of, query.where, query.lock)
            if newest is not None:
                found.append(self._values(query, newest))
        return found

    async def _newest(
        self, table: Table, env: Env, alias: str, where: syntax.Expression | None, lock: syntax.Lock | None = None
    ) -> Env | None:
        """Lock a row; the rows that its statement goes on with, or None where it is no longer meant."""
        cell: Cell = env.rows[alias][CELL]
        await self._pause()
        if not self._storage.lock(table, cell, self._transaction):
            if lock is not None and lock.skip:
                return None
            if lock is not None and lock.nowait:
                raise errors.LockNotAvailable("could not obtain lock on row")
            await self._wait(table, cell)
        latest = cell.latest()
        if latest is None:
            return None
        if all(latest[name] is env.rows[alias][name] for name in latest):
            return env
        again = Env({**env.rows, alias: {**latest, CELL: cell}}, self, env.outer)
        return again if where is None or where(again) is True else None

    async def _wait(self, table: Table, cell: Cell) -> None:
        async with self._bounded():
            while not self._storage.lock(table, cell, self._transaction):
                await self._wait_for(cell.holder)

    @contextlib.asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        """A wait for another transaction.

        Raises:
            LockNotAvailable: it took longer than `lock_timeout`.
        """
        bound = self._lock_timeout if self._transaction.lock_timeout is None else self._transaction.lock_timeout
        try:
            async with asyncio.timeout(bound or None):
                yield
        except TimeoutError:
            raise errors.LockNotAvailable("canceling statement due to lock timeout") from None

    async def _wait_for(self, holder: Transaction | None) -> None:
        assert holder is not None
        blocker: Transaction | None = holder
        while blocker is not None:
            if blocker is self._transaction:
                raise errors.DeadlockDetected("deadlock detected")
            blocker = blocker.waits_for
        self._transaction.waits_for = holder
        try:
            await asyncio.shield(holder.over)
        finally:
            self._transaction.waits_for = None

    # --- changes -----------------------------------------------------------------------------------------------------

    async def _change(self, body: "syntax.Update | syntax.Delete", sets: Any) -> Result:
        table = self._storage.tables[body.table]
        self._transaction.writes.add(body.table)
        target = Source(body.alias, table=body.table)
        envs = self._joined([target, *body.sources], Env({}, self))
        meant = [env for env in envs if body.where is None or body.where(env) is True]
        changed: set[Cell] = set()
        rows: list[Tuple] = []
        for env in meant:
            if env.rows[body.alias][CELL] in changed:
                continue  # PostgreSQL changes a row once in a statement
            newest = await self._newest(table, env, body.alias, body.where)
            if newest is None:
                continue
            cell: Cell = newest.rows[body.alias][CELL]
            old = {name: value for name, value in newest.rows[body.alias].items() if name != CELL}
            new = None if sets is None else {**old, **{name: value(newest) for name, value in sets}}
            _coerce(table, new)
            changed.add(cell)
            await self._check(table, new, cell)
            self._storage.write(table, cell, new, self._transaction)
            rows.append(self._returned(body, newest, old if new is None else new))
        names = None if body.returning is None else [name for _, name in body.returning]
        return Result(names, rows if names is not None else [], len(rows))

    def _returned(self, body: Any, env: Env, row: Row) -> Tuple:
        # The target comes first, as it does in the list of what a name may mean.
        found = Env({**env.rows, body.alias: row}, self, env.outer)
        return tuple(value(found) for value, _ in body.returning or ())

    async def _check(self, table: Table, row: Row | None, cell: Cell | None) -> None:
        if row is None:
            return
        if not table.check(row):
            raise errors.CheckViolation(f"a CHECK of {table.name} refuses the row")
        if await self._twin(table, row, cell) is not None:
            raise errors.UniqueViolation(f"duplicate key value in {table.name}")

    async def _twin(self, table: Table, row: Row, cell: Cell | None) -> Cell | None:
        """Another row with a key of this one; waits for a transaction that may be making one."""
        for unique in table.unique:
            key = unique.key(row)
            if key is None:
                continue
            again = True
            while again:
                again = False
                for other in table.cells:
                    if other is cell:
                        continue
                    latest = other.latest()
                    committed = other.versions[-1][1] if other.versions else None
                    mine = other.holder is self._transaction
                    if latest is not None and unique.key(latest) == key and (mine or not other.pending):
                        return other
                    keys = {unique.key(one) for one in (latest, committed) if one is not None}
                    if other.pending and not mine and key in keys:
                        async with self._bounded():
                            await self._wait_for(other.holder)
                        again = True
                        break
        return None

    async def _insert(self, body: syntax.Insert) -> Result:
        table = self._storage.tables[body.table]
        self._transaction.writes.add(body.table)
        await self._pause()
        inputs: list[Tuple] = [()] if body.source is None else self.subselect(body.source, None)
        rows: list[Tuple] = []
        for values in inputs:
            given = dict(zip(body.columns, values, strict=True))
            row = {
                name: given[name] if name in given else default(self._storage, self._transaction)
                for name, default in table.defaults.items()
            }
            _coerce(table, row)
            await self._pause()
            if body.conflict is not None:
                twin = await self._twin(table, row, None)
                if twin is not None:
                    updated = await self._update_instead(body, table, twin, row)
                    if updated is not None:
                        rows.append(updated)
                    continue
            await self._check(table, row, None)
            self._storage.insert(table, row, self._transaction)
            rows.append(self._returned(body, Env({}, self), row))
        names = None if body.returning is None else [name for _, name in body.returning]
        return Result(names, rows if names is not None else [], len(rows))

    async def _update_instead(self, body: syntax.Insert, table: Table, cell: Cell, row: Row) -> Tuple | None:
        assert body.conflict is not None
        if body.conflict.sets is None:
            return None
        if not self._storage.lock(table, cell, self._transaction):
            await self._wait(table, cell)
        latest = cell.latest()
        if latest is None:
            return None
        env = Env({body.alias: latest, "excluded": row}, self)
        if body.conflict.where is not None and body.conflict.where(env) is not True:
            return None
        new = {**latest, **{name: value(env) for name, value in body.conflict.sets}}
        _coerce(table, new)
        self._storage.write(table, cell, new, self._transaction)
        return self._returned(body, env, new)


def _named(names: list[str], rows: list[Tuple]) -> list[Row]:
    return [dict(zip(names, row, strict=True)) for row in rows]


def _coerce(table: Table, row: Row | None) -> None:
    """Cast what is assigned to the types of its columns, as far as that makes a difference here."""
    if row is not None:
        for name, kind in table.kinds.items():
            row[name] = cast(row[name], kind)
