"""What befalls an installation: one fault after the other, of the kinds that its setup has."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from tests.simulation.world import Process, World


async def nemesis(world: World) -> None:
    """Let faults happen until cancelled."""
    while True:
        await asyncio.sleep(world.chance.expovariate(1 / world.setup.pace))
        if world.setup.faults:
            FAULTS[world.chance.choice(world.setup.faults)](world)


def _some(world: World, kind: str) -> Process | None:
    living = world.living(kind)
    return world.chance.choice(living) if living else None


def _length(world: World) -> float:
    """Seconds: mostly short, at times longer than a lease."""
    return world.chance.choice((0.05, 0.5, 3.0, 2.5 * world.setup.lease)) * world.chance.uniform(0.3, 1.0)


def kill_worker(world: World) -> None:
    """SIGKILL; another one starts a little later."""
    if (process := _some(world, "worker")) is not None:
        world.kill(process)
        world.after(world.chance.uniform(0.1, 5.0), world.start_worker)


def stop_worker(world: World) -> None:
    """SIGTERM; another one starts."""
    process = _some(world, "worker")
    if process is not None and process.worker is not None and process.name not in world.loop.frozen:
        world.note(process.name, "is told to stop")
        process.leaving = True
        stop = process.worker.stop

        async def told() -> None:
            stop()

        world.spawn(process.name, told())
        world.start_worker()


def freeze_worker(world: World) -> None:
    """SIGSTOP for some time."""
    if (process := _some(world, "worker")) is not None:
        world.freeze(process, _length(world))


def block_worker(world: World) -> None:
    """A handler blocks the event loop."""
    if (process := _some(world, "worker")) is not None:
        world.freeze(process, _length(world), whole=False)


def kill_scheduler(world: World) -> None:
    """SIGKILL; another one starts a little later."""
    if (process := _some(world, "scheduler")) is not None:
        world.kill(process)
        world.after(world.chance.uniform(0.1, 5.0), world.start_scheduler)


def freeze_scheduler(world: World) -> None:
    """SIGSTOP for some time."""
    if (process := _some(world, "scheduler")) is not None:
        world.freeze(process, _length(world))


def partition_worker(world: World) -> None:
    """A worker cannot reach PostgreSQL."""
    if (process := _some(world, "worker")) is not None:
        seconds = _length(world)
        world.note(process.name, f"cannot reach postgres for {seconds:.1f} s")
        world.server.unreachable.add(process.name)
        world.server.cut(process.name)
        world.after(seconds, lambda: world.server.unreachable.discard(process.name), process.name, "reaches postgres")


def partition_from_redis(world: World) -> None:
    """A process cannot reach Redis."""
    process = _some(world, world.chance.choice(("worker", "scheduler")))
    if process is not None:
        seconds = _length(world)
        world.note(process.name, f"cannot reach redis for {seconds:.1f} s")
        world.redis.unreachable.add(process.name)
        world.redis.cut(process.name)
        world.after(seconds, lambda: world.redis.unreachable.discard(process.name), process.name, "reaches redis")


def redis_restart(world: World) -> None:
    """Redis goes, and comes back empty or as it was."""
    world.redis.up = False
    world.redis.cut()
    if world.chance.random() < 0.7:
        world.redis.flush()
    world.note("redis", "is down")

    def back() -> None:
        world.redis.up = True

    world.after(_length(world) / 2, back, "redis", "is up")


def flush_redis(world: World) -> None:
    """Redis loses its contents and stays up."""
    world.redis.flush()


def postgres_restart(world: World) -> None:
    """PostgreSQL crashes and comes back with all that it had committed."""
    if world.server.up:
        world.invariants.failed_over(world.server.storage.commits)
        world.server.stop()
        world.after(_length(world), world.server.start)


def failover(world: World) -> None:
    """A standby without the last commits takes over."""
    if world.server.up:
        commits = world.server.storage.commits
        lost = min(commits - 1, world.chance.choice((0, 1, 3, 10, 40, 100)))
        world.server.stop(lost)
        world.invariants.failed_over(commits - lost)
        world.after(_length(world), world.server.start)


def _phase(world: World, target: Any, **troubles: float) -> None:
    for name, value in troubles.items():
        setattr(target, name, value)
    seconds = world.chance.uniform(0.5, 8.0)
    world.note("world", f"for {seconds:.1f} s: {troubles}")

    def end() -> None:
        for name in troubles:
            setattr(target, name, 0.0)

    world.after(seconds, end, "world", f"no more {' '.join(troubles)}")


def lost_answers(world: World) -> None:
    """Statements commit and their answers are lost."""
    _phase(world, world.server.trouble, lost_answer=world.chance.choice((0.05, 0.2, 0.5)))


def lost_requests(world: World) -> None:
    """Statements never arrive."""
    _phase(world, world.server.trouble, lost_request=world.chance.choice((0.05, 0.2)))


def slow_commits(world: World) -> None:
    """Commits take long, as with a synchronous standby that stalls."""
    _phase(world, world.server.trouble, slow_commit=world.chance.choice((0.1, 0.5)))


def slow_statements(world: World) -> None:
    """Statements take long between seeing rows and locking them."""
    _phase(world, world.server.trouble, slow_statement=world.chance.choice((0.1, 0.5)))


def lossy_redis(world: World) -> None:
    """Commands to Redis or their replies are lost."""
    _phase(
        world, world.redis, **{world.chance.choice(("lost_request", "lost_answer")): world.chance.choice((0.1, 0.5))}
    )


def lose_claim(world: World) -> None:
    """The next claim's answer is lost, and its worker cannot reach PostgreSQL for about as long as its fence takes."""
    world.server.traps["CLAIM"] = lambda client: _cut_off(world, client)


def lose_answer(world: World) -> None:
    """The answer of the next statement of some kind is lost; at times its process is cut off for a while."""
    begin = world.chance.choice(("INSERT", "CLAIM", "COMPLETE", "END", "RESCUE", "BURY", "PARK", "COMMIT", "CANCEL"))
    lasting = world.chance.random() < 0.4
    world.server.traps[begin] = lambda client: _cut_off(world, client) if lasting else None


def _cut_off(world: World, client: str) -> None:
    seconds = world.setup.lease * world.chance.uniform(0.5, 1.2)
    world.note(client, f"cannot reach postgres for {seconds:.1f} s")
    world.server.unreachable.add(client)
    world.server.cut(client)
    world.after(seconds, lambda: world.server.unreachable.discard(client), client, "reaches postgres")


def flaky_link(world: World) -> None:
    """A worker's connections to PostgreSQL break again and again; what is under way commits, its answer is lost."""
    process = _some(world, "worker")
    if process is None:
        return
    world.note(process.name, "has a flaky link to postgres")

    async def flicker() -> None:
        for _ in range(world.chance.randrange(3, 30)):
            await asyncio.sleep(world.chance.uniform(0.005, 0.4))
            world.note(process.name, "loses its connections")
            world.server.cut(process.name)

    world.spawn("world", flicker())


FAULTS: Final[dict[str, Callable[[World], None]]] = {
    act.__name__: act
    for act in (
        kill_worker,
        stop_worker,
        freeze_worker,
        block_worker,
        kill_scheduler,
        freeze_scheduler,
        partition_worker,
        partition_from_redis,
        redis_restart,
        flush_redis,
        postgres_restart,
        failover,
        lost_answers,
        lost_requests,
        slow_commits,
        slow_statements,
        lossy_redis,
        lose_claim,
        lose_answer,
        flaky_link,
    )
}
