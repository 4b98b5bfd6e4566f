"""The rows of the store, and the forms in which lists and sums are asked for and returned. Every driver keeps the same
ones. Times are milliseconds since 1970, UTC. It must not know any vendor.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Raw, Struct, json

from gateway.canonical import Alert

TargetState = Literal["absent", "waiting", "present", "dead", "gone", "standby"]
DeliveryState = Literal["waiting", "delivered", "dead", "merged", "void"]


class AlertRow(Struct, kw_only=True):
    """An alert of one scope. `shown` is the id its caller knows, `key` its key (unique among open alerts) and `name`
    its unique name, both as the dialect compares them; `verbatim` the caller's own wording, for upstreams that speak
    the same dialect; `ends_at` is when the alert ends by itself unless its sender says again that it is open."""

    id: int
    scope: str
    dialect: str
    caller: str
    shown: str
    key: str | None
    name: str | None
    status: str
    resource: str | None
    is_open: bool
    version: int
    created_at: int
    updated_at: int
    body: Alert
    verbatim: dict[str, Any] | None = None
    is_deleted: bool = False
    ends_at: int | None = None


class TargetRow(Struct, kw_only=True):
    """Where an alert stands at one upstream. `key` is the key sent there, `lane` the lane its deliveries queue in,
    `ids` and `seen` what the upstream issued and last showed, `replaced` the fields that the route sets, `revives` an
    earlier alert of the same key whose switched-off rule there may be switched on again; `renew_at` is when the
    upstream has to be told again that the alert is open. A target on `standby` is a fallback: it is told of the alert
    only if no other upstream has taken it in time."""

    alert: int
    upstream: str
    position: int
    lane: str
    key: str | None
    state: TargetState
    route: str = ""
    ids: dict[str, str] = {}
    seen: dict[str, Any] = {}
    replaced: dict[str, Any] = {}
    revives: int | None = None
    renew_at: int | None = None


class CommandBody(Struct, kw_only=True, omit_defaults=True):
    """What a command said: the alert `after` it, the paths it `changed` (None: all), the caller's own wording (`said`),
    its comment, the alert `before` it with the wording kept until then, the gateways it came through (`via`), the
    routes it took, each with the reason, the operation that was `asked` for if it became a different one, the `silence`
    that acknowledged, if no person did, and the `trace` of its request, as `traceparent` writes it, if tracing is on. A
    command that `renews` is the gateway's own: it repeats what was said before, and is removed once delivered."""

    after: Alert | None = None
    changed: tuple[str, ...] | None = None
    said: dict[str, Any] | None = None
    comment: str = ""
    before: Alert | None = None
    said_before: dict[str, Any] | None = None
    dropped: tuple[tuple[str, str], ...] = ()
    via: tuple[str, ...] = ()
    renews: bool = False
    routes: dict[str, str] = {}
    asked: str = ""
    silence: str = ""
    trace: str = ""


class CommandRow(Struct, kw_only=True):
    """A command that was accepted; `alert` is None for one that found no alert to work on. `fanout` is the number of
    deliveries it made, which the ledger compares with what became of them."""

    id: int
    request: int
    alert: int | None
    operation: str
    scope: str
    dialect: str
    caller: str
    at: int
    body: CommandBody
    refused: str | None = None
    fanout: int = 0


UNCONFIRMED = 16
"""What is added to the rank of a delivery that its upstream has accepted with a receipt: above every rank."""


class DeliveryRow(Struct, kw_only=True):
    """A command on its way to one upstream. `due` is when the next attempt may be made, `report` what became of the
    fields (JSON, which is read for people alone), `size` the approximate size of its command in bytes, `merges` the
    earlier commands whose changes it includes. `rank` is its severity as a priority for when not everything can be sent
    at once, 0 first, and `UNCONFIRMED` more once only its receipt is asked about; `fence` grows with each replica that
    takes it over; `seen` is state that its call needs when it runs again, such as a receipt's number; `code` is the
    problem code of its `reason`, empty where there is no problem."""

    id: int
    command: int
    alert: int | None
    upstream: str
    lane: str
    key: str | None
    operation: str
    state: DeliveryState
    created_at: int
    due: int
    size: int = 0
    attempts: int = 0
    finished_at: int | None = None
    status: int | None = None
    reason: str = ""
    report: Raw = Raw(b"[]")
    merges: list[int] = []
    rank: int = 3
    fence: int = 0
    seen: dict[str, Any] = {}
    code: str = ""

    @property
    def fates(self) -> list[dict[str, str]]:
        """The report, decoded."""
        fates: list[dict[str, str]] = json.decode(self.report)
        return fates

    @property
    def is_retry(self) -> bool:
        """Whether its next attempt counts against the retry budget. The first after an operator put it back into the
        outbox does not: by then its `due` is its `created_at` again."""
        return self.attempts > 0 and self.due > self.created_at

    @property
    def is_unconfirmed(self) -> bool:
        """Whether the upstream has it, as a receipt says, and the next attempt asks what became of it."""
        return self.rank >= UNCONFIRMED

    def keep(self, seen: dict[str, Any]) -> None:
        """Keeps state for the next run of its call; without any, the call begins anew."""
        self.seen = seen
        self.rank = self.rank % UNCONFIRMED + (UNCONFIRMED if seen else 0)


class AttemptRow(Struct, kw_only=True):
    """One attempt of a delivery: when it began, how many milliseconds it took, how it ended, and the problem code if it
    failed. The number is negative for a receipt: the verdict of the same attempt follows it, and replaces nothing."""

    delivery: int
    number: int
    at: int
    took: int
    status: int | None
    outcome: str
    reason: str
    code: str = ""


class AlertFilter(Struct, kw_only=True, frozen=True):
    """Which alerts of a scope to list; empty fields do not restrict. Oldest first, unless `newest_first`."""

    statuses: tuple[str, ...] = ()
    resource: str | None = None
    updated_from: int | None = None
    created_from: int | None = None
    created_before: int | None = None
    offset: int = 0
    limit: int | None = None
    newest_first: bool = False


class DeliveryFilter(Struct, kw_only=True, frozen=True):
    """Which deliveries to list, newest first; empty fields do not restrict. With `before`, those with a smaller id;
    with `after`, those with a larger one, oldest first."""

    state: str | None = None
    upstream: str | None = None
    alert: int | None = None
    ids: tuple[int, ...] = ()
    after: int | None = None
    before: int | None = None
    limit: int = 1000


class Waiting(Struct, frozen=True):
    """What waits for one upstream: the number of deliveries, their bytes, and since when the oldest has waited."""

    upstream: str
    count: int
    oldest: int
    bytes: int = 0


class FirstAnswer(Struct, kw_only=True, omit_defaults=True):
    """The answer to the first request under an idempotency key: the alert as it was shown then, and the report.
    `command` is the command's id, 0 if an earlier release stored this; `is_done` is False until the caller's waiting
    for verdicts has ended."""

    request: int
    command: int = 0
    alert: int | None = None
    shown: str | None = None
    version: int = 0
    body: Alert | None = None
    key: str | None = None
    reports: tuple[str, ...] = ()
    is_done: bool = True


class Keyed(Struct, kw_only=True):
    """A request under an idempotency key: the digest of its content, when it came, and its answer."""

    digest: str
    at: int
    answer: FirstAnswer


class LedgerLine(Struct, kw_only=True):
    """The sums over one group: how many deliveries its commands made, and how many are in each state. `refused`
    are those of commands that were taken back."""

    group: str
    received: int = 0
    refused: int = 0
    delivered: int = 0
    dead: int = 0
    waiting: int = 0
    merged: int = 0
    void: int = 0

    @property
    def adds_up(self) -> bool:
        """Whether everything that was received is accounted for."""
        known = self.refused + self.delivered + self.dead + self.waiting + self.merged + self.void
        return self.received == known


class CallsRow(Struct, kw_only=True):
    """Calls of one kind: the inbound and the caller, empty for all strangers together; the path of the API's route, or
    as requested where there is none; the user agent; how they ended; how many there were, and when."""

    dialect: str
    caller: str
    method: str
    path: str
    agent: str
    outcome: str
    count: int
    first_seen: int
    last_seen: int


class Arrivals(Struct, kw_only=True):
    """What one upstream took: how many deliveries it merely accepted (202), how many it confirmed, and their ages when
    delivered, in milliseconds."""

    upstream: str
    accepted: int
    confirmed: int
    p50: int
    p99: int
    worst: int
