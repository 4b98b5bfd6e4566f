"""What a vendor's module declares: its dialect, as data and pure functions.

Nothing here does anything: these are the shapes in which a dialect tells the engine how its vendor speaks. A
declaration has no clock, no input or output, no randomness and no policy: retries, timeouts, queues and who may
call are the engine's. It must not know a vendor, the store, or the HTTP libraries in use.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from msgspec import Struct

from gateway.asked import Answer, Asked, Incoming, Muted, Reply
from gateway.canonical import Flat, Kind, Operation
from gateway.errors import Problem
from gateway.mapping import Mapping as FieldMapping
from gateway.outcome import Call, Json, Request, Response, Sending, Token

if TYPE_CHECKING:
    from gateway.own.envelope import Envelope

CREDENTIAL = "credential"
"""The variable of a route's path that is the credential: such a path is in no log, its route is."""


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
