"""What is ready, in which order, and how deep each queue is: Redis. Every Redis command of the engine stands here."""

from goqueue.broker.depths import QueueDepth
from goqueue.broker.redis import Broker

__all__ = ["Broker", "QueueDepth"]
