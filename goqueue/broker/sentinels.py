"""Who is the master: asked of the Sentinels, one after the other."""

from typing import Any

from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as Silent

from goqueue.broker.outage import describe


class Sentinels(Sentinel):
    """As redis-py has them; but where none has a master, the error says what each one answered."""

    async def discover_master(self, service_name: str) -> tuple[Any, int]:
        """Host and port of the master.

        Raises:
            MasterNotFoundError: no Sentinel knows one that is up; the text has the cause for each.
        """
        causes = []
        for number, sentinel in enumerate(self.sentinels):
            at = sentinel.connection_pool.connection_kwargs
            cause = "it knows no master of this name"
            try:
                masters: Any = await sentinel.sentinel_masters()
                state = masters.get(service_name)
            except (NotConnected, Silent, ResponseError) as error:
                cause, state = describe(error), None
            if state is not None:
                if self.check_master_state(state, service_name):
                    # The one that knows is asked first the next time.
                    self.sentinels[0], self.sentinels[number] = sentinel, self.sentinels[0]
                    return state["ip"], state["port"]
                cause = "the master is down"
            causes.append(f"{at['host']}:{at['port']}: {cause}")
        raise MasterNotFoundError(f"no master {service_name!r} found; {'; '.join(causes)}")
