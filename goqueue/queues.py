"""Which queues there are: the built-in ones, those of the registered job types, and those that GOQUEUE_QUEUES adds."""

from collections.abc import Collection, Iterable, Iterator

from goqueue.builtin import TYPE_OF_QUEUE
from goqueue.registry import Registry


class Queues(Collection[str]):
    """The known queues of a process, each once and in that order.

    A view of the registry: the queue of a type that is registered later is in it from then on.
    """

    __slots__ = ("_named", "_registry")

    def __init__(self, registry: Registry, named: Iterable[str] = ()) -> None:
        self._registry = registry
        self._named = dict.fromkeys((*TYPE_OF_QUEUE, *named))

    def __contains__(self, name: object) -> bool:
        return name in self._named or name in self._registry.queues

    def __iter__(self) -> Iterator[str]:
        built_in = len(TYPE_OF_QUEUE)
        named = list(self._named)
        return iter(dict.fromkeys((*named[:built_in], *self._registry.queues, *named[built_in:])))

    def __len__(self) -> int:
        return len(self._named.keys() | self._registry.queues)
