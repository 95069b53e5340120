"""Job types: a name, a payload model and (in the worker) a function. Pure; users extend GoQueue here.

    @job_type("resize_image", payload=ResizeImage, queue="images", retry=RetryPolicy(base=5))
    async def resize_image(payload: ResizeImage, job: JobContext) -> dict[str, int]: ...

The API validates against the model, the worker runs the function; the three built-in types use the same door.
"""

import importlib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Protocol

from pydantic import BaseModel, TypeAdapter, ValidationError

from goqueue.encryption import MARK
from goqueue.errors import InvalidInput, SettingsError
from goqueue.job import QUEUE_NAME
from goqueue.payloads import check_same, is_plain
from goqueue.retry import DEFAULT_RETRY, RetryPolicy

Handler = Callable[[Any, "JobContext"], Any]
"""`async def` or plain `def`; takes the validated payload and the context, returns JSON-able data or None."""


_SLICE: Final = 100
"""Payloads that are validated together."""


class JobContext(Protocol):
    """What a handler may ask of the attempt it runs in. The worker provides it."""

    @property
    def job_id(self) -> int:
        """The job's id."""

    @property
    def created(self) -> float:
        """When the job was made, in seconds since the epoch; the same in each attempt.

        Where a database loses its last transactions (a crash, a failover to a standby that lacks them), the ids of the
        jobs that it lost are given to others. Id and time together name one job.
        """

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""

    @property
    def max_retries(self) -> int:
        """How many retries the job has in all."""

    @property
    def deaths(self) -> int:
        """How many workers died while they held the job; 0 in all but odd cases."""

    @property
    def queue(self) -> str:
        """The queue it came from."""

    @property
    def cancelled(self) -> bool:
        """True once somebody asked to cancel the job; for sync handlers, which cannot be interrupted."""

    @property
    def trace_headers(self) -> dict[str, str]:
        """`traceparent` and `tracestate` for requests to others, so that they are in the job's trace; or empty."""

    def progress(self, fraction: float) -> None:
        """Report progress between 0 and 1; stored soon, shown by the API."""

    def log(self, message: str, level: str = "info") -> None:
        """Keep a line with the job; stored soon, shown by the API."""


@dataclass
class JobType:
    """One registered type. `timeout` in seconds; `queue` is where jobs of it go when the caller names none."""

    name: str
    payload: type[BaseModel]
    queue: str = "default"
    retry: RetryPolicy = DEFAULT_RETRY
    timeout: float = 60.0
    description: str = ""
    handler: Handler | None = field(default=None, repr=False)

    def implements(self, handler: Handler) -> Handler:
        """Decorator that gives the type its function, where model and function live in different packages.

        Raises:
            TypeError: it is a generator, or does not take two arguments.
        """
        _check_handler(self.name, handler)
        self.handler = handler
        self.__dict__.pop("is_async", None)
        return handler

    @cached_property
    def is_async(self) -> bool:
        """Whether calling the handler makes a coroutine and does no work yet; asked for each job."""
        call = getattr(self.handler, "__call__", None)  # noqa: B004 - for objects whose `__call__` is async
        return inspect.iscoroutinefunction(self.handler) or inspect.iscoroutinefunction(call)

    def validate(self, payload: Any, given: BaseModel | None = None) -> dict[str, Any]:
        """The payload, unchanged, if the model accepts it; and, where `given` is such a model, if it says the same.

        Raises:
            InvalidInput: `invalid payload format` (not an object) or `payload validation failed` with fields.
        """
        if not isinstance(payload, dict):
            raise InvalidInput("invalid payload format")
        if MARK in payload:
            raise InvalidInput("payload validation failed", {MARK: "this name is reserved"})
        try:
            parsed = self.parse(payload)
        except ValidationError as error:
            raise InvalidInput("payload validation failed", field_errors(error)) from None
        if given is not None and isinstance(given, self.payload) and not (type(given) is self.payload and self._plain):
            check_same(given, parsed)
        return payload

    def accepts_all(self, payloads: Sequence[Any], given: Sequence[Any] = ()) -> bool:
        """Whether `validate` would accept each of them; takes half the time."""
        try:
            # In slices, so that the models die young: the garbage collector would look at thousands again and again.
            for first in range(0, len(payloads), _SLICE):
                parsed = self._many.validate_python(payloads[first : first + _SLICE])
                for one, arrives in zip(given[first : first + _SLICE], parsed, strict=False):
                    if type(one) is self.payload and self._plain:
                        continue
                    if isinstance(one, self.payload) and one != arrives:
                        return False
        except ValidationError:
            return False
        return all(type(payload) is dict and MARK not in payload for payload in payloads)

    @cached_property
    def parse(self) -> Callable[[Any], BaseModel]:
        """`payload.model_validate`, without the third of its time that it spends beside validating.

        Raises:
            ValidationError: the model does not accept what it is given.
        """
        return TypeAdapter(self.payload).validator.validate_python

    @cached_property
    def _plain(self) -> bool:
        return is_plain(self.payload)

    @cached_property
    def _many(self) -> TypeAdapter[list[BaseModel]]:
        return TypeAdapter(list[self.payload])  # type: ignore[name-defined]


MAX_FIELDS: Final = 100
"""Wrong fields that an error names."""

MAX_NAME: Final = 200
"""Characters of a wrong field's name that are shown."""


def field_errors(error: ValidationError) -> dict[str, str]:
    """Pydantic's findings as `{"path.to.field": "message"}`, without the rejected values (they may be secret).

    The first `MAX_FIELDS` of them, and the names cut to `MAX_NAME`: the names may come from outside, too.
    """
    return {
        ".".join(str(part) for part in item["loc"])[:MAX_NAME] or "body": item["msg"]
        for item in error.errors(include_url=False, include_context=False, include_input=False)[:MAX_FIELDS]
    }


class Registry:
    """The job types of one process, by name."""

    def __init__(self, types: Iterable[JobType] = ()) -> None:
        self._types: dict[str, JobType] = {}
        self.queues: dict[str, None] = {}
        """The queues of all types, in the order of their registration."""
        for kind in types:
            self.add(kind)

    def add(self, kind: JobType) -> JobType:
        """Register `kind`.

        Raises:
            ValueError: the name is taken by another type, its queue's name is not one, or its timeout is no time.
            TypeError: its handler is a generator, or does not take two arguments.
        """
        if kind.handler is not None:
            _check_handler(kind.name, kind.handler)
        if not _is_time(kind.timeout):
            raise ValueError(f"job type {kind.name!r}: timeout must be a number of seconds above 0")
        if self._types.get(kind.name, kind) is not kind:
            raise ValueError(f"job type {kind.name!r} is registered twice")
        if not QUEUE_NAME.fullmatch(kind.queue):
            raise ValueError(
                f"job type {kind.name!r}: {kind.queue!r} is not a queue name (1 to 63 lower case letters, digits, '-', "
                "'_', '.')"
            )
        self.queues[kind.queue] = None
        self._types[kind.name] = kind
        return kind

    def get(self, name: str) -> JobType | None:
        """The type of that name, or None."""
        return self._types.get(name)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._types)

    def __iter__(self) -> Iterator[JobType]:
        return iter(self._types.values())


def _is_time(seconds: object) -> bool:
    """Whether this is a positive, finite number; untyped code gives text such as "30s", too."""
    return isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 < seconds < math.inf


def _check_handler(name: str, handler: Handler) -> None:
    """Refuse what could not run any job: a generator, which does nothing when it is called, and a function that does
    not take payload and context."""
    try:
        inspect.signature(handler).bind(None, None)
    except TypeError:
        raise TypeError(f"job type {name!r}: a handler takes two arguments, the payload and the job") from None
    except ValueError:  # a built-in function that does not tell its signature
        pass
    for call in (handler, getattr(handler, "__call__", None)):  # noqa: B004 - for objects that are callable
        if inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call):
            raise TypeError(f"job type {name!r}: a handler must not be a generator (it uses `yield`)")


REGISTRY: Final = Registry()
"""Where `job_type` registers. Import the modules that hold your types (setting `GOQUEUE_JOBS`) to fill it."""


def job_type(
    name: str,
    *,
    payload: type[BaseModel],
    queue: str = "default",
    retry: RetryPolicy = DEFAULT_RETRY,
    timeout: float = 60.0,
    registry: Registry = REGISTRY,
) -> Callable[[Handler], Handler]:
    """Decorator that registers a function as the handler of a new job type. `timeout` in seconds."""

    def register(handler: Handler) -> Handler:
        registry.add(JobType(name, payload, queue, retry, timeout, (handler.__doc__ or "").strip(), handler))
        return handler

    return register


def load(modules: Iterable[str]) -> None:
    """Import the user's modules of job types.

    Raises:
        SettingsError: a module cannot be imported.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            where = "; its folder must be in PYTHONPATH, or the current one" if error.name == module else ""
            raise SettingsError(f"GOQUEUE_JOBS: cannot import {module!r}: {error}{where}") from error
        except Exception as error:
            raise SettingsError(f"GOQUEUE_JOBS: cannot import {module!r}: {error}") from error
