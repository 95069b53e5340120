"""What a parsed statement is made of. An expression is a function of the rows in reach (`Env`)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

Row = dict[str, Any]


class Evaluation(Protocol):
    """One execution of a statement, as expressions see it."""

    @property
    def parameters(self) -> Any:
        """The statement's parameters: a sequence or a mapping."""

    @property
    def now(self) -> Any:
        """`now()`: when the transaction began."""

    def subselect(self, query: "Select", env: "Env | None") -> list[tuple[Any, ...]]:
        """The rows of a nested query."""

    def call(self, name: str, arguments: list[Any]) -> Any:
        """The value of a function that depends on the server's state."""


@dataclass(slots=True)
class Env:
    """The rows that an expression can name, by alias; `outer` are those of the query around it."""

    rows: dict[str, Row]
    run: Evaluation
    outer: "Env | None" = None
    aggregates: list[Any] | None = None
    windows: list[Any] | None = None

    def column(self, name: str) -> Any:
        """The value of a column without a qualifier: that of the innermost query which has one."""
        env: Env | None = self
        while env is not None:
            for row in env.rows.values():
                if name in row:
                    return row[name]
            env = env.outer
        raise LookupError(f"no column {name}")

    def qualified(self, alias: str, name: str) -> Any:
        """The value of `alias.name`."""
        env: Env | None = self
        while env is not None:
            if alias in env.rows:
                return env.rows[alias][name]
            env = env.outer
        raise LookupError(f"no table {alias} for column {name}")


Expression = Callable[[Env], Any]


@dataclass(slots=True)
class Source:
    """An item of FROM."""

    alias: str
    table: str | None = None
    query: "Select | None" = None
    functions: list[tuple[str, list[Expression]]] | None = None
    columns: list[str] | None = None
    ordinality: bool = False
    left: bool = False
    on: Expression | None = None


@dataclass(slots=True)
class Lock:
    """FOR UPDATE (`row` True) or a weaker one, which waits for nobody here."""

    row: bool
    skip: bool = False
    nowait: bool = False
    of: str | None = None


@dataclass(slots=True)
class Aggregate:
    """A call of an aggregate in a SELECT."""

    name: str
    argument: Expression | None
    filter: Expression | None = None


@dataclass(slots=True)
class Lead:
    """`lead(argument) OVER (ORDER BY order)`."""

    argument: Expression
    order: Expression


STAR = "*"
"""The name of an item that stands for all columns."""


@dataclass(slots=True)
class Select:
    """A query. `more` are what UNION adds: (keep duplicates, query)."""

    items: list[tuple[Expression, str]]
    sources: list[Source] = field(default_factory=list)
    where: Expression | None = None
    group: list[Expression] | None = None
    having: Expression | None = None
    order: list[tuple[Expression, bool]] = field(default_factory=list)
    limit: Expression | None = None
    lock: Lock | None = None
    aggregates: list[Aggregate] = field(default_factory=list)
    windows: list[Lead] = field(default_factory=list)
    distinct: bool = False
    more: list[tuple[bool, "Select"]] = field(default_factory=list)
    values: list[list[Expression]] | None = None
    first: "Select | None" = None
    """A query in parentheses, whose rows are what this one begins with."""


@dataclass(slots=True)
class Conflict:
    """ON CONFLICT; `columns` None: any index; `sets` None: DO NOTHING."""

    columns: list[str] | None
    sets: list[tuple[str, Expression]] | None
    where: Expression | None


@dataclass(slots=True)
class Insert:
    """INSERT; `source` None: DEFAULT VALUES."""

    table: str
    alias: str
    columns: list[str]
    source: Select | None
    conflict: Conflict | None
    returning: list[tuple[Expression, str]] | None


@dataclass(slots=True)
class Update:
    """UPDATE."""

    table: str
    alias: str
    sets: list[tuple[str, Expression]]
    sources: list[Source]
    where: Expression | None
    returning: list[tuple[Expression, str]] | None


@dataclass(slots=True)
class Delete:
    """DELETE."""

    table: str
    alias: str
    sources: list[Source]
    where: Expression | None
    returning: list[tuple[Expression, str]] | None


@dataclass(slots=True)
class LockTable:
    """LOCK TABLE … IN ROW EXCLUSIVE MODE."""

    table: str


@dataclass(slots=True)
class Cte:
    """An item of WITH."""

    name: str
    columns: list[str] | None
    body: Any
    recursive: bool


@dataclass(slots=True)
class Statement:
    """A whole statement. `locking` are the nested queries with FOR UPDATE, in the order in which they are written."""

    ctes: list[Cte]
    body: Any
    locking: list[Select]
