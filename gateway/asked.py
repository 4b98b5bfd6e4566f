"""What a caller asks, and what it is answered: the shapes between what a dialect reads and what it words.

They are the same for every dialect, and do nothing. It must not know a vendor, the store, or HTTP beyond a status and
headers.
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
from gateway.mapping import Reading
from gateway.outcome import Json, Request
from gateway.rows import Hint

# --- what a caller asks ------------------------------------------------------------------------------------


class Incoming(Struct, frozen=True):
    """A caller's request, already bounded, authenticated and decoded.

    `params` are the decoded variables of the path, `query` every value of each name in order, `headers` by
    lower-case name (`x-forwarded-proto` and `x-forwarded-prefix` among them, whoever ended TLS and whatever stood
    before the path), `body` the decoded JSON (`UNSET` where there was none), `now` the time of arrival in UTC.
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

    `patch` holds what the caller said, by canonical path; `verbatim` the caller's own words for it, without
    credentials and control fields, for upstreams that speak the same dialect; `version` the version that the
    caller believes to be current; `dropped` what does not concern an alert, with the reason; `carried` what a
    gateway put into the vendor's free-form container earlier; `amend` answers, from the record, what to lay over
    `patch` where a request only makes sense together with what is there; `invents_key` asks for a key to be made up
    for a new alert that has none, because the vendor does and tells it; `only_new` says that what a create says holds
    for a new alert, and one that is open stays as it is but for what `amend` says; `answers_anyway` says that the
    vendor takes the request whether there is such an alert or not, and tells later; `is_resend` that its sender says it
    again and again for as long as it is so: what says nothing new then moves the alert's end (`ends_at`), and is
    neither recorded nor told; `silence` is the id of the one that acknowledges, where nobody did. `reading` is what the
    request was read as, where it was by rows: an upstream with the same rows need not read it again.
    """

    operation: Operation
    patch: Flat = msgspec.field(default_factory=dict)
    ref: Ref | None = None
    version: int | None = None
    hints: tuple[Hint, ...] = ()
    comment: str = ""
    verbatim: Mapping[str, Json] = msgspec.field(default_factory=dict)
    dropped: tuple[tuple[str, str], ...] = ()
    carried: Json = None
    amend: Callable[[Flat], Flat] | None = None
    invents_key: bool = False
    only_new: bool = False
    answers_anyway: bool = False
    is_resend: bool = False
    silence: str = ""
    reading: Reading | None = None


class Batch(Struct, frozen=True):
    """Several commands in one request, each on its own: what is wrong with some (`problems`, found while they were
    read) keeps none of the others back, and is told once those are durable."""

    commands: tuple[Command, ...]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A question for one alert, or for the commands that it came through (`history`); `page` is whatever the dialect's
    own answer needs to say about paging."""

    ref: Ref
    history: bool = False
    page: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """A question for what became of an earlier request, by the number it was answered with."""

    request: int


class Chosen(Struct, frozen=True):
    """An alert that a list is to have: its `place` in the order, and how it is shown there, where that is said already:
    it is encoded at once, so that no more than its bytes are kept."""

    place: Any = ()
    worded: Json | UnsetType = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A question for many alerts. Times select by creation (`created_since`, `before`), to the millisecond, and by last
    change (`since`); `page` is whatever the dialect's own answer needs to say about paging. `choose` says of each alert
    which place it has, and nothing of one that is not meant, where the vendor lets its callers ask for more than that,
    or lists all; `offset` and `limit` then count what it chose, the last place first where `descending`. `marked` says,
    before that, by what of the scope's mutes each is muted, where the vendor shows it. Whoever lists without a `limit`
    has `choose` word each alert: there may be very many."""

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
    """Asks that nothing be told for a while of the alerts that `body` describes in the vendor's words: a new request of
    this kind, or in the place of the one of this `id`. Whoever wants to hear no more of the open alerts that it means
    has seen them, so they are acknowledged, with this `comment`."""

    body: Json
    starts_at: datetime
    ends_at: datetime
    id: str | None = None
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Unmute:
    """Ends an earlier request of that kind, by its id."""

    id: str


@dataclass(frozen=True, slots=True)
class Mutes:
    """A question for one request of that kind, or for all of them, of which `choose` picks and orders those that are
    meant."""

    id: str | None = None
    choose: Callable[[Sequence[Muted]], Sequence[Muted]] = lambda found: found


# --- what a caller is answered -----------------------------------------------------------------------------


class Shown(Struct, frozen=True):
    """An alert as the caller may see it: the record, under the id that the caller knows it by, and the ids of what it
    is muted by, where that was asked for."""

    id: str
    version: int
    alert: Alert
    muted_by: tuple[str, ...] = ()

    @property
    def flat(self) -> Flat:
        """The alert by canonical path, taken apart where somebody wants to see it: most answers say nothing of it."""
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
    """What became of an earlier request: what it asked for and when, what that `was` where the alert stood, and why it
    came to nothing, if it did."""

    operation: Operation
    was: Operation
    at: datetime
    failed: str = ""


class Muted(Struct, frozen=True, kw_only=True):
    """A request to be told nothing of some alerts for a while, as it is kept: `body` is in the vendor's words."""

    id: str
    starts_at: datetime
    ends_at: datetime
    updated_at: datetime
    body: Any


class Answer(Struct, frozen=True):
    """What a request came to: the alert it was about, or the alerts that were asked for and their number. `worded` are
    those that were worded when they were chosen, `request` is the request's own number, `history` what the alert came
    through and `page` which part of that was asked for, `inquired` what became of an earlier request, `answers` the
    answer to each command of a batch, `mutes` what is muted.
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
    """A question that is not about alerts: passed to the primary where it speaks this dialect, else answered or refused
    so. `unheard` refuses it where the primary would have to hear it and cannot be reached: for what asks that something
    be done, no other answer is true."""

    request: Request
    otherwise: Reply | Problem
    unheard: Problem | None = None


Asked = Command | Batch | Read | Inquiry | Listing | Mute | Unmute | Mutes | Relay | Reply
"""What a request turns out to ask for; a reply where it asks for nothing that the gateway would have to look up."""
