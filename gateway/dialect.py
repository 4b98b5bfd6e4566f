"""What a vendor's module declares: its dialect, as data and pure functions.

Nothing here does anything: these are the shapes in which a dialect tells the engine how its vendor speaks. A
declaration has no clock, no input or output, no randomness and no policy: retries, timeouts, queues and who may
call are the engine's. It must not know a vendor, the store, or the HTTP libraries in use.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Struct, UnsetType

from gateway.canonical import Alert, Flat, Kind, Operation, flatten
from gateway.codes import Code
from gateway.errors import Problem, ProblemKind
from gateway.mapping import Mapping as FieldMapping
from gateway.mapping import Reading
from gateway.rows import Hint

if TYPE_CHECKING:
    from gateway.own.envelope import Envelope

Json = Any
"""A decoded JSON value: dict, list, str, int, float, bool or None."""


# --- what a caller asks ------------------------------------------------------------------------------------


CREDENTIAL = "credential"
"""The variable of a route's path that is the credential: such a path is in no log, its route is."""


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


# --- what an upstream is sent ------------------------------------------------------------------------------


class Request(Struct, frozen=True, kw_only=True):
    """A request to an upstream: `path` is added to its address. `accepts` lists the answers outside 2xx that
    this call wants to see itself; any other is the engine's to judge. `absolute` marks a whole address instead
    of a path, `creates` a request that makes something new each time it is sent, `is_list` one whose answer may be
    long. One that is `by_the_way` asks for what would be good to know: whatever comes of it is the call's to see, as
    status 0 where no answer came. Where the address is one alert's alone (`of_one`), what is not found there says
    nothing of the others."""

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

    def as_line(self) -> str:
        """On one line, to be looked at."""
        body = "" if self.body is UNSET else msgspec.json.encode(self.body).decode()
        form = "" if self.form is UNSET else "&".join(f"{name}={value}" for name, value in self.form.items())
        return " ".join(part for part in (self.method, self.path, body or form) if part)

    def with_fields(self, fields: Mapping[str, Json]) -> Request:
        """The same request with further fields at the top of its body, before the others."""
        body = self.body if isinstance(self.body, dict) else {}
        return msgspec.structs.replace(self, body={**fields, **body})


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One documented operation of the vendor's API, as callers use it.

    `path` has variables in braces, `{credential}` among them where callers are known by it; `read` turns the request
    into what it asks for and raises `Problem`; `answer` words the result. A `side` route yields, at the root, to that
    of another dialect at the same path; one that is not `at_root` is served below the dialect's name alone.
    `body` and `returns` are the structs on the wire, for the OpenAPI description.
    """

    method: str
    path: str
    operations: tuple[Operation, ...]
    read: Callable[[Incoming], Asked]
    answer: Callable[[Answer], Reply]
    summary: str
    source: str
    side: bool = False
    at_root: bool = True
    body: Any = None
    success: int = 200
    returns: Any = None
    query: tuple[str, ...] = ()
    body_optional: bool = False

    @property
    def writes(self) -> bool:
        """Whether what is asked for here is written down, and so has to wait for whoever is ahead."""
        return not {Operation.READ, Operation.LIST}.issuperset(self.operations)


def segment(value: str) -> str:
    """An id as one segment of a path; a missing one is left readable, as a template."""
    return quote(value, safe="{}")


CHARSET = re.compile(
    r"charset=\"?(iso-8859-(?:1[013-6]?|[2-9])|windows-125[0-8]|utf-16(?:le|be)?"
    r"|koi8-[ru]|shift_jis|euc-jp|euc-kr|gb2312|gbk|gb18030|big5)\b",
    re.IGNORECASE,
)
"""The charsets other than UTF-8 in which a body may be."""


class Response(Struct, frozen=True):
    """What an upstream answered, headers by lower-case name: at most the first 64 KiB of its body, of a list 8 MiB.
    `status` is 0 where nobody answered what was asked by the way."""

    status: int
    headers: Mapping[str, str] = {}
    content: bytes = b""

    def json(self) -> Json:
        """The decoded body; `None` where it is not JSON. A mark of its byte order does not count, and what is no UTF-8
        is read in the charset that the answer names."""
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


class Delivered(Struct, frozen=True, tag="delivered", kw_only=True):
    """The upstream took it. `ids` are those it issued, by kind; `seen` is what the next call wants to know,
    `altered` which canonical paths it got otherwise than they were said, and why; `renew` after how many seconds it has
    to be told again that the alert is still open, at an upstream that would take it for over otherwise."""

    ids: dict[str, str] = {}
    seen: dict[str, Any] = {}
    altered: dict[str, str] = {}
    renew: float | None = None


class Missing(Struct, frozen=True, tag="missing"):
    """The upstream has no such alert any more."""


class Changed(Struct, frozen=True, tag="changed", kw_only=True):
    """Somebody else changed the alert at the upstream: `found` is what it says there now."""

    reason: str
    found: dict[str, Any]
    seen: dict[str, Any] = {}


class Again(Struct, frozen=True, tag="again", kw_only=True):
    """Not now: try again, after so many seconds if the upstream said so."""

    reason: str
    after: float | None = None
    code: str = Code.UNAVAILABLE


class Pending(Struct, frozen=True, tag="pending", kw_only=True):
    """The upstream gave a receipt, and not yet a verdict: ask again after so many seconds. `seen` is what the next
    call wants to know, such as the receipt's number."""

    after: float
    seen: dict[str, Any] = {}


class Rejected(Struct, frozen=True, tag="rejected", kw_only=True):
    """The upstream refuses this content for good."""

    reason: str
    kind: ProblemKind = ProblemKind.REFUSED


class Held(Struct, frozen=True, tag="held"):
    """A fault of the whole upstream, not of this alert, such as a credential that it does not know: nothing is sent
    there until a probe succeeds. A call says so only where the status of the answer does not."""

    reason: str
    status: int | None = None
    code: str = Code.KEY_REFUSED


class FoundAlert(Struct, frozen=True):
    """An alert as an upstream of the caller's own dialect shows it; `ids` are further ids by which it is known there,
    by kind. It `carries` something where a gateway made it for a caller of another dialect."""

    id: str
    flat: Flat
    seen: Mapping[str, Any] = msgspec.field(default_factory=dict)
    ids: Mapping[str, str] = msgspec.field(default_factory=dict)
    carries: bool = False


class Found(Struct, frozen=True):
    """What an upstream answered to a read or a list; `is_part` where there is more of it than was asked for."""

    alerts: tuple[FoundAlert, ...]
    is_part: bool = False


Outcome = Delivered | Missing | Changed | Again | Pending | Rejected | Held | Found


def code_of(outcome: Outcome) -> str:
    """The problem code of an outcome; nothing where all is well."""
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
    the alert has at this upstream, `ids` and `seen` what earlier outcomes brought; `verbatim` the caller's own
    words where it speaks the upstream's dialect (`is_akin`); `suffix` makes a taken name unique where that is allowed;
    `strict` asks an update not to overwrite what somebody else changed there; `replaced` is what the route sets, which
    `body` says already where it has a field for it; `at` is the time of sending; `settings` is the dialect's section of
    the configuration; `mark` is the same at every attempt of one delivery, and no other's; an update that `changes`
    nothing is a repeat of what was said; an end is that of the `last` one of its group (`Outbound.group`) that is open
    at this upstream.
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


@dataclass(frozen=True, slots=True)
class Token:
    """A credential that an upstream's identity service issued, good for so many seconds."""

    value: str
    lifetime: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbound:
    """A dialect as an upstream: how each operation is asked for, and what is nearest to what it cannot do.

    `calls` has no entry for what the vendor cannot do; `nearest` then names the operation to use instead, and
    what is in neither is kept by the gateway alone. `addressed_by` says how the vendor finds an alert again.
    `authorise` puts the credential where the vendor looks for it; `exchange` first turns it into a token.
    `key` is the canonical path that is the credential where a route sets it, at a vendor whose credential names the
    service. `reason` finds the vendor's own words in a refusal. `verdicts` lists the statuses that do not mean what
    they usually do. `on_resolve` is what a rule's resolve becomes unless configured. `published_rate` is how many
    requests a minute the vendor's page allows. Not every upstream `needs_key`; where `whole_url`, an upstream's `url`
    is the whole address that is posted to, query and all, and calls add nothing to it. One that does not
    `tells_changes` is not told what has changed in an alert that it has, as that would be a message of its own there;
     one that does not `ends_by_key` makes nothing of an alert's key, and hears of one that is not known only in words.
     `group` finds, in a caller's own words, the name of what its alert is told as a part of, at a vendor that is also
     told when all of that is over.
    """

    addressed_by: Literal["id", "key"]
    calls: Mapping[Operation, Callable[[Sending], Call]]
    authorise: Callable[[Request, str], Request]
    reason: Callable[[Response], str]
    nearest: Mapping[Operation, Operation] = field(default_factory=dict)
    exchange: Callable[[Any, str], Generator[Request, Response, Token]] | None = None
    verdicts: Mapping[int, Literal["retry", "dead", "hold"]] = field(default_factory=dict)
    on_resolve: Literal["disable", "delete", "keep"] | None = None
    read: Callable[[Sending], Call] | None = None
    list: Callable[[Sending], Call] | None = None
    probe: Request | None = None
    published_rate: int | None = None
    key: str | None = None
    needs_key: bool = True
    whole_url: bool = False
    tells_changes: bool = True
    group: Callable[[Mapping[str, Json]], str | None] | None = None
    ends_by_key: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """A vendor's API as spoken, whole.

    `credentials` finds what a request offers as credential (several where it is said twice); `shown_id` puts
    the gateway's own id in the vendor's form; `same_key` brings two spellings of one key together; `problem`
    words a problem. `reply` is when callers are answered unless configured. `unique_names` refuses a second
    alert of the same summary in one scope; `has_status` says whether resolved alerts are listed.
    `credential_in_body` marks a vendor whose callers are known only once the body is decoded, `credential_faults` are
    its words about the form of a credential that nobody has, in the request that offered it. `url` is the
    vendor's usual address, `client_setting` what a client changes to call the gateway instead, `usual_defaults`
    such `defaults` as an upstream of it is configured with where callers of other vendors say less, `remark` what else
    its page should say. `muted_by` finds, where callers may ask not to be told of some alerts, who means one.
    `admits` refuses by its headers a request whose body need not be read for that; one that `tells_types` has another
    answer for a body that is no JSON where its type says that it is something else. `samples` are bodies that open an
    alert, of a dialect without documented examples. `envelope` is what it can put around the alerts of a dialect that a
    configuration describes, `description` the table there that describes this one, `scheme` how OpenAPI says where its
    credential is. `inbound_settings` are the dialect's own in the table of an inbound; `verify`, given a request whose
    body is still to be decoded, the bytes of that body, these settings and the secrets in them as they are now, raises
    `Problem` for a request that is not signed as they ask.
    """

    name: str
    title: str
    source: str
    kind: Kind
    mapping: FieldMapping
    routes: tuple[Route, ...]
    outbound: Outbound
    credentials: Callable[[Incoming], Sequence[str]]
    problem: Callable[[Problem], Reply]
    shown_id: Callable[[int], str]
    same_key: Callable[[str], str] = str
    reply: Literal["accepted", "delivered"] = "accepted"
    settings: type[Struct] | None = None
    has_status: bool = True
    unique_names: bool = False
    credential_in_body: bool = False
    credential_faults: Callable[[str, Incoming], tuple[str, ...]] = lambda credential, incoming: ()
    url: str = ""
    client_setting: str = ""
    usual_defaults: Mapping[str, Any] = field(default_factory=dict)
    remark: str = ""
    inbound_settings: type[Struct] | None = None
    verify: Callable[[Incoming, bytes, Any, Sequence[str]], None] | None = None
    muted_by: Callable[[Sequence[Muted]], Callable[[Flat], Iterable[Muted]]] | None = None
    admits: Callable[[Incoming], None] | None = None
    tells_types: bool = False
    samples: tuple[Json, ...] = ()
    envelope: Envelope | None = None
    description: Json = None
    scheme: Mapping[str, str] = field(default_factory=lambda: {"type": "http", "scheme": "bearer"})
