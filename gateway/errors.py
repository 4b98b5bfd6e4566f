"""The kinds of problem that a request can have, each of which every dialect has words for.

A `Problem` is raised wherever it is noticed, and worded once, at the edge, by the caller's dialect. Its message never
contains a credential. It must not know a vendor's words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

import msgspec


class ProblemKind(StrEnum):
    """Every kind of problem that a caller can be told about."""

    MALFORMED = "malformed"  # not JSON, cut off, nested too deeply
    INVALID = "invalid"  # a field is missing, of the wrong type, or says an unknown word
    UNMET = "unmet"  # an upstream requires what the alert does not have
    UNROUTED = "unrouted"  # no route matches
    REFUSED = "refused"  # every upstream refused the content
    UNAUTHORIZED = "unauthorized"
    NOT_FOUND = "not_found"  # no such alert
    NO_SUCH_PATH = "no_such_path"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    TIMEOUT = "timeout"  # the body did not arrive in time
    CONFLICT = "conflict"  # the version is not the current one
    TOO_LARGE = "too_large"
    MEDIA_TYPE = "media_type"  # a content type that the vendor's API does not take
    HEADERS_TOO_LARGE = "headers_too_large"
    NAME_TAKEN = "name_taken"
    KEY_REUSED = "key_reused"  # an idempotency key that another request has used
    IN_PROGRESS = "in_progress"  # the first request under an idempotency key has not been answered yet
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"  # the outbox is full, the store cannot commit, or the gateway is draining
    INTERNAL = "internal"


USUAL_STATUS: dict[ProblemKind, int] = {
    ProblemKind.MALFORMED: 400,
    ProblemKind.INVALID: 400,
    ProblemKind.UNMET: 400,
    ProblemKind.UNROUTED: 400,
    ProblemKind.REFUSED: 400,
    ProblemKind.UNAUTHORIZED: 401,
    ProblemKind.NOT_FOUND: 404,
    ProblemKind.NO_SUCH_PATH: 404,
    ProblemKind.METHOD_NOT_ALLOWED: 405,
    ProblemKind.TIMEOUT: 408,
    ProblemKind.CONFLICT: 409,
    ProblemKind.IN_PROGRESS: 409,
    ProblemKind.TOO_LARGE: 413,
    ProblemKind.MEDIA_TYPE: 415,
    ProblemKind.NAME_TAKEN: 422,
    ProblemKind.KEY_REUSED: 422,
    ProblemKind.RATE_LIMITED: 429,
    ProblemKind.HEADERS_TOO_LARGE: 431,
    ProblemKind.INTERNAL: 500,
    ProblemKind.OVERLOADED: 503,
}
"""The HTTP status of each kind, where a vendor documents no other."""


class Problem(Exception):
    """A request cannot be served as asked.

    `field` is the vendor's or canonical name of the field at fault; `faults` are several faults, each in the vendor's
    words, for a vendor that lists them all at once; `request` is the gateway's id of the request, once it is known.
    """

    def __init__(
        self,
        kind: ProblemKind,
        message: str,
        *,
        field: str = "",
        retry_after: int | None = None,
        allow: tuple[str, ...] = (),
        faults: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.field = field
        self.retry_after = retry_after
        self.allow = allow
        self.faults = faults
        self.request = ""


def invalid(field: str, message: str) -> Problem:
    """The problem that a field of the request is not acceptable; `message` continues after the field's name."""
    return Problem(ProblemKind.INVALID, f"{field}: {message}" if field else message, field=field)


def together(problems: Sequence[Problem]) -> Problem:
    """Several problems as one, with the kind and `retry_after` of the first that can be retried, else of the first."""
    first = next((one for one in problems if one.retry_after is not None), problems[0])
    said = tuple(dict.fromkeys(fault for one in problems for fault in one.faults or (one.message,)))
    return Problem(first.kind, "; ".join(said), field=first.field, retry_after=first.retry_after, faults=said)


_MISSING = re.compile(r"Object missing required field `([^`]*)`")
_AT = re.compile(r" - at `\$\.?(.*?)`$")


def from_validation(error: msgspec.ValidationError, prefix: str = "") -> Problem:
    """A decoding error as a problem that names the field, such as ``links[0].href``."""
    text = str(error)
    at = _AT.search(text)
    path = at[1] if at else ""
    missing = _MISSING.search(text)
    if missing:
        path = f"{path}.{missing[1]}" if path else missing[1]
        return invalid(_under(prefix, path), "is required")
    reason = _AT.sub("", text)
    return invalid(_under(prefix, path), reason[:1].lower() + reason[1:])


def _under(prefix: str, path: str) -> str:
    return ".".join(part for part in (prefix, path) if part)


class ConfigurationError(Exception):
    """The configuration cannot be used. `problems` lists everything that is wrong with it, each with its path."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class StoreError(Exception):
    """The store cannot do what is asked: it is full, locked, of a newer schema, or gone. The message says which."""
