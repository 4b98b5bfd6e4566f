"""Small helpers for dialects that read requests: credentials, query parameters, bodies.

They raise `Problem` and know nothing of any vendor.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

from msgspec import UNSET, json

from gateway.asked import Batch, Command, Incoming, Read, Ref
from gateway.canonical import Flat, Operation
from gateway.errors import Problem, ProblemKind, invalid
from gateway.mapping.table import Reading
from gateway.mapping.values import read_time
from gateway.outcome import Json

T = TypeVar("T")
MOST_TOLD = 20
"""The most faults that are told of one request."""
MOST_REPEATED = 4 * 1024 * 1024
"""Bytes to which what stands once in a request may grow because it is kept with each of its alerts."""


def bearer(incoming: Incoming) -> tuple[str, ...]:
    """The credential of the Authorization header, with or without the word Bearer before it."""
    header = incoming.headers.get("authorization", "").strip()
    scheme, _, rest = header.partition(" ")
    token = rest.strip() if scheme.lower() == "bearer" else header
    return (token,) if token else ()


def unpacked(text: str) -> str | None:
    """The `user:password` of Basic authentication, from what stands behind the scheme; None where that is no base64."""
    try:
        return base64.b64decode(text.strip(), validate=True).decode()
    except ValueError:
        return None


def address(incoming: Incoming) -> str:
    """The base URL under which the caller reaches this gateway, for links: from the `x-forwarded-*` headers of a proxy,
    of several proxies the first. A caller that forges them only misleads itself."""
    proto, host, prefix = (
        incoming.headers.get(f"x-forwarded-{name}", "").partition(",")[0].strip()
        for name in ("proto", "host", "prefix")
    )
    scheme = "https" if proto.lower() == "https" else "http"
    host = host or incoming.headers.get("host", "") or "localhost"
    return f"{scheme}://{host}/{prefix.strip('/')}".rstrip("/")


def body_object(incoming: Incoming) -> dict[str, Any]:
    """The body as a JSON object; raises `Problem` where it is none."""
    if incoming.body is UNSET:
        raise Problem(ProblemKind.MALFORMED, "the request has no body; a JSON object is expected")
    if not isinstance(incoming.body, dict):
        raise Problem(ProblemKind.MALFORMED, f"the body is {_kind(incoming.body)}; a JSON object is expected")
    return incoming.body


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def saying(operation: Operation, reading: Reading, **more: Any) -> Command:
    """A command that says all that was read by rows; `more` are further fields of it."""
    return Command(
        operation=operation,
        patch=reading.flat,
        hints=reading.hints,
        verbatim=reading.verbatim,
        dropped=reading.dropped,
        carried=reading.carried,
        reading=reading,
        **more,
    )


def in_place(reading: Reading) -> Callable[[Flat], Flat]:
    """Returns an `amend` for a dialect whose fields may each be read as one path or another: a value that says one only
    clears the other, so that nothing older stays beside it."""
    unsaid = reading.rows.unsaid(reading.verbatim, reading.flat)
    return lambda before: {path: None for path in unsaid if before.get(path) is not None}


def each(parts: Iterable[T], read: Callable[[T], Command]) -> Batch:
    """The commands of a request with several alerts: a fault in one keeps none of the others back. Further faults are
    only passed over: one request has room for hundreds of thousands."""
    commands: list[Command] = []
    problems: list[Problem] = []
    for part in parts:
        try:
            commands.append(read(part))
        except Problem as problem:
            problem.with_traceback(None)  # which would lead back to this list
            problems += [problem] if len(problems) < MOST_TOLD else []
    return Batch(tuple(commands), tuple(problems))


def can_be_repeated(beside: Json, times: int) -> bool:
    """Whether what stands beside a list of so many alerts may be kept with each of them. Senders of groups stay far
    below that, but a request of a mebibyte could become gigabytes."""
    return times < 2 or len(json.encode(beside)) * times <= MOST_REPEATED


def read_by_id(incoming: Incoming) -> Read:
    """Reads a request for the alert whose id is in the path."""
    return Read(ref=Ref(id=incoming.params["id"]))


def by_id(operation: Operation) -> Callable[[Incoming], Command]:
    """Returns a reader of requests that say no more than an operation on the alert whose id is in the path."""
    return lambda incoming: Command(operation=operation, ref=Ref(id=incoming.params["id"]))


def one(incoming: Incoming, name: str) -> str | None:
    """The last value of a query parameter, or None."""
    values = incoming.query.get(name)
    return values[-1] if values else None


def whole_number(incoming: Incoming, name: str, default: int, *, least: int, most: int | None = None) -> int:
    """A query parameter as a whole number within bounds."""
    text = one(incoming, name)
    if text is None or text == "":
        return default
    try:
        value = int(text)
    except ValueError:
        raise invalid(name, f"{text!r} is not a whole number") from None
    if value < least or (most is not None and value > most):
        raise invalid(name, f"must be {f'between {least} and {most}' if most is not None else f'at least {least}'}")
    return value


def time_of(incoming: Incoming, name: str) -> datetime | None:
    """A query parameter as a time: ISO 8601, or a number of seconds, milliseconds or microseconds since 1970,
    told apart by their size."""
    text = one(incoming, name)
    if not text:
        return None
    try:
        return from_epoch(int(text)) if text.lstrip("-").isdigit() else read_time(text)
    except (ValueError, OverflowError, OSError):
        raise invalid(name, f"{text[:64]!r} is not a time") from None


def from_epoch(value: int) -> datetime:
    """A number since 1970 as a time: microseconds from 10^15 on, milliseconds from 10^12 on, else seconds."""
    size = abs(value)
    per_second = 1_000_000 if size >= 10**15 else 1_000 if size >= 10**12 else 1
    return datetime.fromtimestamp(value / per_second, UTC)
