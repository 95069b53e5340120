"""The simulated server and what can go wrong with it: sessions, slow commits, lost answers, restarts, failovers."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
from psycopg import errors

from tests.simulation.loop import START, SimulatedLoop
from tests.simulation.pg import catalog
from tests.simulation.pg.execution import Execution, Result
from tests.simulation.pg.parser import Unsupported, parse
from tests.simulation.pg.storage import Change, Storage, Transaction

EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Trouble:
    """How likely, per statement, each kind of trouble is."""

    lost_request: float = 0.0
    lost_answer: float = 0.0
    slow_commit: float = 0.0
    slow_statement: float = 0.0


class Session:
    """One connection, as the server has it."""

    def __init__(self, client: str) -> None:
        self.client = client
        self.cut = False
        self.transaction: Transaction | None = None
        self.answer: asyncio.Future[Any] | None = None

    def break_off(self, reason: str) -> None:
        """The client learns at once, or with its next statement, that the connection is gone."""
        self.cut = True
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(psycopg.OperationalError(reason))


class Server:
    """A primary with one asynchronous standby that may lack its last commits."""

    def __init__(
        self,
        loop: SimulatedLoop,
        chance: random.Random,
        trace: Callable[[str, str], None],
        committed: Callable[[list[Change]], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """`trace(who, what)` notes a step, `committed` sees each commit, `failed` what the simulation cannot do."""
        self.storage = Storage(catalog.tables(), committed)
        self.trouble = Trouble()
        self.up = True
        self.timeline = 1
        self.unreachable: set[str] = set()
        """Processes that cannot connect."""
        self.names: dict[str, str] = {}
        """Text of a statement → its name, for the trace."""
        self.traps: dict[str, Callable[[str], None]] = {}
        """Begin of a statement's name → called with the client of the next that changes rows; its answer is lost."""
        self._loop = loop
        self._chance = chance
        self._trace = trace
        self._failed = failed
        self._sessions: list[Session] = []

    @property
    def _process(self) -> str:
        return f"postgres-{self.timeline}"

    def clock(self) -> datetime:
        """The server's time."""
        return EPOCH + timedelta(seconds=round(self._loop.time() - START, 6))

    # --- sessions ----------------------------------------------------------------------------------------------------

    def connect(self, client: str) -> Session | None:
        """A session for a process; None where it cannot connect."""
        if not self.up or client in self.unreachable:
            return None
        session = Session(client)
        self._sessions.append(session)
        return session

    def cut(self, client: str) -> None:
        """Break all connections of a process."""
        for session in [one for one in self._sessions if one.client == client]:
            session.break_off("connection reset by peer")
            self._sessions.remove(session)
            if session.answer is None:
                self._forget(session)

    def hang_up(self, session: Session) -> None:
        """The client closed the connection."""
        session.cut = True
        if session in self._sessions:
            self._sessions.remove(session)
        if session.answer is None:
            self._forget(session)

    def _forget(self, session: Session) -> None:
        if session.transaction is not None and not session.transaction.aborted:
            self.storage.abort(session.transaction)
        session.transaction = None

    def stop(self, lost: int | None = None) -> None:
        """Crash. `lost`: a standby without so many of the last commits takes over; None: the same server comes back."""
        self.up = False
        self._loop.kill(self._process)
        self.timeline += 1
        last = self.storage.lose(lost or 0)
        for session in self._sessions:
            session.transaction = None
            session.break_off("server closed the connection unexpectedly")
        self._sessions.clear()
        self._trace("postgres", f"crashed, {lost or 0} commits lost, last commit {last}")

    def start(self) -> None:
        """Take connections again."""
        self.up = True
        self._trace("postgres", "takes connections")

    # --- statements --------------------------------------------------------------------------------------------------

    async def ask(self, session: Session, text: str, parameters: Any) -> Result:
        """Send a statement and wait for the answer.

        Raises:
            psycopg.Error: it was refused, or the connection broke.
        """
        if session.cut:
            raise psycopg.OperationalError("the connection is lost")
        answer = session.answer = self._loop.create_future()
        self._loop.spawn(self._process, self._serve(session, answer, text, parameters))
        try:
            result: Result = await answer
        except asyncio.CancelledError:
            session.cut = True  # psycopg would cancel the statement, whose fate is open then
            raise
        finally:
            session.answer = None
        return result

    async def _serve(self, session: Session, answer: "asyncio.Future[Any]", text: str, parameters: Any) -> None:
        name = self.names.get(text) or " ".join(text.split())[:60]
        await asyncio.sleep(self._latency())
        if session.cut:
            return
        if self._chance.random() < self.trouble.lost_request:
            self._trace(session.client, f"{name}: connection lost before it arrived")
            await self._lose(session)
            return
        outcome: Result | BaseException
        try:
            outcome = await self._carry_out(session, name, text, parameters)
        except psycopg.Error as error:
            outcome = error
        except Exception as error:
            self._failed(error)
            outcome = error
        self._trace(session.client, f"{name} {_brief(parameters)}: {_told(outcome)}")
        sprung = next((begin for begin in self.traps if name.startswith(begin) and _changed(outcome)), None)
        if sprung is not None:
            self._trace(session.client, f"{name}: its answer is lost")
            self.traps.pop(sprung)(session.client)
            self._forget(session)
            session.break_off("connection reset by peer")
            return
        if self._chance.random() < self.trouble.lost_answer:
            self._trace(session.client, f"{name}: its answer is lost")
            await self._lose(session)
            return
        await asyncio.sleep(self._latency())
        if answer.done():  # the connection broke meanwhile
            self._forget(session)
        elif isinstance(outcome, BaseException):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    async def _lose(self, session: Session) -> None:
        self._forget(session)
        if self._chance.random() < 0.2:  # a silent network: the client's kernel gives up later
            await asyncio.sleep(self._chance.uniform(0.5, 30.0))
        session.break_off("server closed the connection unexpectedly")
        if session in self._sessions:
            self._sessions.remove(session)

    async def _carry_out(self, session: Session, name: str, text: str, parameters: Any) -> Result:
        if text in ("BEGIN", "COMMIT", "ROLLBACK") or text.startswith(("SAVEPOINT", "RELEASE", "ROLLBACK TO")):
            return await self._control(session, text)
        transaction = session.transaction or self.storage.begin(self.clock(), session.client)
        transaction.statements.append(name)
        execution = Execution(self.storage, transaction, parse(text), parameters, self._pause, self.lock_timeout)
        try:
            result = await execution.run()
            if session.transaction is None:
                await self._commit(transaction)
        except BaseException:
            if session.transaction is None and not transaction.aborted:
                self.storage.abort(transaction)
            raise
        return result

    lock_timeout = 0.0
    """Seconds that a statement waits for a row; 0: for ever."""

    async def _control(self, session: Session, text: str) -> Result:
        if text == "BEGIN":
            session.transaction = self.storage.begin(self.clock(), session.client)
        elif session.transaction is None:
            raise errors.NoActiveSqlTransaction("no transaction in progress")
        elif text == "COMMIT":
            await self._commit(session.transaction)
            session.transaction = None
        elif text == "ROLLBACK":
            self._forget(session)
        elif text.startswith("SAVEPOINT"):
            session.transaction.statements.append(f"savepoint {session.transaction.command}")
        else:
            raise Unsupported(text)
        return Result(None, [], -1)

    async def _commit(self, transaction: Transaction) -> None:
        if self._chance.random() < self.trouble.slow_commit:
            await asyncio.sleep(self._chance.choice((0.02, 0.2, 1.0, 6.0)) * self._chance.random())
        elif transaction.writes:
            await asyncio.sleep(self._chance.uniform(0.0002, 0.002))
        self.storage.commit(transaction)

    async def _pause(self) -> None:
        roll = self._chance.random()
        if roll < self.trouble.slow_statement:
            await asyncio.sleep(self._chance.uniform(0.0, 0.1))
        elif roll < 0.2:
            await asyncio.sleep(self._chance.uniform(0.0, 0.001))

    def _latency(self) -> float:
        return self._chance.uniform(0.0001, 0.0005) if self._chance.random() < 0.95 else self._chance.uniform(0, 0.05)


def _changed(outcome: "Result | BaseException") -> bool:
    return isinstance(outcome, Result) and outcome.count != 0


def _brief(parameters: Any) -> str:
    text = str(parameters)
    return text if len(text) <= 160 else text[:157] + "..."


def _told(outcome: "Result | BaseException") -> str:
    if isinstance(outcome, BaseException):
        return f"{type(outcome).__name__}: {outcome}"
    if outcome.names is None:
        return f"{outcome.count} rows"
    return _brief([row[:3] for row in outcome.rows])
