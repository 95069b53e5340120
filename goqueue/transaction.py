"""Jobs inside one's own SQLAlchemy transaction: a job exists if and only if the transaction commits. Needs no Redis.

with Session(engine) as session, session.begin():
    session.add(order)
    enqueue_in(session, "send_email", {"to": order.email, "subject": "Thank you", "body": "…"})
"""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Unpack

from goqueue import encryption, settings, tracing
from goqueue.encryption import Keyring
from goqueue.errors import Conflict
from goqueue.job import NewJob
from goqueue.library import Options, build, engine, load_missing
from goqueue.payloads import Payload
from goqueue.queues import Queues
from goqueue.registry import REGISTRY, Handler, Registry
from goqueue.settings import EncryptionSettings
from goqueue.store.transactional import DRAW, LOCK, statements

if TYPE_CHECKING:  # SQLAlchemy's asyncio part needs greenlet, which only those who use it have
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import Session

CONTENDED: Final = "unique key is contended, try again"


@functools.cache
def _keyring() -> Keyring | None:
    """That of the environment, read once."""
    return encryption.load(settings.load(EncryptionSettings))


def _order(
    kind: str | Handler, payload: Payload, options: Options, registry: Registry, queues: Sequence[str] | None
) -> NewJob:
    chosen = engine()
    load_missing(kind, registry, chosen.jobs)
    return build(kind, payload, options, registry, Queues(registry, chosen.queues if queues is None else queues))


def enqueue_in(
    transaction: "Session | Connection",
    kind: str | Handler,
    payload: Payload,
    *,
    registry: Registry = REGISTRY,
    queues: Sequence[str] | None = None,
    **options: Unpack[Options],
) -> int:
    """Enqueue inside the caller's transaction; the job's id. It runs once the caller has committed, or never.

    Raises:
        InvalidInput: type, payload or an option is wrong; nothing was sent, the transaction can go on.
        Conflict: the unique key changed hands meanwhile.
    """
    order = _order(kind, payload, options, registry, queues)
    keyring, drawn = _keyring(), None
    with tracing.sending(order):
        if keyring is not None:
            transaction.execute(LOCK)
            drawn = transaction.execute(DRAW).scalar()
        for statement in statements(order, keyring, drawn):
            made = transaction.execute(statement).scalar()
            if made is not None:
                return int(made)
        raise Conflict(CONTENDED)


async def enqueue_in_async(
    transaction: "AsyncSession | AsyncConnection",
    kind: str | Handler,
    payload: Payload,
    *,
    registry: Registry = REGISTRY,
    queues: Sequence[str] | None = None,
    **options: Unpack[Options],
) -> int:
    """As `enqueue_in`, for SQLAlchemy's async sessions and connections."""
    order = _order(kind, payload, options, registry, queues)
    keyring, drawn = _keyring(), None
    with tracing.sending(order):
        if keyring is not None:
            await transaction.execute(LOCK)
            drawn = (await transaction.execute(DRAW)).scalar()
        for statement in statements(order, keyring, drawn):
            made = (await transaction.execute(statement)).scalar()
            if made is not None:
                return int(made)
        raise Conflict(CONTENDED)
