"""The store's contract: what every driver keeps, and the transaction that engine code is written against.

Engine code never sees SQL: it is a plain function of a `Tx`, and `Store.write` runs it in a transaction that is
durable before its result is known. Each driver supplies the primitives; what they mean together is decided once,
in the engine. Times are milliseconds since 1970, UTC. It must not know any vendor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeVar

from msgspec import Struct

from gateway.canonical import Alert

T = TypeVar("T")

TargetState = Literal["absent", "waiting", "present", "dead", "gone"]
DeliveryState = Literal["waiting", "delivered", "dead", "merged", "void"]


class AlertRow(Struct, kw_only=True):
    """An alert of one scope. `shown` is the id its caller knows, `key` its open key and `name` its unique name as
    the dialect compares them; `verbatim` the callers' own words where an upstream speaks their dialect."""

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


class TargetRow(Struct, kw_only=True):
    """Where an alert stands at one upstream. `key` is the key sent there, `lane` what orders its commands, `ids`
    and `seen` what the upstream issued and last showed, `replaced` what the route sets, `revives` an earlier alert
    of the same key whose switched-off rule there may be switched on again."""

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


class CommandBody(Struct, kw_only=True, omit_defaults=True):
    """What a command said: the alert after it, the paths it changed (None: all), the caller's own words for it,
    its comment, and the alert before it with the words that were kept then."""

    after: Alert | None = None
    changed: tuple[str, ...] | None = None
    said: dict[str, Any] | None = None
    comment: str = ""
    before: Alert | None = None
    said_before: dict[str, Any] | None = None
    dropped: tuple[tuple[str, str], ...] = ()


class CommandRow(Struct, kw_only=True):
    """A command that was accepted; `alert` is None for one that found no alert to work on."""

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


class DeliveryRow(Struct, kw_only=True):
    """A command on its way to one upstream. `due` is when the next attempt may be made, `report` what became of
    the fields, `size` about how many bytes its command takes, `merges` the earlier commands whose changes it says
    too."""

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
    report: list[dict[str, str]] = []
    merges: list[int] = []


class AttemptRow(Struct, kw_only=True):
    """One attempt of a delivery: when, for how many milliseconds, and how it ended."""

    delivery: int
    number: int
    at: int
    took: int
    status: int | None
    outcome: str
    reason: str


class AlertFilter(Struct, kw_only=True, frozen=True):
    """Which alerts of a scope to list; empty fields do not select."""

    statuses: tuple[str, ...] = ()
    resource: str | None = None
    updated_from: int | None = None
    created_before: int | None = None
    offset: int = 0
    limit: int | None = None


class DeliveryFilter(Struct, kw_only=True, frozen=True):
    """Which deliveries to list, newest first; empty fields do not select."""

    state: str | None = None
    upstream: str | None = None
    alert: int | None = None
    ids: tuple[int, ...] = ()
    limit: int = 1000


class Waiting(Struct, frozen=True):
    """What waits for one upstream: how many deliveries, of how many bytes, and since when the oldest."""

    upstream: str
    count: int
    oldest: int
    bytes: int = 0


class Tx(Protocol):
    """One transaction. Everything read in it is current, everything written in it is durable together."""

    def alert(self, alert: int) -> AlertRow | None: ...
    def alert_by_key(self, scope: str, key: str) -> AlertRow | None:
        """The open alert that holds this key in this scope."""

    def last_alert_by_key(self, scope: str, key: str, before: int) -> AlertRow | None:
        """The newest alert of this scope, older than the alert `before`, that holds or held this key."""

    def alert_by_name(self, scope: str, name: str) -> AlertRow | None:
        """The alert that holds this unique name in this scope."""

    def alert_by_id(self, scope: str, name: str) -> AlertRow | None:
        """The alert that any party of this scope ever knew by this id; not a deleted one."""

    def alert_by_party(self, scope: str, name: str, party: str) -> AlertRow | None:
        """The alert of this scope that one party knows by this id; not a deleted one."""

    def alert_of_anybody(self, name: str) -> int | None:
        """The newest alert that any party of any scope ever knew by this id or key."""

    def alerts(self, scope: str, chosen: AlertFilter) -> tuple[list[AlertRow], int]:
        """The alerts chosen, oldest first, and how many there are without `offset` and `limit`."""

    def insert_alert(self, row: AlertRow) -> None: ...
    def update_alert(self, row: AlertRow) -> None: ...
    def remove_alert(self, alert: int) -> None:
        """Takes an alert away with its targets, ids and deliveries; its commands stay."""

    def add_id(self, scope: str, name: str, party: str, alert: int) -> None:
        """Remembers that a party knows the alert by this id."""

    def is_known_id(self, name: str, party: str) -> bool:
        """Whether a party already knows any alert, of whatever scope and deleted ones too, by this id."""

    def targets(self, alert: int) -> list[TargetRow]: ...
    def put_target(self, row: TargetRow) -> None: ...
    def remove_target(self, alert: int, upstream: str) -> None: ...
    def lane_holders(self, upstream: str, lane: str) -> list[int]:
        """The open alerts that stand on a lane."""

    def command(self, command: int) -> CommandRow | None: ...
    def insert_command(self, row: CommandRow) -> None: ...
    def refuse_command(self, command: int, reason: str) -> None:
        """Marks a command as undone and takes its deliveries away."""

    def commands(self, alert: int) -> list[CommandRow]: ...
    def insert_delivery(self, row: DeliveryRow) -> None: ...
    def update_delivery(self, row: DeliveryRow) -> None: ...
    def delivery(self, delivery: int) -> DeliveryRow | None: ...
    def deliveries(self, chosen: DeliveryFilter) -> list[DeliveryRow]: ...
    def deliveries_of(self, command: int) -> list[DeliveryRow]: ...
    def is_waiting(self, alert: int, upstream: str) -> bool:
        """Whether a delivery of this alert waits for this upstream."""

    def last_waiting(self, upstream: str, lane: str) -> DeliveryRow | None:
        """The newest delivery that waits in a lane."""

    def waits_before(self, row: DeliveryRow) -> bool:
        """Whether something older waits in the same lane."""

    def newer_delivered(self, row: DeliveryRow) -> bool:
        """Whether the same lane has delivered something newer."""

    def due(self, upstream: str, now: int, limit: int) -> list[DeliveryRow]:
        """The oldest waiting delivery of each lane, as far as it may be sent now, longest due first."""

    def next_due(self, upstream: str, after: int) -> int | None:
        """When the next delivery of an upstream that is not due yet will be."""

    def waiting(self) -> list[Waiting]: ...
    def insert_attempt(self, row: AttemptRow) -> None: ...
    def attempts(self, delivery: int) -> list[AttemptRow]: ...
    def purge(self, before: int, limit: int) -> int:
        """Removes what ended before a time, a batch at most; answers how many deliveries and alerts that were."""

    def largest_id(self) -> int: ...


class Store(Protocol):
    """A place where transactions are durable. Used as an asynchronous context manager."""

    async def __aenter__(self) -> Store: ...
    async def __aexit__(self, *error: object) -> None: ...
    async def write(self, work: Callable[[Tx], T]) -> T:
        """Runs `work` in a transaction; its result comes back once it is on the disk. What `work` raises undoes
        its own part and comes back too. Raises `StoreError` where the store cannot commit."""

    async def read(self, work: Callable[[Tx], T]) -> T:
        """Runs `work` on a consistent, committed state; it must not write."""
