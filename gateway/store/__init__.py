"""The store's contract: the transaction that engine code is written against. Its rows are in `gateway.store.rows`.

Engine code never sees SQL: it is a plain function of a `Tx`, and `Store.write` runs it in a transaction that is
durable before its result is returned. Each driver supplies the primitives; how they are combined is decided once,
in the engine. Times are milliseconds since 1970, UTC. It must not know any vendor.

A store may be shared by several gateways (*replicas*). Then `Tx.lock` locks by name what a transaction works on,
and a delivery is *claimed* before it is sent: leased to one replica under a fence, a number that grows whenever
another replica takes it over. A replica whose lease has expired finds a higher fence when it comes to record an
outcome, and records nothing. A store with a single gateway needs neither, and does nothing there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Literal, Protocol, TypeVar, get_args

from gateway.store.rows import (
    AlertFilter,
    AlertRow,
    Arrivals,
    AttemptRow,
    CallsRow,
    CommandBody,
    CommandRow,
    DeliveryFilter,
    DeliveryRow,
    DeliveryState,
    FirstAnswer,
    Keyed,
    LedgerLine,
    TargetRow,
    TargetState,
    Waiting,
)

T = TypeVar("T")
EVER = -1
"""A time before anything was ever due, for `Tx.next_due`."""

Asking = Literal["caller", "operator", "gateway"]
"""Who a read is for. A long read for one of them does not delay those of the others."""
ASKING = get_args(Asking)
__all__ = [
    "ASKING",
    "EVER",
    "AlertFilter",
    "AlertRow",
    "Arrivals",
    "Asking",
    "AttemptRow",
    "CallsRow",
    "CommandBody",
    "CommandRow",
    "DeliveryFilter",
    "DeliveryRow",
    "DeliveryState",
    "FirstAnswer",
    "Keyed",
    "LedgerLine",
    "Store",
    "TargetRow",
    "TargetState",
    "Tx",
    "Waiting",
]


class Tx(Protocol):
    """One transaction. Everything read in it is current; everything written in it is committed together."""

    def lock(self, *names: str) -> bool:
        """Locks these names until the end of the transaction, waiting for any other holder; the locks are held by the
        time of the next read or write. Returns whether others may have changed what was read before: False where there
        are no other writers."""

    def alert(self, alert: int) -> AlertRow | None: ...
    def alert_by_key(self, scope: str, key: str) -> AlertRow | None:
        """The open alert that holds this key in this scope."""

    def last_alert_by_key(self, scope: str, key: str, before: int) -> AlertRow | None:
        """The newest alert of this scope, older than the alert `before`, that holds or held this key."""

    def alert_by_name(self, scope: str, name: str) -> AlertRow | None:
        """The alert that holds this unique name in this scope."""

    def alert_by_id(self, scope: str, name: str) -> AlertRow | None:
        """The alert that any party of this scope ever knew by this id, or else that the command with this number was
        about; not a deleted one."""

    def alerts_by_party(
        self, scope: str, name: str, party: str, *, newest: int | None = None, oldest: int | None = None
    ) -> list[AlertRow]:
        """The alerts of this scope that one party knows by this id, newest first, without deleted ones; with `newest`
        or `oldest`, only those among that many of the newest or oldest."""

    def alerts_of_anybody(self, names: Collection[str], limit: int) -> list[int]:
        """The ids of the alerts that any party of any scope ever knew by one of these ids or keys, or that have a
        command or delivery with one of them as its number; newest first. A command that found no alert, or was taken
        back with it, is returned by its own id."""

    def summaries(self, before: int, limit: int) -> list[tuple[int, str]]:
        """The newest alerts with an id below `before`, open or not, each with its summary."""

    def without_alert(self, before: int, limit: int) -> list[tuple[int, int, str]]:
        """The newest deliveries with an id below `before` that have a key and no alert, each with its command and
        key."""

    def alerts(self, scope: str, chosen: AlertFilter) -> tuple[list[AlertRow], int]:
        """The chosen alerts, and how many there would be without `offset` and `limit`."""

    def alerts_in_parts(self, scope: str, chosen: AlertFilter) -> Iterator[list[AlertRow]]:
        """The chosen alerts, oldest first, ignoring `offset` and `limit`; in batches, as there may be very many."""

    def insert_alert(self, row: AlertRow) -> None: ...
    def update_alert(self, row: AlertRow) -> None:
        """Updates an alert, except for its scope, dialect, caller, key and creation time."""

    def remove_alert(self, alert: int) -> None:
        """Deletes an alert with its targets, ids and deliveries; its commands stay."""

    def add_id(self, scope: str, name: str, party: str, alert: int) -> None:
        """Records that a party knows the alert by this id."""

    def has_open_kin(self, scope: str, name: str, party: str, alert: int) -> bool:
        """Whether a party knows another open alert by this id, in any scope, and was told of it or is about to be. Also
        True where the party does not know this alert by it, as nothing is known of the others then."""

    def ended(self, by: int, limit: int) -> list[AlertRow]:
        """Open alerts whose `ends_at` has passed by a time, earliest first."""

    def ids(self, alert: int) -> list[tuple[str, str]]:
        """Every id of an alert, as pairs of the party and its id."""

    def is_known_id(self, name: str, party: str) -> bool:
        """Whether a party knows any alert by this id, of whatever scope, deleted ones included."""

    def targets(self, alert: int) -> list[TargetRow]: ...
    def put_target(self, row: TargetRow) -> None: ...
    def remove_target(self, alert: int, upstream: str) -> None: ...
    def renewable(self, by: int, limit: int) -> list[TargetRow]:
        """Targets whose `renew_at` has passed by a time, earliest first."""

    def count_open_at(self, upstream: str) -> int:
        """How many open alerts an upstream has, or may have."""

    def lane_holders(self, upstream: str, lane: str) -> list[int]:
        """The open alerts with a target on this lane."""

    def command(self, command: int) -> CommandRow | None: ...
    def insert_command(self, row: CommandRow) -> None: ...
    def refuse_command(self, command: int, reason: str) -> None:
        """Marks a command as refused and deletes its deliveries."""

    def remove_command(self, command: int) -> None:
        """Deletes a command with its deliveries, as if it had never been accepted."""

    def commands(self, alert: int, last: int | None = None) -> list[CommandRow]:
        """An alert's commands, oldest first: all of them, or only the `last` so many."""

    def count_commands(self, alert: int) -> int: ...
    def insert_delivery(self, row: DeliveryRow) -> None: ...
    def update_delivery(self, row: DeliveryRow) -> None:
        """Updates a delivery's progress, but not what it tells, its upstream or its holder. Raises `StoreError` where
        its `fence` has grown since it was read."""

    def delivery(self, delivery: int) -> DeliveryRow | None:
        """A delivery; a writing transaction keeps it locked until it ends."""

    def deliveries(self, chosen: DeliveryFilter) -> list[DeliveryRow]: ...
    def held(self, ids: Collection[int]) -> list[DeliveryRow]:
        """Those of these deliveries that exist, in their current state and locked until the end of the transaction."""

    def delivery_numbers(self, chosen: DeliveryFilter, among: int) -> tuple[list[int], int | None]:
        """The ids of the chosen deliveries, newest first, and None. Where no index serves the choice, only those
        `among` that many of the newest, and the id to continue before, None if there are no more."""

    def has_deliveries(self, upstream: str) -> bool:
        """Whether there is any delivery for an upstream, in whatever state."""

    def deliveries_of(self, command: int) -> list[DeliveryRow]: ...
    def is_waiting(self, alert: int, upstream: str) -> bool:
        """Whether a delivery of this alert waits for this upstream."""

    def last_waiting(self, upstream: str, lane: str) -> DeliveryRow | None:
        """The newest waiting delivery of a lane."""

    def waits_before(self, row: DeliveryRow) -> bool:
        """Whether an older delivery waits in the same lane."""

    def newer_delivered(self, row: DeliveryRow) -> bool:
        """Whether a newer delivery of the same lane is delivered, or was tried and may have arrived."""

    def newest_in_lane(self, upstream: str, lane: str) -> DeliveryRow | None:
        """The newest delivery of a lane, in whatever state. Locks the lane until the end of the transaction."""

    def told_last(self, upstream: str, lane: str) -> int | None:
        """The alert that an upstream was last told of on a lane: the one that has the lane's key there now."""

    def took(self, upstream: str, since: int) -> dict[str, int]:
        """The lanes on which an upstream has taken a delivery since a time, each with the latest such time. Searches
        all deliveries that ended since, at any upstream."""

    def claim(
        self,
        upstream: str,
        now: int,
        limit: int,
        *,
        taken: Collection[str] = (),
        ranked: bool = False,
        fresh: bool = False,
        unsent: bool = False,
    ) -> list[DeliveryRow]:
        """Claims the oldest waiting delivery of each lane if it is due and no other replica holds it: at most `limit`,
        longest due first, or by rank first if `ranked`. Skips the lanes in `taken`; with `fresh`, takes only deliveries
        whose attempt is no retry (`DeliveryRow.is_retry`); with `unsent`, by rank, only those that do not merely ask
        about a receipt (`DeliveryRow.is_unconfirmed`)."""

    def unrecorded(self) -> frozenset[int]:
        """Those of the deliveries claimed in this transaction that were claimed before, without anything recorded
        since: a killed gateway may have sent them. Empty where the store keeps no claims."""

    def shift_waiting(self, by: int) -> None:
        """Shifts `due` and `created_at` of all waiting deliveries by so many milliseconds."""

    def call_back(self, now: int, longest: int) -> None:
        """Moves waiting deliveries of commands that are later than `now`, and were not moved since, to what they would
        be had the command just come; and has those tried at once that failed and have longer than `longest` to wait.
        All times are milliseconds."""

    def next_due(self, upstream: str, after: int) -> int | None:
        """The earliest `due` later than `after` among an upstream's waiting deliveries."""

    def waiting(self) -> list[Waiting]: ...
    def dead(self, *, but: str) -> dict[str, int]:
        """The number of dead letters by upstream, without those of the problem code `but`; upstreams with none are left
        out."""

    def insert_attempt(self, row: AttemptRow) -> None: ...
    def attempts(self, delivery: int) -> list[AttemptRow]: ...
    def note(self, name: str) -> Any:
        """The note of this name, as plain JSON values; None if there is none."""

    def put_note(self, name: str, value: Any) -> None:
        """Stores a value under a name, for what has to survive a restart."""

    def notes(self, prefix: str, limit: int) -> list[Any]:
        """The notes whose names begin with a prefix, in descending order of their names."""

    def remove_notes(self, prefix: str, before: str, limit: int) -> None:
        """Deletes notes whose names begin with a prefix and sort before a name, at most `limit` of them."""

    def keyed(self, scope: str, key: str) -> Keyed | None:
        """The request that was first to use an idempotency key in this scope."""

    def put_keyed(self, scope: str, key: str, row: Keyed) -> None: ...
    def remove_keyed(self, scope: str, key: str) -> None: ...
    def purge_keyed(self, before: int, limit: int) -> int:
        """Deletes idempotency keys that were used before a time, at most `limit`; returns how many."""

    def add_calls(self, row: CallsRow, most: int | None) -> bool:
        """Adds calls to the row of their kind. Where there is no such row yet and the caller already has `most` kinds,
        adds nothing and returns False."""

    def calls(self, limit: int, before: CallsRow | None = None) -> list[CallsRow]:
        """The kinds of calls, last seen first; with `before`, those that follow it in this order."""

    def purge_calls(self, before: int, limit: int) -> int:
        """Deletes calls that were last seen before a time, at most `limit` kinds; returns how many kinds."""

    def ledger(self, since: int, by: Literal["caller", "dialect", "operation"]) -> list[LedgerLine]:
        """The sums over the commands accepted since a time, one line per group, ordered by group."""

    def arrivals(self, since: int) -> list[Arrivals]:
        """What each upstream took of the commands accepted since a time, ordered by upstream."""

    def purge(self, before: int, limit: int) -> int:
        """Deletes what ended before a time: at most `limit` commands with all their deliveries; if there were fewer,
        also at most `limit` alerts, and as many commands, that have no deliveries. Returns the number of deliveries,
        alerts and such commands removed."""

    def tell(self, text: str) -> None:
        """Sends a text to the other replicas once this is committed. Only a hint: it may be lost."""

    def largest_id(self) -> int: ...


class Store(Protocol):
    """A place where transactions are durable. Used as an asynchronous context manager.

    Once open, `slot` is this process's own part of every id it makes; `lease` is how many seconds a claim holds
    unless renewed, None where no other process could take what is claimed; `on_hint` is called in the event loop
    with each text that another replica sent by `Tx.tell`; `is_strained` says that the disk is full, so that only what
    is under way is still recorded; `damage` describes permanent damage to the store, empty where there is none;
    `left_behind` names a server of it that accepts writes although another was promoted after it; `log_size` is how
    many bytes its write-ahead log has, 0 where that is a database's own concern; `ahead` is how many seconds the clock
    of a database's server was ahead of this machine's when it was followed, 0 where there is none.
    """

    slot: int
    lease: float | None
    on_hint: Callable[[str], None]
    is_strained: bool
    damage: str

    @property
    def ahead(self) -> float: ...
    @property
    def left_behind(self) -> str: ...
    @property
    def log_size(self) -> int: ...

    async def __aenter__(self) -> Store: ...
    async def __aexit__(self, *error: object) -> None: ...
    async def write(self, work: Callable[[Tx], T], *, is_long: bool = False) -> T:
        """Runs `work` in a transaction and returns its result once it is on the disk. If `work` raises, its own writes
        are rolled back and the exception is raised here. Raises `StoreError` if the store cannot commit, or if it is
        unknown whether it did. `work` may be run again, after a conflict with another transaction or the failure of
        work in the same one: outside the store it may change only what is safe to change repeatedly. Work that goes
        through many rows is to say `is_long`, so that it does not block the event loop."""

    async def read(self, work: Callable[[Tx], T], *, is_long: bool = False, whose: Asking = "caller") -> T:
        """Runs `work` on a consistent, committed state; it must not write. `is_long` as for `write`: a long read may
        wait for other long ones, but the gateway's own never for those of callers and operators."""

    async def take(self, work: Callable[[Tx], T]) -> T:
        """Runs `work` that claims deliveries and writes nothing else."""

    async def renew(self, claims: Collection[DeliveryRow]) -> Collection[int]:
        """Extends these claims by another `lease`; returns the ids of those still held."""

    def follow(self) -> int:
        """Follows the clock of a database's server: `ahead` changes, and the times of what waits are moved along with
        it, for all work that is given from now on. Returns by how many milliseconds they are moved altogether; 0 where
        there is no such clock."""

    async def ease(self) -> None:
        """Checks whether there is room again, if the store is strained."""
