"""From a request to an order: every rule about what a job may ask for, in the words of the REST contract. Pure."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from goqueue.builtin import TYPE_OF_QUEUE
from goqueue.errors import InvalidInput
from goqueue.job import (
    DEFAULT_MAX_RETRIES,
    MAX_KEY_LENGTH,
    MAX_PRIORITY,
    MAX_RETRIES,
    MAX_TIMEOUT_SECONDS,
    MIN_PRIORITY,
    MIN_TIMEOUT_SECONDS,
    NewJob,
    Source,
)
from goqueue.registry import JobType, Registry, field_errors

LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)

Key = Annotated[str, StringConstraints(min_length=1, max_length=MAX_KEY_LENGTH, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Order(BaseModel):
    """The body of `POST /jobs/create`, and the job template of a schedule. `timeout` in seconds."""

    model_config = ConfigDict(extra="forbid", strict=True)

    queue: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = Field(
        None, description="Where the job waits. May be left out where `type` is given: the default is the type's own."
    )
    type: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = Field(
        None,
        description="What the job does: a name from `GET /types`. May be left out where `queue` is a built-in one: "
        f"{', '.join(f'`{queue}`: {kind}' for queue, kind in TYPE_OF_QUEUE.items())}.",
    )
    payload: Any = Field(
        description="What the handler gets: a JSON object that fits the type's schema, which `GET /types` shows."
    )
    max_retries: Annotated[int, Field(ge=0, le=MAX_RETRIES)] = DEFAULT_MAX_RETRIES
    priority: Annotated[int, Field(ge=MIN_PRIORITY, le=MAX_PRIORITY)] = 0
    available_at: Annotated[AwareDatetime, Strict(False), Field(ge=EARLIEST, lt=LATEST)] | None = None
    timeout: Annotated[float, Field(ge=MIN_TIMEOUT_SECONDS, le=MAX_TIMEOUT_SECONDS, allow_inf_nan=False)] | None = None
    unique_key: Key | None = None


_ORDERS: Final = TypeAdapter(list[Order])


def accept(
    raw: Any,
    registry: Registry,
    queues: Collection[str],
    *,
    source: Source = Source.API,
    source_key: str | None = None,
    trace_context: str | None = None,
    tenant: str | None = None,
    given: BaseModel | None = None,
) -> NewJob:
    """Turn a decoded request body into an order, or say what is wrong with it.

    `given` is the model that the payload was made of, where a Python caller gave one.

    Raises:
        InvalidInput: `validation failed`, `invalid queue`, `invalid job type`, `invalid payload format` or
            `payload validation failed`, each with fields as the REST contract says.
    """
    if not isinstance(raw, dict):
        raise InvalidInput("validation failed", {"body": "must be a JSON object"})
    try:
        order = Order.model_validate(raw)
    except ValidationError as error:
        raise InvalidInput("validation failed", {**_without_place(raw), **field_errors(error)}) from None
    kind = _kind_of(order, registry, queues)
    kind.validate(order.payload, given)
    return _job(order, kind, source, source_key, trace_context, tenant)


def accept_all(
    raw: Sequence[Any],
    registry: Registry,
    queues: Collection[str],
    *,
    trace_context: str | None = None,
    tenant: str | None = None,
) -> list[NewJob] | None:
    """What `accept` makes of each, or None where it would refuse one; takes half the time."""
    try:
        orders = _ORDERS.validate_python(raw)
        kinds = [_kind_of(order, registry, queues) for order in orders]
    except (ValidationError, InvalidInput):
        return None
    payloads: dict[str, list[Any]] = defaultdict(list)
    for kind, order in zip(kinds, orders, strict=True):
        payloads[kind.name].append(order.payload)
    by_name = {kind.name: kind for kind in kinds}
    if not all(by_name[name].accepts_all(some) for name, some in payloads.items()):
        return None
    return [
        _job(order, kind, Source.API, None, trace_context, tenant) for kind, order in zip(kinds, orders, strict=True)
    ]


def _without_place(raw: dict[str, Any]) -> dict[str, str]:
    """What to say of a body that names neither queue nor type."""
    named = raw.get("queue") is not None or raw.get("type") is not None
    return {} if named else {"queue": "Field required where `type` is not given"}


def _kind_of(order: Order, registry: Registry, queues: Collection[str]) -> JobType:
    queue, name = order.queue, order.type
    if queue is not None and queue not in queues:
        raise InvalidInput("invalid queue", {"provided": queue, "allowed": sorted(queues)})
    if name is None and queue is None:
        raise InvalidInput("validation failed", _without_place({}))
    name = name or TYPE_OF_QUEUE.get(queue or "")
    if name is None:
        raise InvalidInput("validation failed", {"type": f"required for queue {queue!r}"})
    kind = registry.get(name)
    if kind is None:
        raise InvalidInput("invalid job type", {"provided": name, "allowed": registry.names()})
    if queue is None and kind.queue not in queues:
        raise InvalidInput("invalid queue", {"provided": kind.queue, "allowed": sorted(queues)})
    return kind


def _job(
    order: Order,
    kind: JobType,
    source: Source,
    source_key: str | None,
    trace_context: str | None,
    tenant: str | None,
) -> NewJob:
    return NewJob(
        order.queue or kind.queue,
        kind.name,
        order.payload,
        order.max_retries,
        order.priority,
        order.available_at,
        order.timeout,
        order.unique_key,
        source,
        source_key,
        trace_context,
        tenant,
    )
