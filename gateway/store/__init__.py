"""The store's contract: what every driver keeps, and the transaction that engine code is written against.

Engine code never sees SQL: it is a plain function of a `Tx`, and `Store.write` runs it in a transaction that is
durable before its result is known. Each driver supplies the primitives; what they mean together is decided once,
in the engine. Times are milliseconds since 1970, UTC. It must not know any vendor.

A store may be shared by several gateways (*replicas*). Then `Tx.lock` keeps what a transaction works on to itself,
and a delivery is *claimed* before it is sent: leased to one replica under a fence, a number that grows whenever
another one takes it over. A replica whose lease ran out finds another fence when it comes to record, and records
nothing. A store of one gateway alone has no need of either, and does nothing there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Literal, Protocol, TypeVar, get_args

from msgspec import Struct

from gateway.canonical import Alert

T = TypeVar("T")

TargetState = Literal["absent", "waiting", "present", "dead", "gone", "standby"]
DeliveryState = Literal["waiting", "delivered", "dead", "merged", "void"]
Asking = Literal["caller", "operator", "gateway"]
"""Who wants to read: no one of them is kept waiting by a long list of another."""
ASKING = get_args(Asking)


class AlertRow(Struct, kw_only=True):
    """An alert of one scope. `shown` is the id its caller knows, `key` its open key and `name` its unique name as
    the dialect compares them; `verbatim` the callers' own words where an upstream speaks their dialect; `ends_at` is
    when it is over unless its sender says again that it is not."""

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
    """Where an alert stands at one upstream. `key` is the key sent there, `lane` what orders its commands, `ids`
    and `seen` what the upstream issued and last showed, `replaced` what the route sets, `revives` an earlier alert
    of the same key whose switched-off rule there may be switched on again; `renew_at` is when the upstream has to be
    told again that the alert is open. A target on `standby` is a fallback: it is told only of an alert that nobody else
    has taken in time."""

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
    """What a command said: the alert after it, the paths it changed (None: all), the caller's own words for it,
    its comment, the alert before it with the words that were kept then, the gateways it came through, the routes that
    it took, each with why, the operation that was `asked` for where that came to another, and the `silence` that
    acknowledged, where nobody did. One that `renews` is the gateway's own: it says again what was said, and leaves
    nothing behind once that is delivered."""

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


class CommandRow(Struct, kw_only=True):
    """A command that was accepted; `alert` is None for one that found no alert to work on. `fanout` is how many
    deliveries it made: the ledger holds them against what became of each."""

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


class DeliveryRow(Struct, kw_only=True):
    """A command on its way to one upstream. `due` is when the next attempt may be made, `report` what became of
    the fields, `size` about how many bytes its command takes, `merges` the earlier commands whose changes it says
    too. `rank` is the severity to go by where not everything can be sent at once, 0 first; `fence` grows with each
    replica that takes it over; `seen` is what its call wants to know when it runs again, such as a receipt's number;
    `code` is the problem code of its `reason`, nothing where all is well."""

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
    rank: int = 3
    fence: int = 0
    seen: dict[str, Any] = {}
    code: str = ""


class AttemptRow(Struct, kw_only=True):
    """One attempt of a delivery: when, for how many milliseconds, how it ended, and by which problem code it failed."""

    delivery: int
    number: int
    at: int
    took: int
    status: int | None
    outcome: str
    reason: str
    code: str = ""


class AlertFilter(Struct, kw_only=True, frozen=True):
    """Which alerts of a scope to list; empty fields do not select. Oldest first, unless `newest_first`."""

    statuses: tuple[str, ...] = ()
    resource: str | None = None
    updated_from: int | None = None
    created_from: int | None = None
    created_before: int | None = None
    offset: int = 0
    limit: int | None = None
    newest_first: bool = False


class DeliveryFilter(Struct, kw_only=True, frozen=True):
    """Which deliveries to list, newest first; empty fields do not select. With `before`, those with a smaller id; with
    `after`, those with a larger one, oldest first."""

    state: str | None = None
    upstream: str | None = None
    alert: int | None = None
    ids: tuple[int, ...] = ()
    after: int | None = None
    before: int | None = None
    limit: int = 1000


class Waiting(Struct, frozen=True):
    """What waits for one upstream: how many deliveries, of how many bytes, and since when the oldest."""

    upstream: str
    count: int
    oldest: int
    bytes: int = 0


class FirstAnswer(Struct, kw_only=True, omit_defaults=True):
    """What the first request under an idempotency key came to: the alert as it was shown then, and the report.
    `command` is its own id; 0 where an earlier release kept it."""

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
    """A request under an idempotency key: a digest of what it said, when, and its answer."""

    digest: str
    at: int
    answer: FirstAnswer


class LedgerLine(Struct, kw_only=True):
    """The sums over one group: how many deliveries its commands made, and how many are in which state. `refused`
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
        """Whether everything that was received is somewhere."""
        known = self.refused + self.delivered + self.dead + self.waiting + self.merged + self.void
        return self.received == known


class CallsRow(Struct, kw_only=True):
    """Calls of one kind: to which inbound and by whom, the empty caller being all strangers; the route's path, or what
    was asked for; the program that said so; how they ended; how many there were, and when."""

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
    """What one upstream took: how many it merely accepted (202) and how many it confirmed, and the ages at delivery
    in milliseconds."""

    upstream: str
    accepted: int
    confirmed: int
    p50: int
    p99: int
    worst: int


class Tx(Protocol):
    """One transaction. Everything read in it is current, everything written in it is durable together."""

    def lock(self, *names: str) -> bool:
        """Keeps what is named to this transaction until it ends, waiting for whoever has it: it is had when the next
        thing is read or written. Answers whether others may have changed it since it was read: False where nobody else
        is."""

    def alert(self, alert: int) -> AlertRow | None: ...
    def alert_by_key(self, scope: str, key: str) -> AlertRow | None:
        """The open alert that holds this key in this scope."""

    def last_alert_by_key(self, scope: str, key: str, before: int) -> AlertRow | None:
        """The newest alert of this scope, older than the alert `before`, that holds or held this key."""

    def alert_by_name(self, scope: str, name: str) -> AlertRow | None:
        """The alert that holds this unique name in this scope."""

    def alert_by_id(self, scope: str, name: str) -> AlertRow | None:
        """The alert that any party of this scope ever knew by this id, or that the command of this number was about;
        not a deleted one."""

    def alerts_by_party(
        self, scope: str, name: str, party: str, *, newest: int | None = None, oldest: int | None = None
    ) -> list[AlertRow]:
        """The alerts of this scope that one party knows by this id, newest first, without those that are deleted; or
        those alone that are among so many of the `newest` or `oldest`."""

    def alerts_of_anybody(self, names: Collection[str], limit: int) -> list[int]:
        """The alerts that any party of any scope ever knew by one of these ids or keys, or whose command or delivery
        has this number; newest first. A command that found no alert, or was taken back with it, is named itself."""

    def summaries(self, before: int, limit: int) -> list[tuple[int, str]]:
        """The newest alerts of before an id, whatever became of them, each with its summary."""

    def alerts(self, scope: str, chosen: AlertFilter) -> tuple[list[AlertRow], int]:
        """The alerts chosen, and how many there are without `offset` and `limit`."""

    def alerts_in_parts(self, scope: str, chosen: AlertFilter) -> Iterator[list[AlertRow]]:
        """The alerts chosen, oldest first, without `offset` and `limit`; a part of them at a time, as there may be very
        many."""

    def insert_alert(self, row: AlertRow) -> None: ...
    def update_alert(self, row: AlertRow) -> None:
        """Changes an alert, but not whose it is, nor its key."""

    def remove_alert(self, alert: int) -> None:
        """Takes an alert away with its targets, ids and deliveries; its commands stay."""

    def add_id(self, scope: str, name: str, party: str, alert: int) -> None:
        """Remembers that a party knows the alert by this id."""

    def has_open_kin(self, scope: str, name: str, party: str, alert: int) -> bool:
        """Whether a party knows an open alert other than this one by this id, in any scope, and was told of it or is
        about to be. So too where it does not know this one by it: then it is not known of the others either."""

    def ended(self, by: int, limit: int) -> list[AlertRow]:
        """Open alerts whose own end has come by a time, the longest over first."""

    def ids(self, alert: int) -> list[tuple[str, str]]:
        """Every party that has an id for an alert, and the id."""

    def is_known_id(self, name: str, party: str) -> bool:
        """Whether a party already knows any alert, of whatever scope and deleted ones too, by this id."""

    def targets(self, alert: int) -> list[TargetRow]: ...
    def put_target(self, row: TargetRow) -> None: ...
    def remove_target(self, alert: int, upstream: str) -> None: ...
    def renewable(self, by: int, limit: int) -> list[TargetRow]:
        """Where something has to be said again by a time, the most urgent first."""

    def count_open_at(self, upstream: str) -> int:
        """How many open alerts an upstream has, or may have."""

    def lane_holders(self, upstream: str, lane: str) -> list[int]:
        """The open alerts that stand on a lane."""

    def command(self, command: int) -> CommandRow | None: ...
    def insert_command(self, row: CommandRow) -> None: ...
    def refuse_command(self, command: int, reason: str) -> None:
        """Marks a command as undone and takes its deliveries away."""

    def remove_command(self, command: int) -> None:
        """Takes a command away with its deliveries, as if it had never been."""

    def commands(self, alert: int, last: int | None = None) -> list[CommandRow]:
        """What an alert came through, oldest first: all of it, or only the last so many."""

    def count_commands(self, alert: int) -> int: ...
    def insert_delivery(self, row: DeliveryRow) -> None: ...
    def update_delivery(self, row: DeliveryRow) -> None:
        """Changes how far a delivery is, but not what it tells to whom, nor who holds it. Refused with `StoreError`
        where its `fence` has grown since."""

    def delivery(self, delivery: int) -> DeliveryRow | None:
        """A delivery; in a transaction that writes it is kept to it until it ends."""

    def deliveries(self, chosen: DeliveryFilter) -> list[DeliveryRow]: ...
    def held(self, ids: Collection[int]) -> list[DeliveryRow]:
        """These deliveries, as far as they are there, as they are by now: nobody else changes them until the end of the
        transaction."""

    def delivery_numbers(self, chosen: DeliveryFilter, among: int) -> tuple[list[int], int | None]:
        """The numbers of the deliveries chosen, newest first, and None. Where there is no index of such, only those
        among so many of the newest, and before which number to go on, None where there are no more."""

    def has_deliveries(self, upstream: str) -> bool:
        """Whether anything was ever meant for an upstream."""

    def deliveries_of(self, command: int) -> list[DeliveryRow]: ...
    def is_waiting(self, alert: int, upstream: str) -> bool:
        """Whether a delivery of this alert waits for this upstream."""

    def last_waiting(self, upstream: str, lane: str) -> DeliveryRow | None:
        """The newest delivery that waits in a lane."""

    def waits_before(self, row: DeliveryRow) -> bool:
        """Whether something older waits in the same lane."""

    def newer_delivered(self, row: DeliveryRow) -> bool:
        """Whether the same lane has delivered something newer, or has tried to and may have."""

    def newest_in_lane(self, upstream: str, lane: str) -> DeliveryRow | None:
        """The newest delivery of a lane, whatever became of it. The lane is this transaction's from here on."""

    def told_last(self, upstream: str, lane: str) -> int | None:
        """The alert of which an upstream was told last on a lane: whatever has that key there is this one."""

    def took(self, upstream: str, since: int) -> dict[str, int]:
        """The lanes on which an upstream has taken something after a time, each with when it did last; where very much
        has ended since, of the newest of that."""

    def claim(
        self,
        upstream: str,
        now: int,
        limit: int,
        *,
        taken: Collection[str] = (),
        ranked: bool = False,
        fresh: bool = False,
    ) -> list[DeliveryRow]:
        """Claims the oldest waiting delivery of each lane, as far as it may be sent now and nobody else has it:
        longest due first, or the worst `ranked` first. Not from the lanes in `taken`; only such as were never
        attempted if `fresh`."""

    def shift_waiting(self, by: int) -> None:
        """Moves the times that waiting deliveries wait for, and since when, by so many milliseconds."""

    def next_due(self, upstream: str, after: int) -> int | None:
        """When the next delivery of an upstream that is not due yet will be."""

    def waiting(self) -> list[Waiting]: ...
    def dead(self, *, but: str) -> dict[str, int]:
        """How many dead letters there are, by upstream, but for those of one problem code; those without any are not
        named."""

    def insert_attempt(self, row: AttemptRow) -> None: ...
    def attempts(self, delivery: int) -> list[AttemptRow]: ...
    def note(self, name: str) -> Any:
        """What was noted under a name, as plain JSON values; None where nothing was."""

    def put_note(self, name: str, value: Any) -> None:
        """Notes something that has to survive a restart."""

    def notes(self, prefix: str, limit: int) -> list[Any]:
        """What was noted under names that begin so, last name first."""

    def remove_notes(self, prefix: str, before: str, limit: int) -> None:
        """Forgets what was noted under names that begin so and come before a name, a batch at most."""

    def keyed(self, scope: str, key: str) -> Keyed | None:
        """The request that was first to use an idempotency key in this scope."""

    def put_keyed(self, scope: str, key: str, row: Keyed) -> None: ...
    def remove_keyed(self, scope: str, key: str) -> None: ...
    def purge_keyed(self, before: int, limit: int) -> int:
        """Forgets idempotency keys that were used before a time, a batch at most; answers how many."""

    def add_calls(self, row: CallsRow, most: int | None) -> bool:
        """Adds calls to those of the same kind. Where there are none yet and their caller has `most` kinds already,
        nothing is added, and it answers False."""

    def calls(self, limit: int, before: CallsRow | None = None) -> list[CallsRow]:
        """Who calls, those that were seen last first; after `before` in this order."""

    def purge_calls(self, before: int, limit: int) -> int:
        """Forgets calls that were last seen before a time, a batch at most; answers how many kinds."""

    def ledger(self, since: int, by: Literal["caller", "dialect", "operation"]) -> list[LedgerLine]:
        """The sums over the commands accepted since a time, one line per group, in order of the groups."""

    def arrivals(self, since: int) -> list[Arrivals]:
        """What each upstream took of the commands accepted since a time, in order of the upstreams."""

    def purge(self, before: int, limit: int) -> int:
        """Removes what ended before a time, so many commands with all their deliveries at most; only where there were
        fewer, so many alerts and commands without any deliveries too. Answers how many deliveries, alerts and such
        commands that were."""

    def tell(self, text: str) -> None:
        """Tells the other replicas, once this is committed. A hint only: it may be lost."""

    def largest_id(self) -> int: ...


class Store(Protocol):
    """A place where transactions are durable. Used as an asynchronous context manager.

    Once open, `slot` is this process's own part of every id it makes; `lease` is for how many seconds a claim holds
    unless it is renewed, None where nobody else could take what is claimed; `on_hint` is called, in the event loop,
    with what another replica told; `is_strained` says that only what is under way is still recorded, as there is
    no room for more; `damage` says what is wrong with it for good, nothing where all is well; `left_behind` names a
    server of it that takes writes and should not, as another has taken over.
    """

    slot: int
    lease: float | None
    on_hint: Callable[[str], None]
    is_strained: bool
    damage: str

    @property
    def left_behind(self) -> str: ...

    async def __aenter__(self) -> Store: ...
    async def __aexit__(self, *error: object) -> None: ...
    async def write(self, work: Callable[[Tx], T], *, is_long: bool = False) -> T:
        """Runs `work` in a transaction; its result comes back once it is on the disk. What `work` raises undoes
        its own part and comes back too. Raises `StoreError` where the store cannot commit, or where nobody knows
        whether it did. `work` may be run again where others were at the same thing, or one that was done together
        with it failed: it must change nothing but the store, or what it changes the same way again. What goes through
        many rows says that it `is_long`: it may not keep the event loop waiting."""

    async def read(self, work: Callable[[Tx], T], *, is_long: bool = False, whose: Asking = "caller") -> T:
        """Runs `work` on a consistent, committed state; it must not write. `is_long` as for `write`; what is long may
        wait for what else is, but what the gateway wants to know itself not for the lists of others."""

    async def take(self, work: Callable[[Tx], T]) -> T:
        """Runs `work`, which claims deliveries and writes nothing else."""

    async def renew(self, claims: Collection[DeliveryRow]) -> Collection[int]:
        """Holds on to what is claimed for another `lease`; answers to which."""

    async def ease(self) -> None:
        """Where the store is strained: sees whether there is room again."""
