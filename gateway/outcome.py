"""Requests to upstreams, their responses, and the outcomes of calls: the types in which a dialect declares its calls.

They do nothing: a call is a generator that yields requests, is sent their responses, and returns an outcome; when it
runs, how often, and what is done with its outcome is the engine's business. It must not know a vendor, the store, or
the HTTP libraries in use.
"""

from __future__ import annotations

import base64
import codecs
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from gateway.canonical import Flat, Operation
from gateway.codes import Code
from gateway.errors import ProblemKind

Json = Any
"""A decoded JSON value: dict, list, str, int, float, bool or None."""


class Request(Struct, frozen=True, kw_only=True):
    """A request to an upstream: `path` is added to its address. `accepts` lists the statuses outside 2xx that
    the call handles itself; any other is judged by the engine. `absolute` marks a whole address instead
    of a path, `creates` a request that makes something new each time it is sent, `is_list` one whose answer may be
    long. `by_the_way` marks a request that is optional: the call gets any response to it, with status 0 where no
    answer came. `of_one` marks an address that belongs to a single alert: that nothing is found there says nothing of
    the other alerts."""

    method: str
    path: str
    body: Json | UnsetType = UNSET
    form: Mapping[str, str] | UnsetType = UNSET
    headers: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    accepts: frozenset[int] = frozenset()
    absolute: bool = False
    creates: bool = False
    is_list: bool = False
    by_the_way: bool = False
    of_one: bool = False

    def with_headers(self, headers: Mapping[str, str]) -> Request:
        """The same request with further headers."""
        return msgspec.structs.replace(self, headers={**self.headers, **headers})

    def with_bearer(self, token: str) -> Request:
        """The same request with a bearer token."""
        return self.with_headers({"Authorization": f"Bearer {token}"})

    def with_basic(self, pair: str) -> Request:
        """The same request with Basic authentication, given `user:password`."""
        return self.with_headers({"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"})

    def as_line(self) -> str:
        """The request on one line, for people."""
        body = "" if self.body is UNSET else msgspec.json.encode(self.body).decode()
        form = "" if self.form is UNSET else "&".join(f"{name}={value}" for name, value in self.form.items())
        return " ".join(part for part in (self.method, self.path, body or form) if part)

    def with_fields(self, fields: Mapping[str, Json]) -> Request:
        """The same request with further fields at the top of its body, before the others."""
        body = self.body if isinstance(self.body, dict) else {}
        return msgspec.structs.replace(self, body={**fields, **body})


CHARSET = re.compile(
    r"charset=\"?(iso-8859-(?:1[013-6]?|[2-9])|windows-125[0-8]|utf-16(?:le|be)?"
    r"|koi8-[ru]|shift_jis|euc-jp|euc-kr|gb2312|gbk|gb18030|big5)\b",
    re.IGNORECASE,
)
"""The charsets other than UTF-8 in which a response body may be encoded."""


class Response(Struct, frozen=True):
    """An upstream's answer, headers by lower-case name: at most the first 64 KiB of its body (or eight times what was
    sent, if that is more), of a list 8 MiB.
    `status` is 0 where a `by_the_way` request got no answer."""

    status: int
    headers: Mapping[str, str] = {}
    content: bytes = b""

    def json(self) -> Json:
        """The decoded body; `None` where it is not JSON. A byte order mark is ignored, and what is not UTF-8 is decoded
        with the charset that the answer names."""
        try:
            return msgspec.json.decode(self.content.removeprefix(codecs.BOM_UTF8))
        except (ValueError, RecursionError):
            named = CHARSET.search(self.headers.get("content-type", ""))
        if named is None:
            return None
        try:
            return msgspec.json.decode(self.content.decode(named[1]).removeprefix("\ufeff"))
        except (ValueError, RecursionError):
            return None

    def object(self, *names: str) -> dict[str, Json]:
        """The object that the decoded body is, or has at a path of names; an empty one where there is none."""
        found = self.json()
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}


class Delivered(Struct, frozen=True, tag="delivered", kw_only=True):
    """The upstream took it. `ids` are those it issued, by kind; `seen` is kept for the next call; `altered` has the
    canonical paths that were sent otherwise than they were said, and why; `renew` is after how many seconds an upstream
    has to be told again that the alert is still open, if it would take it for over otherwise."""

    ids: dict[str, str] = {}
    seen: dict[str, Any] = {}
    altered: dict[str, str] = {}
    renew: float | None = None


class Missing(Struct, frozen=True, tag="missing"):
    """The upstream has no such alert any more."""


class Changed(Struct, frozen=True, tag="changed", kw_only=True):
    """Somebody else changed the alert at the upstream: `found` is what the upstream has now."""

    reason: str
    found: dict[str, Any]
    seen: dict[str, Any] = {}


class Again(Struct, frozen=True, tag="again", kw_only=True):
    """The upstream cannot take it now: try again, `after` that many seconds if the upstream said so."""

    reason: str
    after: float | None = None
    code: str = Code.UNAVAILABLE


class Pending(Struct, frozen=True, tag="pending", kw_only=True):
    """The upstream gave a receipt and no verdict yet: ask again `after` that many seconds. `seen` is kept for the next
    call, such as the receipt's number; what is None is forgotten."""

    after: float
    seen: dict[str, Any] = {}


class Rejected(Struct, frozen=True, tag="rejected", kw_only=True):
    """The upstream refuses this content for good."""

    reason: str
    kind: ProblemKind = ProblemKind.REFUSED


class Held(Struct, frozen=True, tag="held"):
    """A fault of the whole upstream, not of this alert, such as a credential that it does not know: nothing is sent
    there until a probe succeeds. A call returns this only where the status of the answer does not show the fault."""

    reason: str
    status: int | None = None
    code: str = Code.KEY_REFUSED


class FoundAlert(Struct, frozen=True):
    """An alert as shown by an upstream of the caller's own dialect; `ids` are further ids that it has there, by kind.
    `carries` says that a gateway made it for a caller of another dialect."""

    id: str
    flat: Flat
    seen: Mapping[str, Any] = msgspec.field(default_factory=dict)
    ids: Mapping[str, str] = msgspec.field(default_factory=dict)
    carries: bool = False


class Found(Struct, frozen=True):
    """The alerts that an upstream returned to a read or a list; `is_part` says that it has more."""

    alerts: tuple[FoundAlert, ...]
    is_part: bool = False


Outcome = Delivered | Missing | Changed | Again | Pending | Rejected | Held | Found


def code_of(outcome: Outcome) -> str:
    """The problem code of an outcome; empty where there is no problem."""
    if isinstance(outcome, Again | Held):
        return outcome.code
    if isinstance(outcome, Rejected):
        return outcome.kind.value
    if isinstance(outcome, Changed):
        return ProblemKind.CONFLICT.value
    if isinstance(outcome, Pending):
        return Code.UNCONFIRMED
    return Code.GONE_THERE if isinstance(outcome, Missing) else ""


Call = Generator[Request, Response, Outcome]
"""A call as a plain generator: it yields requests, is sent their responses, and returns an outcome. It keeps
nothing: after a crash it runs again from the start."""


class Sending(Struct, frozen=True, kw_only=True):
    """Everything a call may know.

    `body` is the whole alert in the vendor's words, `patch` only what this command changes; `key` is the key
    the alert has at this upstream, `ids` and `seen` come from earlier outcomes; `verbatim` is the caller's own
    words where it speaks the upstream's dialect (`is_akin`); `suffix` is the gateway's id of the alert, for `renamed`;
    `strict` asks an update not to overwrite what somebody else changed there; `replaced` is what the route sets, which
    `body` contains already where it has a field for it; `at` is the time of sending; `settings` is the dialect's
    section of the configuration; `mark` identifies the delivery: it is the same at each of its attempts; an update
    without `changes` repeats what was said before; `last` says that an ended alert is the last one of its group
    (`Outbound.group`) that is open at this upstream;
    `tried` is the whole alert as the first attempt had it that may have made it there although its answer was lost,
    where nothing is known of it yet.
    """

    operation: Operation
    at: datetime
    body: dict[str, Json]
    patch: dict[str, Json]
    key: str | None
    ids: Mapping[str, str]
    seen: Mapping[str, Any]
    comment: str = ""
    suffix: str = ""
    strict: bool = False
    is_akin: bool = False
    verbatim: dict[str, Json] | None = None
    replaced: Flat = msgspec.field(default_factory=dict)
    settings: Any = None
    mark: str = ""
    changes: bool = False
    last: bool = False
    tried: dict[str, Json] = msgspec.field(default_factory=dict)

    def renamed(self, name: Json) -> str:
        """A name that another alert has at the upstream, made unique."""
        return f"{name} [{self.suffix}]"


@dataclass(frozen=True, slots=True)
class Token:
    """A credential that an upstream's identity service issued; its `lifetime` is in seconds."""

    value: str
    lifetime: float
