"""What the simulated server keeps: versions of rows, locks, sequences, and what a standby has of them.

Every committed version bears the number of its commit. A snapshot is such a number; a failover that lost a tail drops
the versions above one. Sequences do not roll back; as in PostgreSQL they are logged 32 values ahead, so that a promoted
standby goes on behind values that were drawn, or before values that were drawn in the lost tail
(https://www.postgresql.org/docs/current/functions-sequence.html; SEQ_LOG_VALS in its source).
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.simulation.pg.syntax import Row

LOGGED_AHEAD: Final = 32


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a statement sees: commits up to `commit`, and what its transaction did before `command`."""

    commit: int
    command: int


class Cell:
    """A row through its versions."""

    __slots__ = ("holder", "pending", "serial", "versions")

    def __init__(self, serial: int) -> None:
        self.serial = serial
        """Never given to another row, whatever its id."""
        self.versions: list[tuple[int, Row | None]] = []
        """(commit, values) in the order of commits; None: deleted."""
        self.holder: Transaction | None = None
        """Who has it locked."""
        self.pending: list[tuple[int, Row | None]] = []
        """(command, values) that the holder wrote."""

    def seen(self, snapshot: Snapshot, reader: "Transaction") -> Row | None:
        """The version that a statement of `reader` sees."""
        if self.holder is reader:
            for command, values in reversed(self.pending):
                if command < snapshot.command:
                    return values
        for commit, values in reversed(self.versions):
            if commit <= snapshot.commit:
                return values
        return None

    def latest(self) -> Row | None:
        """The newest version, the holder's own included."""
        if self.pending:
            return self.pending[-1][1]
        return self.versions[-1][1] if self.versions else None


class Transaction:
    """One transaction of one session."""

    def __init__(self, number: int, now: Any, client: str) -> None:
        self.number = number
        self.now = now
        self.client = client
        self.command = 0
        self.touched: dict[Cell, Table] = {}
        self.writes: set[str] = set()
        """Tables of which it has a ROW EXCLUSIVE lock."""
        self.waits_for: Transaction | None = None
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.aborted = False
        self.lock_timeout: float | None = None
        """Its own, in seconds; None: the session's."""
        self.statements: list[str] = []


@dataclass(slots=True)
class Unique:
    """A unique index; rows with a NULL in it do not count."""

    columns: tuple[str, ...]

    def key(self, row: Row) -> tuple[Any, ...] | None:
        found = tuple(row[column] for column in self.columns)
        return None if None in found else found


@dataclass(slots=True)
class Table:
    """A table: its columns with the values that an INSERT leaves out."""

    name: str
    defaults: dict[str, Callable[["Storage", Transaction], Any]]
    unique: list[Unique] = field(default_factory=list)
    check: Callable[[Row], bool] = lambda row: True
    kinds: dict[str, str] = field(default_factory=dict)
    """Types of the columns into which a text is cast when it is assigned."""
    cells: list[Cell] = field(default_factory=list)


class NumberSequence:
    """A sequence."""

    def __init__(self) -> None:
        self.value = 0
        self.logged: list[tuple[int, int]] = [(0, 0)]
        """(commit at the time, value) as written ahead."""

    def draw(self, commit: int) -> int:
        self.value += 1
        if self.value > self.logged[-1][1]:
            self.logged.append((commit, self.value + LOGGED_AHEAD))
        return self.value

    def lose(self, commit: int) -> None:
        """Go on as a standby does that has the log up to this commit."""
        self.logged = [entry for entry in self.logged if entry[0] < commit or entry == (0, 0)]
        self.value = self.logged[-1][1]


@dataclass(frozen=True, slots=True)
class Change:
    """A row's change, as it commits."""

    table: str
    serial: int
    before: Row | None
    after: Row | None
    client: str
    statements: tuple[str, ...]
    commit: int


class Storage:
    """All tables of one database."""

    def __init__(self, tables: Sequence[Table], committed: Callable[[list[Change]], None]) -> None:
        self.tables = {table.name: table for table in tables}
        self.sequences: dict[str, NumberSequence] = {}
        self.commits = 0
        self.open: dict[int, Transaction] = {}
        self._committed = committed
        self._transactions = 0
        self._serials = 0
        self._places = 0

    def begin(self, now: Any, client: str) -> Transaction:
        """A new transaction."""
        self._transactions += 1
        transaction = self.open[self._transactions] = Transaction(self._transactions, now, client)
        return transaction

    def sequence(self, name: str) -> NumberSequence:
        """The sequence of that name."""
        return self.sequences.setdefault(name, NumberSequence())

    def draw(self, name: str) -> int:
        """`nextval(name)`."""
        return self.sequence(name).draw(self.commits)

    def snapshot(self, transaction: Transaction) -> Snapshot:
        """What a statement of the transaction that begins now will see; counts the command."""
        transaction.command += 1
        return Snapshot(self.commits, transaction.command)

    def rows(self, table: Table, snapshot: Snapshot, reader: Transaction) -> Iterator[tuple[Cell, Row]]:
        """The rows that a statement sees, in the order in which they were made."""
        for cell in table.cells:
            row = cell.seen(snapshot, reader)
            if row is not None:
                yield cell, row

    def insert(self, table: Table, row: Row, transaction: Transaction) -> Cell:
        """Add a row, seen by its transaction's later commands."""
        self._serials += 1
        cell = Cell(self._serials)
        cell.holder = transaction
        cell.pending.append((transaction.command, row))
        transaction.touched[cell] = table
        table.cells.append(cell)
        return cell

    def write(self, table: Table, cell: Cell, row: Row | None, transaction: Transaction) -> None:
        """Change (None: delete) a row that the transaction has locked."""
        assert cell.holder is transaction
        cell.pending.append((transaction.command, row))
        transaction.touched[cell] = table

    def lock(self, table: Table, cell: Cell, transaction: Transaction) -> bool:
        """Take the row's lock; False where another one has it."""
        if cell.holder is None:
            cell.holder = transaction
            transaction.touched[cell] = table
        return cell.holder is transaction

    def undo(self, transaction: Transaction, command: int) -> None:
        """Back to a savepoint: what the commands after `command` wrote is gone (their locks stay)."""
        for cell in transaction.touched:
            cell.pending = [entry for entry in cell.pending if entry[0] <= command]

    def commit(self, transaction: Transaction) -> None:
        """Make its writes visible to snapshots from now on, and free its locks."""
        changes = []
        wrote = [(cell, table) for cell, table in transaction.touched.items() if cell.pending]
        if wrote:
            self.commits += 1
        for cell, table in wrote:
            before = cell.versions[-1][1] if cell.versions else None
            after = cell.pending[-1][1]
            cell.versions.append((self.commits, after))
            changes.append(
                Change(
                    table.name,
                    cell.serial,
                    before,
                    after,
                    transaction.client,
                    tuple(transaction.statements),
                    self.commits,
                )
            )
        self._end(transaction)
        if changes:
            self._committed(changes)

    def abort(self, transaction: Transaction) -> None:
        """Forget its writes and free its locks."""
        transaction.aborted = True
        self._end(transaction)

    def _end(self, transaction: Transaction) -> None:
        for cell, table in transaction.touched.items():
            cell.pending = []
            cell.holder = None
            if not cell.versions:
                table.cells.remove(cell)
        self.open.pop(transaction.number, None)
        if not transaction.over.done():
            transaction.over.set_result(None)

    def lose(self, commits: int) -> int:
        """Fail over to a standby that lacks the last `commits` of them; the number of the last commit that it has."""
        for transaction in list(self.open.values()):
            self.abort(transaction)
        last = max(0, self.commits - commits)
        for table in self.tables.values():
            for cell in table.cells:
                cell.versions = [version for version in cell.versions if version[0] <= last]
            table.cells = [cell for cell in table.cells if cell.versions]
        for sequence in self.sequences.values():
            sequence.lose(last)
        self.commits = last
        return last
