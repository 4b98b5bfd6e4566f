"""What a vendor's module declares: its dialect, as data and pure functions.

These are the types in which a dialect tells the engine how its vendor's API works; they have no behaviour of their own.
A declaration has no clock, no input or output, no randomness and no policy: retries, timeouts, queues and who may
call are the engine's. It must not know a vendor, the store, or the HTTP libraries in use.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

from msgspec import Struct

from gateway.asked import Answer, Asked, Incoming, Muted, Reply
from gateway.canonical import Flat, Kind, Operation
from gateway.errors import Problem
from gateway.mapping.rows import Dropped
from gateway.mapping.table import Mapping as FieldMapping
from gateway.outcome import Call, Json, Request, Response, Sending, Token

CREDENTIAL = "credential"
"""The path variable that is the credential: such a path is never logged, only its route."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One documented operation of the vendor's API, as callers use it.

    `path` has variables in braces, among them `{credential}` where it identifies the caller; `read` turns the request
    into what it asks for and may raise `Problem`; `answer` words the result. A `side` route yields, at the root, to
    another dialect's main route at the same path; one that is not `at_root` is served below the dialect's name only.
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
        """Whether requests here write to the store, and so have to queue for it."""
        return not {Operation.READ, Operation.LIST}.issuperset(self.operations)


def segment(value: str) -> str:
    """An id quoted as one segment of a path; a placeholder in braces is left as it is."""
    return quote(value, safe="{}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbound:
    """A dialect as an upstream: the calls for each operation, and the nearest ones for those that it does not have.

    - `addressed_by`: how the vendor finds an alert again.
    - `calls`: per operation; for one without an entry, `nearest` names the operation to use instead. One that is in
      neither is kept by the gateway alone.
    - `authorise`: puts the credential where the vendor expects it; `exchange` first turns it into a token.
    - `reason`: finds the vendor's explanation in a refusal.
    - `verdicts`: the statuses that do not have their usual meaning.
    - `on_resolve`: what a rule's resolve becomes unless configured.
    - `published_rate`: requests a minute that the vendor's page allows.
    - `key`: the canonical path that is the credential where a route sets it, at a vendor whose credential names the
      service. `needs_key`: whether an upstream must have a key.
    - `whole_url`: an upstream's `url` is the whole address to post to, including the query; calls add nothing to it.
    - `tells_changes`: False where an update of an alert would be a separate message at the vendor; it is then not sent.
    - `reopens_anew`: True where what says how urgent an alert is stays there as it was first until the alert ends. An
      alert that is there is then reopened by the call for that, not by an update.
    - `ends_by_key`: False where the vendor makes nothing of an alert's key; of an alert that the gateway does not know
      it is then told only what has a comment.
    - `tells_key`: True where the vendor finds an alert by an id of its own, but is also told the alert's key, by which
      it may take a new alert for one that it has.
    - `is_repeated`: True where an alert has to be told again and again, so that once more does no harm: one whose
      answer was lost is then sent again without being looked for.
    - `kin`: the dialects whose callers' own words for acknowledgements, ends and comments the calls understand, as they
      do those of their own, each with the paths of an alert's state that such a comment changes there. Unless the own
      dialect is among them, a comment changes nothing there.
    - `notes`: the operations whose calls tell a comment on them too, in whatever dialect it was made.
    - `group`: finds in a caller's own body the group that its alert is part of, at a vendor that is also told when all
      alerts of the group are over.
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
    reopens_anew: bool = False
    group: Callable[[Mapping[str, Json]], str | None] | None = None
    ends_by_key: bool = True
    tells_key: bool = False
    is_repeated: bool = False
    kin: Mapping[str, frozenset[str]] = field(default_factory=dict)
    notes: frozenset[Operation] = frozenset()


Seal = Callable[[Request, dict[str, Json], Sending, str], Request]
"""Puts an event into a request that has its method, path and headers, in one of the envelope's modes."""


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """An envelope: attributes that one dialect can put around the alerts of described dialects, beside the alert or in
    headers, and the modes in which both travel.

    `opened` returns the event of a request, its attributes with the data among them, as one object, and raises
    `Problem`. `parted` returns the requests that a batch of events stands for, None where there is one event. `sealed`
    is the inverse of `opened`. `attributes` are the types of the known attributes, `required` the attributes that every
    event has, `dropped` those that concern no alert, `fields` the canonical fields of others, unless a description says
    otherwise. `settings` has a field `mode`: None or one of `modes`, the first of which is the default. `admits`
    refuses by the headers alone, `credentials` finds what callers offer, `routes` are further routes at the path of the
    events. `identity` is the same for repeats of one event and for nothing else: the key of an alert that has none.
    `sample` are the attributes of an example.
    """

    modes: tuple[str, ...]
    attributes: Mapping[str, Any]
    required: tuple[str, ...]
    dropped: tuple[Dropped, ...]
    fields: Mapping[str, str]
    opened: Callable[[Incoming], dict[str, Json]]
    parted: Callable[[Incoming], tuple[Incoming, ...] | None]
    sealed: Seal
    admits: Callable[[Incoming], None]
    credentials: Callable[[Incoming], tuple[str, ...]]
    settings: type[Struct]
    identity: Callable[[dict[str, Json]], str]
    routes: Callable[[str, bool], tuple[Route, ...]] = lambda path, at_root: ()
    sample: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """A vendor's API as spoken, both as inbound and as upstream.

    - `credentials`: finds the credential in a request (several where it is given twice). `credential_in_body`: the
      caller is known only once the body is decoded. `credential_faults`: the vendor's words about the form of an
      unknown credential, given the request that offered it. `scheme`: the OpenAPI security scheme.
    - `problem`: words a problem. `shown_id`: the gateway's id in the vendor's form. `same_key`: normalises a key, so
      that two spellings of it are equal. `request_of`: the number of a request, from the form in which answers have it;
      None for other texts.
    - `reply`: when callers are answered unless configured. `settings`, `inbound_settings`: the dialect's own settings
      in the table of an upstream and of an inbound.
    - `has_status`: whether resolved alerts are listed. `unique_names`: a second alert of the same summary in one scope
      is refused.
    - `verify`: raises `Problem` for a request that is not signed as the inbound settings require, given the request
      before its body is decoded, the bytes of the body, the settings, and the current values of their secrets.
    - `admits`: refuses a request by its headers, before its body is read. `tells_types`: a body that is not JSON is
      refused differently where its content type says that it is something else.
    - `browsers`: the methods by which the vendor lets web pages of any origin call it.
    - `muted_by`: for vendors with silences: finds those that match an alert.
    - `url`: the vendor's usual address. `client_setting`: what a client changes to call the gateway instead.
      `usual_defaults`: `defaults` for an upstream where callers of other vendors say less than it requires. `remark`:
      further text for its page. `samples`: bodies that open an alert, for a dialect without documented examples.
    - `envelope`: what it can put around the alerts of a dialect described in a configuration. `description`: the table
      there that describes this dialect.
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
    request_of: Callable[[str], int | None] = lambda text: None
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
    browsers: tuple[str, ...] = ()
    samples: tuple[Json, ...] = ()
    envelope: Envelope | None = None
    description: Json = None
    scheme: Mapping[str, str] = field(default_factory=lambda: {"type": "http", "scheme": "bearer"})
