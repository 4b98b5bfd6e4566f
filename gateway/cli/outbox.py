"""The commands on the store of a gateway: its outbox, its ledger, its callers, and its operator log. With `--config`
they open the store, with `--url` they ask the gateway that serves from it.

The work is done in `gateway.admin.operating`; here are only options and output. It must not know any vendor.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import click

from gateway.cli.place import Place, placed
from gateway.cli.showing import JSON, print_json, printable, tabbed, table

if TYPE_CHECKING:
    from gateway.admin.remote import Remote
    from gateway.config.config import Config
    from gateway.store import Arrivals, LedgerLine, Tx

MOST = 1_000_000_000
"""The largest limit of a list, within what every store can count."""
LIMIT = "The most to list; with --url 10000 at most."


@click.command()
@placed
@click.option("--state", type=click.Choice(["waiting", "delivered", "dead", "merged", "void"]))
@click.option("--upstream", "upstream_name", help="Only those for this upstream.")
@click.option("--alert", "alert_name", metavar="ID", help="Only those of one alert, by any of its ids.")
@click.option("--limit", type=click.IntRange(1, MOST), default=1000, show_default=True, help=LIMIT)
@JSON
def deliveries(
    place: Place, state: str | None, upstream_name: str | None, alert_name: str | None, limit: int, as_json: bool
) -> None:
    """List the outbox, newest first. Dead deliveries are shown with the request as it would be sent now."""

    def there(remote: Remote) -> Any:
        asked = {"state": state, "upstream": upstream_name, "alert": alert_name, "limit": limit}
        return remote.get("/-/deliveries", **asked)["deliveries"]

    def here(tx: Tx, config: Config, now: int) -> Any:
        from gateway.admin.operating import NotAsAsked, listed, storable
        from gateway.admin.tracing import alert_of
        from gateway.store import DeliveryFilter

        alert = alert_of(tx, alert_name, config) if alert_name is not None else None
        if alert_name is not None and alert is None:
            raise NotAsAsked(f"no alert has the id or key {alert_name!r}")
        upstream = storable(upstream_name) if upstream_name is not None else None
        chosen = DeliveryFilter(state=state, upstream=upstream, alert=alert, limit=limit)
        return [one.as_json() for one in listed(tx, chosen, config.upstreams, now)]

    rows = place.ask(there, here)
    _say_if_cut(rows, limit)
    if as_json:
        print_json(rows)
        return

    def plain() -> None:
        for row in rows:
            click.echo(tabbed(_cells(row)))
            for request in row["would_send"]:
                click.echo(f"\twould be sent: {request}")

    if not sys.stdout.isatty():
        plain()
        return
    names = ["delivery", "state", "upstream", "operation", "alert", "attempts", "code"]
    table(names, [[*_cells(row)[:6], row["code"] or ""] for row in rows], plain)
    for row in rows:  # below the table, which has no room for a sentence or a request
        if row["reason"]:
            click.echo(f"{row['id']}: {printable(row['reason'])}")
        for request in row["would_send"]:
            click.echo(f"{row['id']} would be sent: {printable(request)}")


def _say_if_cut(rows: list[Any], limit: int) -> None:
    """Says on stderr that the list may go on, for those who count its lines or take it for complete."""
    if len(rows) == limit:
        click.echo(f"{limit} shown, there may be more: see --limit", err=True)


def _cells(row: dict[str, Any]) -> list[str]:
    names = ("id", "state", "upstream", "operation", "alert", "attempts", "reason", "code")
    return ["" if row[name] is None else str(row[name]) for name in names]


@click.command()
@placed
@click.argument("ids", nargs=-1, type=int)
@click.option("--dead", is_flag=True, help="Every dead delivery.")
@click.option("--upstream", "upstream_name", help="Every dead delivery of this upstream.")
@click.option("--force", is_flag=True, help="Even if the lane has delivered something newer since.")
def retry(place: Place, ids: tuple[int, ...], dead: bool, upstream_name: str | None, force: bool) -> None:
    """Send dead deliveries again, in their old order."""
    wanted = {"ids": ids, "dead": dead, "upstream": upstream_name, "force": force}
    _change(place, "retry", wanted, "will be sent again")


@click.command()
@placed
@click.argument("ids", nargs=-1, type=int)
@click.option("--dead", is_flag=True, help="Every dead delivery.")
@click.option("--upstream", "upstream_name", help="Every dead delivery of this upstream; all, if it is not configured.")
@click.option("--because", required=True, metavar="TEXT", help="Why; it is kept with the delivery.")
def drop(place: Place, ids: tuple[int, ...], dead: bool, upstream_name: str | None, because: str) -> None:
    """Take deliveries out of the outbox for good."""
    if not because.strip():
        raise click.UsageError("--because: give a reason; it is kept with the delivery")
    _change(place, "drop", {"ids": ids, "dead": dead, "upstream": upstream_name, "because": because}, "dropped")


def _change(place: Place, what: Literal["retry", "drop"], wanted: dict[str, Any], said: str) -> None:
    from gateway.admin.operations import Operator, myself

    def there(remote: Remote) -> Any:
        found = remote.post(f"/-/{what}", {**wanted, "who": myself()})
        return found["done"], found["refused"], found["count"], found["refused_count"]

    def here(tx: Tx, config: Config, now: int) -> Any:
        from gateway.admin.operating import change

        done, refused, _ = change(tx, what, Operator(myself(), "command line"), now, config.upstreams, **wanted)
        return done, refused, len(done), len(refused)

    done, refused, count, refused_count = place.ask(there, here, writes=True)
    _say_what_came(done, refused, said)
    for number, sort in ((count - len(done), said), (refused_count - len(refused), "refused")):
        if number:
            click.echo(f"and {number} more: {sort}", err=sort == "refused")
    if refused_count:
        sys.exit(1)


@click.command(name="operations")
@placed
@click.option("--limit", type=click.IntRange(1, MOST), default=100, show_default=True, help=LIMIT)
@JSON
def operations_(place: Place, limit: int, as_json: bool) -> None:
    """List what operators did, when and why, newest first."""

    def here(tx: Tx, config: Config, now: int) -> Any:
        import msgspec

        from gateway.admin.operations import kept

        return msgspec.to_builtins(kept(tx, limit))

    rows = place.ask(lambda remote: remote.get("/-/operations", limit=limit)["operations"], here)
    _say_if_cut(rows, limit)
    if as_json:
        print_json(rows)
        return
    cells = [
        [
            datetime.fromtimestamp(row["at"] / 1000, UTC).isoformat(timespec="seconds"),
            row["who"],
            row["origin"],
            row["what"],
            str(row["count"]),
            str(row["refused"]),
            row["because"],
        ]
        for row in rows
    ]

    def plain() -> None:
        for line in cells:
            click.echo(tabbed(line))

    table(["at", "who", "from", "what", "deliveries", "refused", "because"], cells, plain)


def _say_what_came(done: list[int], refused: list[str], what: str) -> None:
    for one in done:
        click.echo(f"{one}: {what}")
    for text in refused:
        click.echo(text, err=True)
    if not done and not refused:
        click.echo("nothing to do")


@click.command()
@placed
@click.option(
    "--since",
    default="30d",
    show_default=True,
    metavar="DURATION",
    help="How far back; what retention removed is not counted.",
)
@click.option("--by", type=click.Choice(["caller", "dialect", "operation"]), default="caller", show_default=True)
@JSON
def report(place: Place, since: str, by: Literal["caller", "dialect", "operation"], as_json: bool) -> None:
    """Show the ledger: what was received and what became of it. Exit 1 if it does not add up."""
    import msgspec

    from gateway.admin.operating import ledger_since
    from gateway.config.values import duration
    from gateway.store import Arrivals, LedgerLine

    try:
        before = int(duration(since) * 1000)
    except ValueError as error:
        raise click.UsageError(f"--since: {error}") from None

    def here(tx: Tx, config: Config, now: int) -> Any:
        return {"by": by, "since": since, **ledger_since(tx, now - before, by)}

    found = place.ask(lambda remote: remote.get("/-/report", since=since, by=by), here)
    lines = msgspec.convert(found["ledger"], list[LedgerLine])
    if as_json:
        print_json(found)
    else:
        _show_ledger(lines, msgspec.convert(found["upstreams"], list[Arrivals]), by)
    wrong = [line.group for line in lines if not line.adds_up]
    if wrong:
        click.echo(f"the ledger does not add up for {', '.join(wrong)}", err=True)
        sys.exit(1)


STATES = ("received", "delivered", "dead", "waiting", "merged", "void", "refused")


def _show_ledger(lines: Sequence[LedgerLine], arrivals: Sequence[Arrivals], by: str) -> None:
    def plain() -> None:
        click.echo("\t".join([by, *STATES]))
        for line in lines:
            click.echo(tabbed([line.group, *(str(getattr(line, state)) for state in STATES)]))
        click.echo("\t".join(["upstream", "accepted", "confirmed", "p50_s", "p99_s", "worst_s"]))
        for one in arrivals:
            click.echo(tabbed(_arrived(one)))

    if not sys.stdout.isatty():
        plain()
        return
    table([by, *STATES], [[line.group, *(getattr(line, state) for state in STATES)] for line in lines], plain)
    names = ["upstream", "accepted by it", "confirmed by it", "p50 s", "p99 s", "worst s"]
    table(names, [_arrived(one) for one in arrivals], plain)


def _arrived(one: Arrivals) -> list[str]:
    ages = (f"{age / 1000:.3f}" for age in (one.p50, one.p99, one.worst))
    return [one.upstream, str(one.accepted), str(one.confirmed), *ages]


@click.command()
@placed
@click.option("--limit", type=click.IntRange(1, MOST), default=1000, show_default=True, help=LIMIT)
@JSON
def callers(place: Place, limit: int, as_json: bool) -> None:
    """List who calls, last seen first. Shown are the result, how often, when, on which path and with which program."""
    from gateway.desk.calling import SHOWN_WITHIN

    def here(tx: Tx, config: Config, now: int) -> Any:
        from gateway.desk.calling import as_json

        return [as_json(row) for row in tx.calls(limit)]

    place.wait_for_gateway(SHOWN_WITHIN)
    rows = place.ask(lambda remote: remote.get("/-/callers", limit=limit)["callers"], here)
    _say_if_cut(rows, limit)
    if as_json:
        print_json(rows)
        return
    cells = [
        [
            f"{row['dialect']}/{row['caller'] or 'unknown'}",
            row["outcome"],
            str(row["count"]),
            row["last_seen"][:19] + "Z",
            row["first_seen"][:19] + "Z",
            f"{row['method']} {row['path']}",
            row["agent"],
        ]
        for row in rows
    ]

    def plain() -> None:
        for line in cells:
            click.echo(tabbed(line))

    table(["who", "outcome", "times", "last", "first", "request", "agent"], cells, plain)


COMMANDS = (deliveries, retry, drop, report, operations_, callers)
