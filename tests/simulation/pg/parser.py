"""From SQL text to `syntax`: the part of the language that the engine's statements use.

What it does not know it refuses (`Unsupported`), so that a statement is never simulated by half.
"""

import functools
import re
from collections.abc import Callable
from typing import Any, Final

from tests.simulation.pg import syntax, values
from tests.simulation.pg.syntax import Env, Expression, Select, Source

_TOKEN: Final = re.compile(
    r"\s*(?:--[^\n]*\n\s*)*(?:(?P<named>%\((?P<name>\w+)\)s)|(?P<positional>%s)|(?P<text>'(?:[^']|'')*')"
    r"|(?P<number>\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)|(?P<word>[A-Za-z_]\w*)|(?P<op>::|->>|->|<>|!=|<=|>=|\|\||&&|%%|[-=<>+*/(),.\[\];&])|$)"
)
_COMPARISONS: Final = ("=", "<>", "!=", "<", ">", "<=", ">=")
_RESERVED: Final = frozenset(
    (  # noqa: SIM905 - a line for each would be half a page
        "and as between conflict cross do else end for from group having in inner is join left limit not offset on or "
        "order returning set then union using values when where window with"
    ).split()
)
_LONG_TYPES: Final = {("double", "precision"): "double", ("timestamp", "with"): "timestamptz"}


class Unsupported(Exception):
    """The simulation does not know this part of SQL; extend `tests/simulation/pg`."""


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = list(self._split(text))
        self._at = 0
        self._selects: list[Select] = []
        self.locking: list[Select] = []

    def _split(self, text: str) -> Any:
        at = count = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise Unsupported(f"near {text[at : at + 40]!r}")
            at = match.end()
            kind = match.lastgroup
            if match["named"]:
                yield "parameter", match["name"]
            elif match["positional"]:
                yield "parameter", count
                count += 1
            elif match["text"] is not None:
                yield "text", match["text"][1:-1].replace("''", "'")
            elif match["number"]:
                yield "number", int(match["number"]) if match["number"].isdecimal() else float(match["number"])
            elif match["word"]:
                yield "word", match["word"].lower()
            elif kind == "op":
                yield "op", "%" if match["op"] == "%%" else match["op"]

    # --- tokens ------------------------------------------------------------------------------------------------------

    def _peek(self, ahead: int = 0) -> tuple[str, Any]:
        place = self._at + ahead
        return self._tokens[place] if place < len(self._tokens) else ("end", None)

    def _next(self) -> tuple[str, Any]:
        token = self._peek()
        self._at += 1
        return token

    def _is(self, *spelled: str) -> bool:
        return all(self._peek(at) in (("word", one), ("op", one)) for at, one in enumerate(spelled))

    def _take(self, *spelled: str) -> bool:
        if self._is(*spelled):
            self._at += len(spelled)
            return True
        return False

    def _must(self, *spelled: str) -> None:
        if not self._take(*spelled):
            rest = " ".join(str(value) for _, value in self._tokens[self._at : self._at + 8])
            raise Unsupported(f"expected {' '.join(spelled)} before: {rest}")

    def _word(self) -> str:
        kind, value = self._next()
        if kind != "word":
            raise Unsupported(f"expected a name, not {value!r}")
        return str(value)

    def _list(self, item: Callable[[], Any]) -> list[Any]:
        found = [item()]
        while self._take(","):
            found.append(item())
        return found

    def _names(self) -> list[str]:
        self._must("(")
        names: list[str] = self._list(self._word)
        self._must(")")
        return names

    # --- statements --------------------------------------------------------------------------------------------------

    def statement(self) -> syntax.Statement:
        ctes = []
        if self._take("with"):
            recursive = self._take("recursive")
            while True:
                name = self._word()
                columns = self._names() if self._is("(") else None
                self._must("as")
                self._take("materialized")
                self._must("(")
                ctes.append(syntax.Cte(name, columns, self._body(), recursive))
                self._must(")")
                if not self._take(","):
                    break
        body = self._body()
        self._take(";")
        if self._peek()[0] != "end":
            raise Unsupported(f"after the statement: {self._peek()[1]!r}")
        return syntax.Statement(ctes, body, self.locking)

    def _body(self) -> Any:
        if self._is("select") or self._is("values") or self._is("("):
            return self.select()
        if self._take("insert", "into"):
            return self._insert()
        if self._take("update"):
            return self._update()
        if self._take("delete", "from"):
            table, alias = self._target()
            sources = self._from() if self._take("using") else []
            where = self.expression() if self._take("where") else None
            return syntax.Delete(table, alias, sources, where, self._returning())
        if self._take("lock", "table"):
            table = self._word()
            self._must("in", "row", "exclusive", "mode")
            return syntax.LockTable(table)
        raise Unsupported(f"statement {self._peek()[1]!r}")

    def _target(self) -> tuple[str, str]:
        table = self._word()
        alias = table
        if self._take("as") or (self._peek()[0] == "word" and self._peek()[1] not in _RESERVED):
            alias = self._word()
        return table, alias

    def _returning(self) -> list[tuple[Expression, str]] | None:
        return self._items() if self._take("returning") else None

    def _insert(self) -> syntax.Insert:
        table, alias = self._target()
        columns = self._names() if self._is("(") else []
        source = None if self._take("default", "values") else self.select()
        conflict = None
        if self._take("on", "conflict"):
            unique = self._names() if self._is("(") else None
            self._must("do")
            if self._take("nothing"):
                conflict = syntax.Conflict(unique, None, None)
            else:
                self._must("update", "set")
                sets = self._sets()
                conflict = syntax.Conflict(unique, sets, self.expression() if self._take("where") else None)
        return syntax.Insert(table, alias, columns, source, conflict, self._returning())

    def _sets(self) -> list[tuple[str, Expression]]:
        def one() -> tuple[str, Expression]:
            name = self._word()
            self._must("=")
            return name, self.expression()

        return self._list(one)

    def _update(self) -> syntax.Update:
        table, alias = self._target()
        self._must("set")
        sets = self._sets()
        sources = self._from() if self._take("from") else []
        where = self.expression() if self._take("where") else None
        return syntax.Update(table, alias, sets, sources, where, self._returning())

    def select(self) -> Select:
        """A query with its UNIONs, ORDER BY, LIMIT and locks."""
        nested = self._take("(")
        if nested:
            inner_query = self.select()
            self._must(")")
            query = Select(inner_query.items, first=inner_query)
        else:
            query = self._core()
        while self._take("union"):
            keep = self._take("all")
            inner = self._take("(")
            query.more.append((keep, self.select() if inner else self._core()))
            if inner:
                self._must(")")
        self._selects.append(query)
        if self._take("order", "by"):
            query.order = self._list(self._ordering)
        if self._take("limit"):
            query.limit = self.expression()
        self._selects.pop()
        if self._take("for"):
            query.lock = self._lock()
            if query.lock.row:
                self.locking.append(query)
        return query

    def _ordering(self) -> tuple[Expression, bool]:
        value = self.expression()
        falling = self._take("desc")
        if not falling:
            self._take("asc")
        return value, falling

    def _lock(self) -> syntax.Lock:
        row = self._take("update") or self._take("no", "key", "update")
        if not row and not self._take("share"):
            self._must("key", "share")
        of = self._word() if self._take("of") else None
        lock = syntax.Lock(row, of=of)
        if self._take("skip", "locked"):
            lock.skip = True
        elif self._take("nowait"):
            lock.nowait = True
        return lock

    def _core(self) -> Select:
        if self._take("values"):
            return Select([], values=self._list(self._value_row))
        self._must("select")
        query = Select([])
        self._selects.append(query)
        query.distinct = self._take("distinct")
        if not (self._is("from") or self._is("where") or self._is(")")):
            query.items = self._items()
        if self._take("from"):
            query.sources = self._from()
        if self._take("where"):
            query.where = self.expression()
        if self._take("group", "by"):
            query.group = self._list(self.expression)
        if self._take("having"):
            query.having = self.expression()
        self._selects.pop()
        return query

    def _value_row(self) -> list[Expression]:
        self._must("(")
        row: list[Expression] = self._list(self.expression)
        self._must(")")
        return row

    def _items(self) -> list[tuple[Expression, str]]:
        items: list[tuple[Expression, str]] = self._list(self._item)
        return items

    def _item(self) -> tuple[Expression, str]:
        if self._take("*"):
            return (lambda env: None), syntax.STAR
        start = self._at
        value = self.expression()
        spelled = self._tokens[start : self._at]
        name = str(spelled[-1][1]) if spelled[-1][0] == "word" and len(spelled) in (1, 3) else "?column?"
        if spelled[0][0] == "word" and len(spelled) > 3 and spelled[1] == ("op", "("):
            name = str(spelled[0][1])
        for at, token in enumerate(spelled):
            if token == ("op", "::") and at in (1, 3):
                name = str(spelled[at - 1][1])
        if self._take("as") or (self._peek()[0] == "word" and self._peek()[1] not in _RESERVED):
            name = self._word()
        return value, name

    # --- FROM --------------------------------------------------------------------------------------------------------

    def _from(self) -> list[Source]:
        sources = [self._source()]
        while True:
            if self._take(",") or self._take("cross", "join"):
                sources.append(self._source())
            elif self._is("left") or self._is("join") or self._is("inner", "join"):
                left = self._take("left")
                self._take("inner")
                self._must("join")
                source = self._source()
                source.left = left
                self._must("on")
                source.on = self.expression()
                sources.append(source)
            else:
                return sources

    def _source(self) -> Source:
        self._take("lateral")
        if self._take("("):
            query = self.select()
            self._must(")")
            alias, columns = self._alias("?")
            return Source(alias, query=query, columns=columns)
        name = self._word()
        if self._take("("):
            arguments: list[Expression] = [] if self._is(")") else self._list(self.expression)
            self._must(")")
            ordinality = self._take("with", "ordinality")
            alias, columns = self._alias(name)
            return Source(alias, functions=[(name, arguments)], columns=columns, ordinality=ordinality)
        alias, columns = self._alias(name)
        return Source(alias, table=name, columns=columns)

    def _alias(self, default: str) -> tuple[str, list[str] | None]:
        alias = default
        if self._take("as") or (self._peek()[0] == "word" and self._peek()[1] not in _RESERVED):
            alias = self._word()
        return alias, self._names() if self._is("(") else None

    # --- expressions -------------------------------------------------------------------------------------------------

    def expression(self) -> Expression:
        left = self._and()
        while self._take("or"):
            left = _both(values.disjunction, left, self._and())
        return left

    def _and(self) -> Expression:
        left = self._not()
        while self._take("and"):
            left = _both(values.conjunction, left, self._not())
        return left

    def _not(self) -> Expression:
        if self._take("not"):
            value = self._not()
            return lambda env: None if (it := value(env)) is None else not it
        return self._comparison()

    def _comparison(self) -> Expression:
        left = self._operators(0)
        while True:
            kind, spelled = self._peek()
            if kind == "op" and spelled in _COMPARISONS:
                self._next()
                left = self._compared(spelled, left)
            elif self._take("is"):
                left = self._is_test(left)
            elif self._is("not", "in") or self._is("in"):
                negated = self._take("not")
                self._must("in")
                left = self._contained(left, negated)
            elif self._take("between"):
                low = self._operators(0)
                self._must("and")
                high = self._operators(0)
                left = _both(values.conjunction, _binary(">=", left, low), _binary("<=", left, high))
            else:
                return left

    def _is_test(self, left: Expression) -> Expression:
        negated = self._take("not")
        if self._take("null"):
            return (lambda env: left(env) is not None) if negated else (lambda env: left(env) is None)
        if self._take("distinct", "from"):
            right = self._operators(0)
            return (lambda env: left(env) == right(env)) if negated else (lambda env: left(env) != right(env))
        wanted = self._word() == "true"
        return lambda env: (left(env) is wanted) != negated

    def _contained(self, left: Expression, negated: bool) -> Expression:
        self._must("(")
        if self._is("select"):
            among = self._column_of(self.select())
        else:
            items: list[Expression] = self._list(self.expression)
            among = lambda env: [item(env) for item in items]  # noqa: E731 - as its sibling is
        self._must(")")
        test = _quantified("=", left, among, every=False)
        return (lambda env: None if (it := test(env)) is None else not it) if negated else test

    def _compared(self, operator: str, left: Expression) -> Expression:
        for quantifier in ("any", "all"):
            if self._is(quantifier, "("):
                self._at += 2
                among = self._column_of(self.select()) if self._is("select") else self.expression()
                self._must(")")
                return _quantified(operator, left, among, every=quantifier == "all")
        return _binary(operator, left, self._operators(0))

    def _column_of(self, query: Select) -> Expression:
        return lambda env: [row[0] for row in env.run.subselect(query, env)]

    def _operators(self, level: int) -> Expression:
        levels = (("||", "->", "->>", "&", "&&"), ("+", "-"), ("*", "/", "%"))
        if level == len(levels):
            return self._unary()
        left = self._operators(level + 1)
        while self._peek()[0] == "op" and self._peek()[1] in levels[level]:
            left = _binary(self._next()[1], left, self._operators(level + 1))
        return left

    def _unary(self) -> Expression:
        if self._take("-"):
            value = self._unary()
            return lambda env: None if (it := value(env)) is None else -it
        return self._suffixed(self._primary())

    def _suffixed(self, value: Expression) -> Expression:
        while True:
            if self._take("::"):
                value = _cast(value, self._type())
            elif self._take("["):
                value = _element(value, self.expression())
                self._must("]")
            else:
                return value

    def _type(self) -> str:
        name = self._word()
        if (name, self._peek()[1]) in _LONG_TYPES:
            name = _LONG_TYPES[name, self._next()[1]]
            if name == "timestamptz":
                self._must("time", "zone")
        return f"{name}[]" if self._take("[", "]") else name

    def _primary(self) -> Expression:
        kind, value = self._next()
        if kind == "parameter":
            return lambda env: env.run.parameters[value]
        if kind in ("text", "number"):
            return lambda env: value
        if (kind, value) == ("op", "("):
            return self._parenthesised()
        if kind != "word":
            raise Unsupported(f"expression at {value!r}")
        if value in ("null", "true", "false"):
            constant = {"null": None, "true": True, "false": False}[value]
            return lambda env: constant
        if value == "case":
            return self._case()
        if value == "exists" and self._take("("):
            query = self.select()
            self._must(")")
            return lambda env: bool(env.run.subselect(query, env))
        if value == "array" and self._take("("):
            query = self.select()
            self._must(")")
            return self._column_of(query)
        if value == "array" and self._take("["):
            items: list[Expression] = [] if self._is("]") else self._list(self.expression)
            self._must("]")
            return lambda env: [item(env) for item in items]
        if value == "cast" and self._take("("):
            inner = self.expression()
            self._must("as")
            found = _cast(inner, self._type())
            self._must(")")
            return found
        if value == "interval" and self._peek()[0] == "text":
            length = values.cast(self._next()[1], "interval")
            return lambda env: length
        if self._is("("):
            return self._call(value)
        if self._take("."):
            column = self._word()
            return lambda env: env.qualified(value, column)
        return lambda env: env.column(value)

    def _parenthesised(self) -> Expression:
        if self._is("select"):
            query = self.select()
            self._must(")")
            return lambda env: rows[0][0] if (rows := env.run.subselect(query, env)) else None
        items: list[Expression] = self._list(self.expression)
        self._must(")")
        if len(items) == 1:
            return items[0]
        return lambda env: tuple(item(env) for item in items)

    def _case(self) -> Expression:
        operand = None if self._is("when") else self.expression()
        branches: list[tuple[Expression, Expression]] = []
        while self._take("when"):
            test = self.expression()
            if operand is not None:
                test = _binary("=", operand, test)
            self._must("then")
            branches.append((test, self.expression()))
        other = self.expression() if self._take("else") else None
        self._must("end")

        def chosen(env: Env) -> Any:
            for test, value in branches:
                if test(env) is True:
                    return value(env)
            return None if other is None else other(env)

        return chosen

    def _call(self, name: str) -> Expression:
        self._must("(")
        if name in values.AGGREGATES:
            return self._aggregate(name)
        arguments: list[Expression] = []
        if name == "extract":
            field = self._word()
            self._must("from")
            arguments = [lambda env: field, self.expression()]
        elif name == "make_interval":
            self._must("secs", "=")
            self._must(">")
            seconds = self.expression()
            arguments = [lambda env: None if (it := seconds(env)) is None else values.cast(f"{it} seconds", "interval")]
            name = "coalesce"
        elif not self._is(")"):
            arguments = self._list(self.expression)
        self._must(")")
        if name == "lead" and self._take("over", "("):
            return self._lead(arguments[0])
        if name in values.FUNCTIONS:
            function = values.FUNCTIONS[name]
            return lambda env: function(*[argument(env) for argument in arguments])
        return lambda env: env.run.call(name, [argument(env) for argument in arguments])

    def _lead(self, argument: Expression) -> Expression:
        query = self._selects[-1]
        self._must("order", "by")
        place = len(query.windows)
        query.windows.append(syntax.Lead(argument, self.expression()))
        self._must(")")

        def value(env: Env) -> Any:
            assert env.windows is not None
            return env.windows[place]

        return value

    def _aggregate(self, name: str) -> Expression:
        query = self._selects[-1]
        argument = None if self._take("*") else self.expression()
        self._must(")")
        aggregate = syntax.Aggregate(name, argument)
        if self._take("filter", "("):
            self._must("where")
            aggregate.filter = self.expression()
            self._must(")")
        place = len(query.aggregates)
        query.aggregates.append(aggregate)

        def value(env: Env) -> Any:
            assert env.aggregates is not None
            return env.aggregates[place]

        return value


def _both(join: Callable[[Any, Any], Any], left: Expression, right: Expression) -> Expression:
    """A connective of logic; the right side is not evaluated where the left one decides."""
    decided = join is values.disjunction

    def value(env: Env) -> Any:
        it = left(env)
        return it if it is decided else join(it, right(env))

    return value


def _binary(operator: str, left: Expression, right: Expression) -> Expression:
    function = values.OPERATORS[operator]

    def value(env: Env) -> Any:
        one, other = left(env), right(env)
        return None if one is None or other is None else function(one, other)

    return value


def _quantified(operator: str, left: Expression, among: Expression, *, every: bool) -> Expression:
    function = values.OPERATORS[operator]

    def value(env: Env) -> Any:
        one, others = left(env), among(env)
        if one is None or others is None:
            return None
        unknown = False
        for other in others:
            if other is None:
                unknown = True
            elif function(one, other) is not every:
                return not every
        return None if unknown else every

    return value


def _cast(value: Expression, kind: str) -> Expression:
    return lambda env: values.cast(value(env), kind)


def _element(array: Expression, place: Expression) -> Expression:
    def value(env: Env) -> Any:
        items, at = array(env), place(env)
        return None if items is None or at is None or not 0 < at <= len(items) else items[at - 1]

    return value


@functools.cache
def parse(text: str) -> syntax.Statement:
    """The statement.

    Raises:
        Unsupported: some of it is not known here.
    """
    parser = _Parser(text.rstrip())
    try:
        return parser.statement()
    except Unsupported as error:
        raise Unsupported(f"{error} in: {' '.join(text.split())[:200]}") from None
