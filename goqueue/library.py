"""From what a Python caller says to an order: the rules of `goqueue.orders`, with types named by their function."""

import functools
import inspect
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, TypedDict

from pydantic import BaseModel

from goqueue import registry as types
from goqueue import settings
from goqueue.access import TENANT
from goqueue.errors import InvalidInput
from goqueue.job import NewJob, Source
from goqueue.jsontext import decode
from goqueue.orders import accept
from goqueue.payloads import Payload, as_json, encoded
from goqueue.registry import REGISTRY, Handler, JobType, Registry
from goqueue.settings import EngineSettings


class Options(TypedDict, total=False):
    """What may be said about a job beside its type and payload; `timeout` in seconds."""

    queue: str
    max_retries: int
    priority: int
    available_at: datetime
    timeout: float
    unique_key: str
    tenant: str


def build(
    kind: str | Handler, payload: Payload, options: Options, registry: Registry, queues: Collection[str]
) -> NewJob:
    """An order from what a Python caller says.

    Raises:
        InvalidInput: as for a request body; or `kind` is a function that no type is registered for; or `payload` is a
            model that would not reach the handler as it is.
    """
    found = _type_of(kind, registry)
    raw: dict[str, Any] = {"queue": found.queue, **options, "type": found.name, "payload": as_json(payload)}
    tenant = raw.pop("tenant", None)
    if tenant is not None and not (isinstance(tenant, str) and TENANT.fullmatch(tenant)):
        raise InvalidInput("validation failed", {"tenant": "lower case letters, digits, '-', '_' and '.'"})
    given = payload if isinstance(payload, BaseModel) else None
    return accept(raw, registry, queues, source=Source.LIBRARY, tenant=tenant, given=given)


def build_many(
    kind: str | Handler,
    payloads: Sequence[Payload],
    options: Options,
    registry: Registry,
    queues: Collection[str],
) -> list[NewJob]:
    """An order for each payload, as `build` makes it.

    Raises:
        InvalidInput: as `build`, with the `index` of the first wrong payload among the fields.
    """
    orders: list[NewJob] = []
    if len(payloads) > 1 and (alike := _build_alike(kind, payloads, options, registry, queues)):
        return alike
    for index, payload in enumerate(payloads):
        try:
            orders.append(build(kind, payload, options, registry, queues))
        except InvalidInput as error:
            raise InvalidInput(error.message, {**(error.fields or {}), "index": index}) from None
    return orders


def _build_alike(
    kind: str | Handler,
    payloads: Sequence[Payload],
    options: Options,
    registry: Registry,
    queues: Collection[str],
) -> list[NewJob] | None:
    """The same in a tenth of the time, or None where anything is wrong: all payloads are looked at as one text."""
    try:
        first = build(kind, payloads[0], options, registry, queues)
        values = decode(b"[" + b",".join(map(encoded, payloads)) + b"]")
    except InvalidInput:
        return None
    found = registry.get(first.type)
    return first.for_each(values) if found and found.accepts_all(values, payloads) else None


def load_missing(kind: str | Handler, registry: Registry, modules: Sequence[str]) -> None:
    """Import the modules of GOQUEUE_JOBS where the process does not know the type: a program that names its types as
    text need not import them itself.

    Raises:
        SettingsError: a module cannot be imported.
    """
    if modules and isinstance(kind, str) and registry is REGISTRY and registry.get(kind) is None:
        types.load(modules)


@functools.cache
def engine() -> EngineSettings:
    """Those of the environment, read once."""
    return settings.load(EngineSettings)


def _type_of(kind: str | Handler, registry: Registry) -> JobType:
    if isinstance(kind, str):
        found = registry.get(kind)
        if found is None:
            raise InvalidInput("invalid job type", {"provided": kind, "allowed": registry.names()})
        return found
    forms = (kind, inspect.unwrap(kind))  # it may be decorated once more; a bound method is another object each time
    for one in registry:
        if one.handler is not None and one.handler in forms:
            return one
    raise InvalidInput("invalid job type", {"provided": _named(kind), "allowed": registry.names()})


def _named(handler: Handler) -> str:
    """A function by its name: its `repr` may hold anything."""
    return str(getattr(handler, "__qualname__", type(handler).__qualname__))
