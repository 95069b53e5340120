"""The simulated Redis: the commands that `goqueue.broker` uses, lost answers, lost contents."""

import asyncio
import math
import random
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any
from unittest import mock

from pydantic import SecretStr
from redis.exceptions import ConnectionError as NotConnected

from goqueue.broker import Broker, overflow
from goqueue.broker import redis as real
from goqueue.settings import RedisSettings
from tests.simulation.loop import SimulatedLoop

Reply = Any


class RedisServer:
    """One server, shared by all processes."""

    def __init__(self, loop: SimulatedLoop, chance: random.Random, trace: Callable[[str, str], None]) -> None:
        self.up = True
        self.lost_request = 0.0
        self.lost_answer = 0.0
        self.unreachable: set[str] = set()
        """Processes that cannot speak to it."""
        self.sets: dict[str, dict[bytes, float]] = defaultdict(dict)
        self.hashes: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.strings: dict[str, bytes] = {}
        self._loop = loop
        self._chance = chance
        self._trace = trace
        self._poppers: deque[tuple[list[str], asyncio.Future[None]]] = deque()
        self._subscribers: list[Subscription] = []

    def flush(self) -> None:
        """Lose everything."""
        self.sets.clear()
        self.hashes.clear()
        self.strings.clear()
        self._trace("redis", "lost its contents")

    def cut(self, client: str | None = None) -> None:
        """Break the connections of a process, or all."""
        for one in [one for one in self._subscribers if client is None or one.client == client]:
            one.break_off()
        for _, future in self._poppers:
            if not future.done() and (client is None or future.client == client):  # type: ignore[attr-defined]
                future.set_exception(NotConnected("Connection reset by peer"))

    async def speak(self, client: str, name: str, work: Callable[[], Reply]) -> Reply:
        """Carry out a command on the server, and bring its reply; either may be lost on the way."""
        await self._travel(client)
        if self._chance.random() < self.lost_request:
            raise NotConnected("Connection lost")
        reply = work()
        if name:
            self._trace(client, f"redis {name}: {_brief(reply)}")
        if self._chance.random() < self.lost_answer:
            self._trace(client, f"redis {name}: the reply is lost")
            raise NotConnected("Connection closed by server.")
        await self._travel(client)
        return reply

    async def _travel(self, client: str) -> None:
        slow = self._chance.random() < 0.03
        await asyncio.sleep(self._chance.uniform(0, 0.05) if slow else self._chance.uniform(0.0001, 0.0005))
        if not self.up or client in self.unreachable:
            raise NotConnected("Error 111 connecting to simulated:6379.")

    def zadd(self, key: str, scores: dict[Any, float]) -> int:
        members = self.sets[key]
        added = 0
        for member, score in scores.items():
            name = _name(member)
            added += name not in members
            members[name] = score
        if members:
            for keys, future in self._poppers:
                if key in keys and not future.done():
                    future.set_result(None)
        return added

    def ordered(self, key: str) -> list[tuple[bytes, float]]:
        """The members of a set in its order."""
        return sorted(self.sets.get(key, {}).items(), key=lambda item: (item[1], item[0]))

    def pop(self, keys: list[str], count: int) -> Reply:
        """ZMPOP … MIN."""
        for key in keys:
            if chosen := self.ordered(key)[:count]:
                for member, _ in chosen:
                    del self.sets[key][member]
                return [key.encode(), [[member, str(score).encode()] for member, score in chosen]]
        return None

    async def wait_for(self, client: str, keys: list[str], seconds: float) -> None:
        """Until one of the sets may have members, or the time is over."""
        future: asyncio.Future[None] = self._loop.create_future()
        future.client = client  # type: ignore[attr-defined]
        entry = (keys, future)
        self._poppers.append(entry)
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            pass
        finally:
            self._poppers.remove(entry)

    def publish(self, channel: str, message: str) -> int:
        found = [one for one in self._subscribers if channel in one.channels]
        for one in found:
            one.messages.put_nowait({"type": "message", "data": message.encode()})
        return len(found)

    def subscribe(self, subscription: "Subscription") -> None:
        if subscription not in self._subscribers:
            self._subscribers.append(subscription)

    def unsubscribe(self, subscription: "Subscription") -> None:
        if subscription in self._subscribers:
            self._subscribers.remove(subscription)


class Subscription:
    """A client's pub/sub connection."""

    def __init__(self, server: RedisServer, client: str) -> None:
        self._server = server
        self.client = client
        self.channels: set[str] = set()
        self.messages: asyncio.Queue[Any] = asyncio.Queue()

    async def __aenter__(self) -> "Subscription":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.unsubscribe(self)

    def break_off(self) -> None:
        self._server.unsubscribe(self)
        self.messages.put_nowait(NotConnected("Connection closed by server."))

    async def subscribe(self, channel: str) -> None:
        def enter() -> None:
            self.channels.add(channel)
            self._server.subscribe(self)
            self.messages.put_nowait({"type": "subscribe", "data": 1})

        await self._server.speak(self.client, "", enter)

    async def get_message(self, timeout: float) -> Any:  # noqa: ASYNC109 - redis-py's signature
        try:
            async with asyncio.timeout(timeout):
                message = await self.messages.get()
        except TimeoutError:
            return None
        if isinstance(message, Exception):
            raise message
        return message

    async def ping(self) -> None:
        await self._server.speak(self.client, "", lambda: None)


class RedisClient:
    """redis-py's client, as far as `Broker` uses it."""

    def __init__(self, server: RedisServer, client: str) -> None:
        self._server = server
        self._name = client

    def __getattr__(self, command: str) -> Any:
        if command.startswith("_"):
            raise AttributeError(command)
        work = getattr(_Commands(self._server), command)

        async def run(*arguments: Any, **more: Any) -> Reply:
            traced = command if command in ("zadd", "zrem", "set") else ""
            return await self._server.speak(self._name, traced, lambda: work(*arguments, **more))

        return run

    def client(self) -> "RedisClient":
        return self

    def register_script(self, text: str) -> Any:
        work = _SCRIPTS[text]

        async def run(keys: list[str]) -> Reply:
            return await self._server.speak(self._name, "", lambda: work(_Commands(self._server), *keys))

        return run

    def pipeline(self, transaction: bool = True) -> "Pipeline":
        return Pipeline(self._server, self._name)

    def pubsub(self) -> Subscription:
        return Subscription(self._server, self._name)

    async def aclose(self) -> None:
        return


class Pipeline:
    """Commands that are sent together."""

    def __init__(self, server: RedisServer, client: str) -> None:
        self._server = server
        self._client = client
        self._commands: list[Callable[[], Reply]] = []

    async def __aenter__(self) -> "Pipeline":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._commands.clear()

    def __getattr__(self, command: str) -> Any:
        work = getattr(_Commands(self._server), command)

        def add(*arguments: Any, **more: Any) -> "Pipeline":
            self._commands.append(lambda: work(*arguments, **more))
            return self

        return add

    def __len__(self) -> int:
        return len(self._commands)

    async def execute(self, raise_on_error: bool = True) -> list[Reply]:
        replies: list[Reply] = await self._server.speak(self._client, "", lambda: [one() for one in self._commands])
        return replies


class _Commands:
    """The commands themselves."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    def ping(self) -> bool:
        return True

    def get(self, key: str) -> bytes | None:
        return self._server.strings.get(key)

    def set(self, key: str, value: str, xx: bool = False, nx: bool = False) -> bool | None:
        there = key in self._server.strings
        if (xx and not there) or (nx and there):
            return None
        self._server.strings[key] = value.encode()
        return True

    def zadd(self, key: str, scores: dict[Any, float], lt: bool = False) -> int:
        if lt:
            there = self._server.sets.get(key, {})
            scores = {name: score for name, score in scores.items() if score < there.get(_name(name), math.inf)}
        return self._server.zadd(key, scores)

    def zcount(self, key: str, low: Any, high: Any) -> int:
        return sum(float(low) <= score <= float(high) for score in self._server.sets.get(key, {}).values())

    def hmget(self, key: str, names: Any) -> list[bytes | None]:
        there = self._server.hashes[key]
        return [str(there[name]).encode() if name in there else None for name in names]

    def hdel(self, key: str, name: str) -> int:
        return int(self._server.hashes[key].pop(name, None) is not None)

    def zrem(self, key: str, *members: Any) -> int:
        return sum(self._server.sets[key].pop(_name(member), None) is not None for member in members)

    def zcard(self, key: str) -> int:
        return len(self._server.sets.get(key, {}))

    def zrange(self, key: str, start: int, stop: int, withscores: bool = False) -> list[Any]:
        ordered = self._server.ordered(key)
        chosen = ordered[start:] if stop == -1 else ordered[start : stop + 1 or None]
        return chosen if withscores else [member for member, _ in chosen]

    def zremrangebyscore(self, key: str, low: Any, high: Any) -> int:
        def bound(text: Any) -> tuple[float, bool]:
            text = str(text)
            return (float(text[1:]), True) if text.startswith("(") else (float(text), False)

        (least, over), (most, under) = bound(low), bound(high)
        members = self._server.sets.get(key, {})
        gone = [
            member
            for member, score in members.items()
            if (score > least or (score == least and not over)) and (score < most or (score == most and not under))
        ]
        for member in gone:
            del members[member]
        return len(gone)

    def hincrby(self, key: str, name: str, by: int) -> int:
        self._server.hashes[key][name] += by
        return self._server.hashes[key][name]

    def hgetall(self, key: str) -> dict[bytes, bytes]:
        return {name.encode(): str(count).encode() for name, count in self._server.hashes[key].items()}

    def publish(self, channel: str, message: str) -> int:
        return self._server.publish(channel, message)


class SimulatedFetcher:
    """`goqueue.broker.fetcher.Fetcher` on the simulated server."""

    def __init__(self, server: RedisServer, client: str) -> None:
        self._server = server
        self._client = client
        self._woken: asyncio.Event | None = None

    @property
    def can_be_woken(self) -> bool:
        return self._woken is not None

    async def pop(self, keys: Any, count: int, block: float) -> Reply:
        """BZMPOP: what is popped is gone, whether or not the reply arrives."""
        names = list(keys)
        until = self._server._loop.time() + (block or math.inf)
        self._woken = asyncio.Event()
        try:
            while True:
                if self._woken.is_set():
                    return None
                left = until - self._server._loop.time()
                if not any(self._server.sets.get(key) for key in names) and left > 0:
                    await self._wait(names, left)
                    continue
                return await self._server.speak(self._client, "pop", lambda: self._server.pop(names, count))
        finally:
            self._woken = None

    async def _wait(self, names: list[str], seconds: float) -> None:
        assert self._woken is not None
        waiting = asyncio.ensure_future(self._server.wait_for(self._client, names, seconds))
        woken = asyncio.ensure_future(self._woken.wait())
        try:
            await asyncio.wait((waiting, woken), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                waiting.result()
        finally:
            waiting.cancel()
            woken.cancel()

    async def wake(self) -> None:
        if self._woken is not None:
            self._woken.set()

    async def close(self) -> None:
        return


def broker(server: RedisServer, client: str) -> Broker:
    """A `Broker` of a process, which speaks to the simulated server."""
    with (
        mock.patch.object(real, "connect", return_value=RedisClient(server, client)),
        mock.patch.object(real, "Fetcher", return_value=SimulatedFetcher(server, client)),
    ):
        return Broker(RedisSettings(url=SecretStr("redis://simulated")))


def _name(member: Any) -> bytes:
    return member if isinstance(member, bytes) else str(member).encode()


def _take(commands: _Commands, own: str, new: str) -> list[Any]:
    commands.zadd(own, commands._server.sets.pop(new, {}), lt=True)
    return [part for name, at in commands._server.ordered(own) for part in (name, str(at).encode())]


_SCRIPTS = {overflow._TAKE: _take}
"""Lua scripts by their text, so that another text is noticed."""


def _brief(reply: Reply) -> str:
    text = str(reply)
    return text if len(text) <= 120 else text[:117] + "..."
