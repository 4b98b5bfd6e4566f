"""The configuration file as it is written: its tables. How their values are read is in `gateway.config.values`.

Nothing here knows what the gateway makes of it: that is `gateway.config.loading`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeVar

import msgspec
from msgspec import Meta, Struct

if TYPE_CHECKING:
    from gateway.config.secrets import Secret

S = TypeVar("S", bound=Struct)

# --- the file as it is written -------------------------------------------------------------------------------
# The docstring below a field is its description in the reference and in the schema for editors.

Duration = Annotated[str, Meta(pattern=r"^\s*\d+(\.\d+)?(ms|s|m|h|d)\s*$", examples=["10s"])]
"""Such as ``10s``, ``2m`` or ``30d``."""
Size = Annotated[str, Meta(pattern=r"^\s*\d+\s*(B|KiB|MiB|GiB)?\s*$", examples=["1MiB"])] | int
"""Bytes, or such as ``1MiB``."""


class InboundFile(Struct, kw_only=True):
    """`[inbound.DIALECT]`: who may speak this dialect."""

    keys: dict[str, str | list[str]] | str = {}
    """Caller's name → the credential its clients send, a list of them while rotating; or `"dir:PATH"`: one file per
    caller, followed as files are added, changed and removed."""
    anonymous: bool = False
    """Accepts any credential or none; a listed key still identifies its caller, everybody else is `anonymous`."""
    scope: str | None = None
    """Inbounds with the same scope share ids, keys and names. Default: each caller of each dialect has its own."""
    reply: Literal["accepted", "delivered"] | None = None
    """When callers are answered success: once the alert is durable, or once the primary has taken it too, though no
    later than after `reply_timeout`. Default: depends on the dialect."""
    host: str | list[str] = []
    """Host names at whose root path this dialect alone is served, and at the root of no other name. Default: it shares
    the root of all other names."""


class TlsFile(Struct, kw_only=True):
    """`tls`: the server certificate, and the authorities of callers' client certificates."""

    cert: str
    """A PEM file: the certificate, then its intermediates; loaded again when it changes."""
    key: str
    """A PEM file: the certificate's key, without a password."""
    client_ca: str | None = None
    """A PEM file of the authorities that are trusted for client certificates; every caller then needs one. Default:
    callers need none."""


class PairFile(Struct, kw_only=True):
    """`client_cert`: the client certificate for an upstream or for the heartbeat's address."""

    cert: str
    """A PEM file: the certificate; loaded again when it changes."""
    key: str
    """A PEM file: the certificate's key, without a password."""


class RetryFile(Struct, kw_only=True):
    """`retry` of an upstream: the pauses between attempts, and when a delivery is given up."""

    first: Duration = "1s"
    """The first pause, no longer than `most`."""
    most: Duration = "60s"
    """The longest pause, at most 1d."""
    max_age: Duration = "24h"
    """The age of a delivery after which a failed attempt is its last one. A delivery that was not tried, as nothing was
    sent to the upstream or the gateway was down, is still tried once, however old it is."""


class SeverityFile(Struct, kw_only=True):
    """`severity` of an upstream: its words for the eight codes, and the codes of its words."""

    out: list[str | int] | None = None
    """Eight words or numbers, for the codes 0 (worst) to 7."""
    in_: dict[str, int] = msgspec.field(name="in", default_factory=dict)
    """The code of each further word of the vendor."""


class UpstreamFile(Struct, kw_only=True):
    """`[upstreams.NAME]`: one destination."""

    dialect: str
    """The dialect it speaks."""
    url: str
    """The base URL to which the dialect adds its documented paths; for a webhook's dialect, or one of your own without
    paths in `send`, the whole address, including the query."""
    key: str | dict[str, Any] | None = None
    """Its credential; or `{ by = "caller", dir = "PATH", else = "…" }`: one file per entry. May be left out where a
    dialect needs none."""
    headers: dict[str, str] = {}
    """Further headers of every request; the values may be secrets."""
    defaults: dict[str, Any] = {}
    """Canonical field → the value to send where the target requires one and the alert has none that it accepts."""
    timeout: Duration = "10s"
    """How long one attempt may take, 100ms to 10m."""
    retry: dict[str, Any] = {}
    """When a delivery is tried again."""
    concurrency: int = 8
    """How many requests may be in flight at once, at most 1000."""
    severity: dict[str, Any] = {}
    """The upstream's own words for severities."""
    metrics: dict[str, str] = {}
    """Category → the metric that a rule of that category watches."""
    on_resolve: Literal["disable", "delete", "keep"] | None = None
    """What the resolve of a rule does at the upstream. Default: depends on the dialect."""
    on_backlog: Literal["fold", "deliver"] = "fold"
    """`fold`: an alert that has waited for more than ten minutes, and has ended by then, is not sent. `deliver`: it is
    sent, and then its end."""
    rate: int | str | None = None
    """Most requests a minute, or `"published"`: the limit that the vendor documents. Default: unlimited."""
    rules: Literal["page", "quiet", "refuse"] = "page"
    """What becomes of rules at a vendor of occurrences: they page, are sent so that nobody is woken, or are refused."""
    carry: Literal["full", "ids", "off"] = "full"
    """What the vendor's free-form field carries: all fields that the vendor has no place for, the gateway's id alone,
    or nothing."""
    proxy: str = "env"
    """`"env"`: as `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` (domains, addresses, networks, ports) say; `"off"`: none;
    or a proxy's address, which may be a secret."""
    ca: str | None = None
    """A PEM file of authorities to trust there beside the default ones; loaded again when it changes."""
    client_cert: dict[str, Any] | None = None
    """The client certificate that the gateway shows there. Default: none."""


class KeyFile(Struct, kw_only=True):
    """`key` of an upstream, chosen for each alert: the file in a directory whose name is that of the caller or the
    value of a field."""

    by: str
    """`caller`, `dialect`, a canonical field or a label; its value is the name of the entry. Of a list: the first item
    that is one."""
    dir: str
    """A directory with one file per entry; followed as files are added, changed and removed."""
    else_: str | None = msgspec.field(name="else", default=None)
    """The key where there is no such file."""


class SetFile(Struct, kw_only=True):
    """A value that a route sets, looked up in a table file by the caller or a field."""

    by: str
    """`caller`, `dialect`, a canonical field or a label; its value is the name of the entry. Of a list: the first item
    that is one."""
    table: str
    """A TOML file of entries and values, beside the configuration; loaded again when it changes."""
    else_: Any = msgspec.field(name="else", default=None)
    """The value where the table has no such entry; without it nothing is set."""


class TestFile(Struct, kw_only=True):
    """`[[tests]]`: a sample request, and what must become of it; `check` runs them."""

    __test__ = False

    from_: str = msgspec.field(name="from")
    """The dialect that sends it."""
    send: str | dict[str, Any]
    """A file with the request body, beside the configuration; or the body itself."""
    expect: dict[str, Any]
    """`to`, `route`, `wakes` or `refused`, and `"UPSTREAM.FIELD"` for what an upstream must be sent."""
    caller: str | None = None
    """The caller that sends it; may be left out where there is only one."""


class FallbackFile(Struct, kw_only=True):
    """`fallback` of a route: where an alert also goes if no upstream in `to` has taken it in time."""

    to: list[str | dict[str, Any]]
    """Upstreams, or `{ upstream, set }`."""
    after: Duration = "2m"
    """How long the upstreams in the route's `to` have to take it, at most 7d."""


class RouteFile(Struct, kw_only=True):
    """`[[routes]]`: first match wins unless `continue`."""

    to: list[str | dict[str, Any]]
    """Upstreams, or `{ upstream, set }`; the first is the primary."""
    name: str | None = None
    """Its name in commands, reports and metrics. Default: its position from 1."""
    from_: list[str] = msgspec.field(name="from", default_factory=list)
    """`dialect` or `dialect/caller`. Default: all."""
    when: list[str] = []
    """Conditions that must all hold: `caller`, `dialect` or a canonical field, one of `= != =~ !~ < <= > >=`, a value;
    patterns are RE2's and must match the whole value. A list meets a condition if one of its items does, and `!=` or
    `!~` if all do; `channels.id` stands for the `id` of every item. The first 1,000 items count."""
    set: dict[str, Any] = {}
    """Canonical field → the value that replaces what the alert has: a literal, or `{ by, table, else }`."""
    because: str = ""
    """Why alerts are thrown away, where `to` is empty."""
    fallback: dict[str, Any] | None = None
    """Where an alert also goes if no upstream in `to` has taken it in time."""
    continue_: bool = msgspec.field(name="continue", default=False)
    """Goes on to the next route that matches."""


class HeartbeatFile(Struct, kw_only=True):
    """`[heartbeat]`: an address that is requested while all is well, so that another system notices when it is not."""

    url: str
    """The address; may be a secret."""
    every: Duration = "60s"
    """How often it is requested, 10ms to 1d."""
    stall: Duration = "2m"
    """How long a delivery may wait before the heartbeat stops, 100ms to 7d."""
    proxy: str = "env"
    """`"env"`: as `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` (domains, addresses, networks, ports) say; `"off"`: none;
    or a proxy's address, which may be a secret."""
    ca: str | None = None
    """A PEM file of authorities to trust there beside the default ones; loaded again when it changes."""
    client_cert: dict[str, Any] | None = None
    """The client certificate that the gateway shows there. Default: none."""


class AlarmsFile(Struct, kw_only=True):
    """`[alarms]`: the upstreams that get alerts about the gateway itself, tried in this order."""

    to: list[str]
    """Upstreams, tried in this order."""


class WaitingFile(Struct, kw_only=True):
    """`max_waiting`: how much may wait in the outbox before requests are refused."""

    deliveries: int = 1_000_000
    """Most deliveries."""
    bytes: Size = "2GiB"
    """Most bytes of the commands that they deliver."""


class DialectFile(Struct, kw_only=True):
    """`[dialects.NAME]`: the description of a vendor for which there is no module. Callers then speak it with
    `[inbound.NAME]`, upstreams with `dialect = "NAME"`."""

    fields: dict[str, Any]
    """Canonical field → its place in the body: the names of the objects and the field, joined by dots; or a table."""
    title: str = ""
    """The vendor's name, as people know it. Default: the dialect's."""
    url: str = ""
    """The vendor's page about it."""
    kind: Literal["rule", "occurrence"] = "occurrence"
    """Whether its alerts are events that happened, or rules that say when to notify."""
    path: str = "/"
    """Where callers post, below the dialect's name and at the root; `/` is the dialect's name alone."""
    auth: str | dict[str, Any] = "bearer"
    """Where the credential is: `"bearer"`, `"basic"` (as `user:password`), one of `{ header, prefix }`, `{ query }` and
    `{ field }`; `"path"`: `send.path` has it as `{credential}`, and callers have no keys; or `"none"`: callers have no
    keys, and upstreams no `key`."""
    signature: dict[str, Any] | None = None
    """How callers sign their requests, with the secret `hmac` of `[inbound.NAME]`. Default: they do not."""
    constants: dict[str, Any] = {}
    """Place in the body → what is always written there, such as a version."""
    container: str | None = None
    """The free-form object of the body: it carries what the vendor has no field for. Default: that of `custom`."""
    json: str | list[str] = []
    """Places of texts that contain a JSON object, such as `Message`; the places of `fields` lead into them. Any other
    text there is refused."""
    each: str | None = None
    """Place of a list in the body, each item of which is an alert: the places of `fields` begin in the item, and fields
    beside the list apply to each; a request where these come to more than 4 MiB for all alerts together is refused. An
    upstream gets a list of one, and `constants` beside it."""
    confirm: str | None = None
    """Place of an address that a caller wants opened once before it posts, such as `SubscribeURL`. A body that has it
    is answered with success, and the address is logged, to be opened by an operator. Default: none."""
    send: dict[str, Any] = {}
    """How an upstream is called."""
    reply: dict[str, Any] = {}
    """What callers are answered."""
    envelope: str | None = None
    """A dialect whose envelope encloses the body; the places of `fields` then begin in the envelope."""
    mode: str | None = None
    """The form in which that envelope is sent. Default: its first."""


class FieldFile(Struct, kw_only=True):
    """An entry of `fields` that has more than its place in the body."""

    at: str | list[str]
    """The place in the body. Of several places the first that is present is read, and all are written."""
    words: dict[str, Any] = {}
    """The vendor's word → the canonical value: severities are the codes 0 (worst) to 7. Of several words for one
    value the first is written. A severity without a word gets the nearest word that is at least as severe."""
    out: list[str | int] | None = None
    """Eight words or numbers to write for the severities 0 (worst) to 7, instead of those chosen from `words`."""
    otherwise: Any = None
    """The canonical value of every other word. Default: other words are refused, or kept as they are where the field
    may be any text."""
    required: bool = False
    """A new alert without it is refused, and it is always written."""
    default: Any = None
    """The canonical value that is written where the alert has none."""
    limit: int | None = None
    """The most characters that the vendor takes: a longer text is cut and marked, a longer key ends in a digest."""
    unit: Literal["us", "ms", "s", "m", "h"] | None = None
    """For a duration or a time: the unit of the number. Default: seconds for durations, ISO 8601 for times."""
    form: Literal["list", "text", "address"] | None = None
    """For labels: a list of `name:value`, or one text of these with commas, of which the last with a name counts; for
    links: one address. Default: an object for labels, a list of objects for links."""
    items: dict[str, str] = {}
    """For a list of objects: canonical name → the vendor's, such as `{ href = "link_url" }`."""
    firing: Any = None
    """For `status`: the words for a firing alert, the first of which is written. Default: every other word, and
    `firing` is written."""
    acknowledge: Any = None
    """For `status`: the words for an acknowledged alert. Without any, upstreams are not told of acknowledgements."""
    resolve: Any = None
    """For `status`: the words for a resolved alert. Without any, upstreams are not told that an alert is resolved.
    Where `status` and `severity` have the same place, the words of `severity` mean a firing alert, and a firing alert
    without a severity is sent as 3."""


class AuthFile(Struct, kw_only=True):
    """`auth` of a dialect: where the credential is, one of these."""

    header: str | None = None
    """The header that holds it."""
    prefix: str = ""
    """The text before it in that header."""
    query: str | None = None
    """The query parameter that holds it."""
    field: str | None = None
    """The place in the body that holds it."""


class SignatureFile(Struct, kw_only=True):
    """`signature` of a dialect: an HMAC with SHA-256 of the body, after any decompression."""

    header: str
    """The header that has it, such as `X-Hub-Signature-256`."""
    prefix: str = ""
    """The text before it in that header, such as `sha256=`."""
    form: Literal["hex", "base64"] = "hex"
    """The encoding of the signature."""


class SendFile(Struct, kw_only=True):
    """`send` of a dialect: how an upstream is called. Every 2xx is success, unless `success` asks for more."""

    method: str = "POST"
    """The method."""
    path: str = ""
    """What is added to the upstream's address; `{key}` stands for the alert's key, `{credential}` for the secret part
    with `auth = "path"`."""
    paths: dict[str, str] = {}
    """Operation (`create`, `update`, `acknowledge`, `resolve`, `reopen`) → its own path; the operation then needs no
    word in `status`."""
    methods: dict[str, str] = {}
    """Operation → its own method. `DELETE` is sent without a body."""
    id: str | None = None
    """Place of the vendor's id in the answer to a new alert: `{id}` in the paths of other operations stands for it,
    and operations without such a path are not sent. An answer without it is a refusal. If the answer is lost the
    alert is sent again, and may be there twice."""
    headers: dict[str, str] = {}
    """Further headers, the same for every upstream."""
    success: dict[str, Any] = {}
    """Place in the answer → the value there, or a list of them, without which a 2xx is a refusal, such as
    `{ ok = true }` or `{ errcode = 0 }`."""
    again: dict[str, Any] = {}
    """Place in the answer → the value there, or a list of them, with which a 2xx is neither success nor refusal but is
    tried again, such as `{ errcode = [-1, 45009] }` for a vendor that answers so while it is busy."""
    redirects: list[int] = []
    """Statuses from 300 to 399 that count as success, such as `[302]` of a Google script. Any other redirect counts as
    not from the vendor, and the request is tried again."""
    updates: bool = True
    """Whether changes of an alert that the upstream has are sent. `false` where each would page again or be a message
    of its own: then only the new alert is sent, and its end if `status` has words for that."""
    body: dict[str, Any] = {}
    """The JSON that is sent instead of a body with the places of `fields`; `{place}` in its texts stands for the value
    of that place. A text that is one place alone becomes its value, and is left out where there is none."""


class AnswerFile(Struct, kw_only=True):
    """`reply` of a dialect: what callers are answered."""

    status: int = 202
    """The status."""
    body: Any = None
    """The body; in texts `{id}` stands for the alert's id and `{key}` for its key. Default: `status` and `id`."""


class File(Struct, kw_only=True):
    """The whole file; its tables are checked one by one."""

    listen: str = "127.0.0.1:8080"
    """HOST:PORT. An address that other machines can reach is refused while an inbound has no keys."""
    admin: str | None = None
    """HOST:PORT for operators alone: health, metrics, the outbox. Default: at `listen`."""
    admin_token: str | None = None
    """The secret of at least 16 characters that operators send; required where other machines can reach `admin`."""
    tls: dict[str, Any] | None = None
    """The server certificate. Default: plain HTTP."""
    store: str | None = None
    """`sqlite:///absolute/path` or `postgresql://user@host/db`. Default: `$XDG_STATE_HOME/alert-gateway/gateway.db`."""
    retention: Duration = "30d"
    """How long ended alerts are kept."""
    public_url: str | None = None
    """The address at which operators reach `/-/…` with a browser; pages then contain a link to their trace, unless the
    sender filled the lines for that. Default: they contain none."""
    durable: Literal["disk", "container"] = "disk"
    """`disk`: the store outlives its container. `container`: the store is lost with its container, so callers are
    answered success only once an upstream has taken what they sent, whatever `reply` says."""
    reply: Literal["accepted", "delivered"] | None = None
    """`reply` of every inbound that does not set it itself."""
    reply_timeout: Duration = "5s"
    """How long a caller waits for a verdict, at most 10m; then it is answered success, as the alert is
    durable, but 503 with `durable = "container"`."""
    max_body: Size = "1MiB"
    """The largest request body, 1KiB to 1GiB."""
    max_waiting: int | dict[str, Any] = 1_000_000
    """How much may wait in the outbox before requests are refused."""
    inbound: dict[str, dict[str, Any]] = {}
    """Dialects that callers may speak; one that is not here is not served."""
    upstreams: dict[str, dict[str, Any]] = {}
    """Destinations, by name."""
    dialects: dict[str, dict[str, Any]] = {}
    """Dialects of your own: vendors that are described here."""
    routes: list[dict[str, Any]] = []
    """Which upstreams an alert goes to; may be left out where there is one upstream."""
    tests: list[dict[str, Any]] = []
    """Samples and where they must go; `check` runs them."""
    heartbeat: dict[str, Any] | None = None
    """An address that is requested while all is well."""
    alarms: dict[str, Any] | None = None
    """The upstreams that get alerts about the gateway itself."""


class Checker(Protocol):
    """The collector of problems, as the modules that check a part of the file see it."""

    resolve: bool
    problems: list[str]

    def say(self, path: str, problem: str) -> None:
        """Records a problem at this path."""

    def struct(self, kind: type[S], table: Mapping[str, Any], path: str) -> S:
        """A table as a struct; each problem is recorded, and a harmless value replaces what is wrong."""

    def secret(self, text: str, path: str) -> Secret:
        """A credential; one that cannot be resolved is recorded as a problem."""
