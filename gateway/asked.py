"""What a caller asks, and what it is answered: the types that a dialect reads requests into and words answers from.

They are the same for every dialect, and have no behaviour. It must not know a vendor, the store, or HTTP beyond a
status and headers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from gateway.canonical import Alert, Flat, Operation, flatten
from gateway.errors import Problem
from gateway.mapping.rows import Hint
from gateway.mapping.table import Reading
from gateway.outcome import Json, Request

# --- what a caller asks ------------------------------------------------------------------------------------


class Incoming(Struct, frozen=True):
    """A caller's request, already bounded, authenticated and decoded.

    `params` are the decoded variables of the path, `query` every value of each name in order, `headers` by
    lower-case name, `body` the decoded JSON (`UNSET` where there was none), `now` the time of arrival in UTC. The
    headers always include `x-forwarded-proto`, whoever terminated TLS, and `x-forwarded-prefix`, what was before the
    route's path.
    """

    params: Mapping[str, str]
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    body: Json | UnsetType
    now: datetime


class Ref(Struct, frozen=True):
    """How a caller names an alert: by an id that any party gave it, or by a dedup key."""

    id: str | None = None
    key: str | None = None


class Command(Struct, frozen=True, kw_only=True):
    """An operation on one alert, as a dialect reads it from a request.

    - `patch`: what the caller said, by canonical path.
    - `verbatim`: the same in the caller's own wire format, without credentials and control fields, for upstreams that
      speak the same dialect.
    - `version`: the version that the caller believes to be current.
    - `dropped`: fields that do not concern an alert, each with the reason.
    - `beside`: what was said besides an operation that does not change what the alert says, by canonical path. It is
      passed on in `verbatim` alone, and reported where an upstream is told only the operation.
    - `carried`: what a gateway put into the vendor's free-form container earlier.
    - `amend`: computes from the record what to lay over `patch`, for requests that only make sense together with it.
    - `invents_key`: make up a key for a new alert without one, because the vendor does so and returns it.
    - `only_new`: the patch applies to a new alert; an open one is changed only by `amend`.
    - `answers_anyway`: the vendor accepts the request whether there is such an alert or not, and tells on inquiry.
    - `is_resend`: the sender repeats the request while the alert lasts; a repeat without news moves the alert's end
      (`ends_at`), and is neither recorded nor delivered.
    - `silence`: the id of the silence that acknowledges, where no person did.
    - `only_open`: where no such alert is open it does nothing, instead of being passed on to upstreams.
    - `instead`: another command, to be carried out in place of this one where the alert it names is open.
    - `reading`: the result of reading the request by rows; an upstream with the same rows need not read it again.
    """

    operation: Operation
    patch: Flat = msgspec.field(default_factory=dict)
    ref: Ref | None = None
    version: int | None = None
    hints: tuple[Hint, ...] = ()
    comment: str = ""
    verbatim: Mapping[str, Json] = msgspec.field(default_factory=dict)
    dropped: tuple[tuple[str, str], ...] = ()
    beside: Flat = msgspec.field(default_factory=dict)
    carried: Json = None
    amend: Callable[[Flat], Flat] | None = None
    invents_key: bool = False
    only_new: bool = False
    answers_anyway: bool = False
    is_resend: bool = False
    silence: str = ""
    only_open: bool = False
    instead: Command | None = None
    reading: Reading | None = None


class Batch(Struct, frozen=True):
    """Several commands in one request, each handled on its own. `problems` were found while reading it; they do not
    hold up the valid commands, and are raised once those are durable."""

    commands: tuple[Command, ...]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A query for one alert, or for the commands that it came through (`history`). `page` is for the dialect's own use:
    what its answer has to say about paging."""

    ref: Ref
    history: bool = False
    page: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """A query for the result of an earlier request, by the request number in its answer."""

    request: int


class Chosen(Struct, frozen=True):
    """An alert chosen for a list: its sort key (`place`) and, optionally, its finished wording, which is encoded at
    once so that only the bytes are kept."""

    place: Any = ()
    worded: Json | UnsetType = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A query for many alerts. Times select by creation (`created_since`, `before`), to the millisecond, and by last
    change (`since`). `page` is for the dialect's own use: what its answer has to say about paging.

    `choose` is for vendors with richer filters, or whose lists are not paged: it returns the sort key of each alert, or
    None for one that does not match; `offset` and `limit` then apply to the chosen ones, in `descending` order if set.
    `marked` is called before that, where the vendor shows it, to note which of the scope's mutes apply to each alert. A
    listing without a `limit` must have `choose` word each alert, as there may be very many."""

    statuses: tuple[str, ...] = ()
    resource: str | None = None
    since: datetime | None = None
    created_since: datetime | None = None
    before: datetime | None = None
    offset: int = 0
    limit: int | None = None
    page: Mapping[str, Any] = field(default_factory=dict)
    choose: Callable[[Shown], Chosen | None] | None = None
    descending: bool = False
    marked: Callable[[Sequence[Shown], Sequence[Muted]], Sequence[Shown]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mute:
    """Creates a silence: for a while nothing is delivered about the alerts that `body` describes in the vendor's words.
    With an `id` it replaces the silence of that id. Matching alerts that are open count as seen by the caller, so they
    are acknowledged, with this `comment`."""

    body: Json
    starts_at: datetime
    ends_at: datetime
    id: str | None = None
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Unmute:
    """Ends a silence, by its id."""

    id: str


@dataclass(frozen=True, slots=True)
class Mutes:
    """A query for one silence, or for all of them, from which `choose` selects and orders the matching ones."""

    id: str | None = None
    choose: Callable[[Sequence[Muted]], Sequence[Muted]] = lambda found: found


# --- what a caller is answered -----------------------------------------------------------------------------


class Shown(Struct, frozen=True):
    """An alert as the caller may see it: the record, under the id that the caller knows it by, and the ids of the
    silences that mute it, where that was asked for."""

    id: str
    version: int
    alert: Alert
    muted_by: tuple[str, ...] = ()

    @property
    def flat(self) -> Flat:
        """The alert by canonical path, computed on demand: most answers do not need it."""
        return flatten(self.alert)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A command that an alert came through: its number, what it asked for, when, by whom, and what it said."""

    number: int
    operation: Operation
    at: datetime
    caller: str
    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquired:
    """The result of an earlier request: the `operation` it asked for and when, what that `was` in the alert's state at
    the time, and why it failed, if it did."""

    operation: Operation
    was: Operation
    at: datetime
    failed: str = ""


class Muted(Struct, frozen=True, kw_only=True):
    """A silence as it is kept: `body` describes the alerts in the vendor's words."""

    id: str
    starts_at: datetime
    ends_at: datetime
    updated_at: datetime
    body: Any


class Answer(Struct, frozen=True):
    """The result of a request: the alert it was about, or the alerts that were asked for and their number. `worded` are
    those that were worded when they were chosen, `request` is the request's own number, `history` the commands that the
    alert came through and `page` which part of them was asked for, `inquired` the result of an earlier request,
    `answers` the answer to each command of a batch, `mutes` the silences.
    """

    shown: Shown | None = None
    listed: tuple[Shown, ...] = ()
    worded: tuple[Json, ...] = ()
    total: int = 0
    listing: Listing | None = None
    key: str | None = None
    request: int = 0
    history: tuple[Told, ...] = ()
    page: Mapping[str, Any] = msgspec.field(default_factory=dict)
    inquired: Inquired | None = None
    answers: tuple[Answer, ...] = ()
    mutes: tuple[Muted, ...] = ()


class Reply(Struct, frozen=True):
    """An answer in the caller's words. A `body` of `UNSET` is an empty one."""

    status: int
    body: Json | UnsetType = UNSET
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Relay:
    """A request that is not about alerts: passed on to the primary where that speaks the caller's dialect. Otherwise
    `otherwise` is answered or raised. `unheard` is raised where such a primary cannot be reached: a request that asks
    for something to be done has no other true answer then."""

    request: Request
    otherwise: Reply | Problem
    unheard: Problem | None = None


Asked = Command | Batch | Read | Inquiry | Listing | Mute | Unmute | Mutes | Relay | Reply
"""What a dialect reads a request as; a `Reply` where the answer needs nothing from the gateway."""
