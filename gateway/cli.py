"""The command line: `alert-gateway`. Each command does its own importing, so that none waits for what it does not use.

It must not know any vendor; what a command does is elsewhere, here is only how it is asked for and shown.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway import __version__

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.store import DeliveryRow, Tx

CONFIG = click.option("--config", "config_path", required=True, type=click.Path(), help="The configuration file.")
JSON = click.option("--json", "as_json", is_flag=True, help="Plain JSON instead of a table.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="alert-gateway")
def main() -> None:
    """A translation proxy between alerting vendors."""


def _load(path: str, *, secrets: bool = True, listen: str | None = None) -> Config:
    """The configuration, or an exit that lists everything that is wrong with it."""
    from gateway.config import load
    from gateway.errors import ConfigurationError

    try:
        return load(path, secrets=secrets, listen=listen)
    except ConfigurationError as error:
        for problem in error.problems:
            click.echo(f"{path}: {problem}" if not problem.startswith(path) else problem, err=True)
        sys.exit(1)


def _print_json(value: Any) -> None:
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]], plain: Callable[[], None]) -> None:
    """A table where a person is looking, else whatever `plain` prints."""
    if not sys.stdout.isatty():
        plain()
        return
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(*(Column(name, no_wrap=name in ("delivery", "alert", "dialect")) for name in columns))
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console().print(table)


@main.command()
@click.option("--from", "origin", metavar="DIALECT", help="Only alerts of this dialect.")
@click.option("--to", "target", metavar="DIALECT", help="Only to this dialect.")
@click.option("--serve", "stay", is_flag=True, help="Stay up to play with.")
@JSON
def demo(origin: str | None, target: str | None, stay: bool, as_json: bool) -> None:
    """Send every vendor's documented examples to every vendor, over real HTTP, without an account."""
    from gateway.demo import run

    for name in (origin, target):
        _dialect(name) if name else None
    sys.exit(asyncio.run(run(origin, target, stay=stay, as_json=as_json)))


@main.command()
@CONFIG
@click.option("--listen", metavar="HOST:PORT", help="Listen here instead of where the configuration says.")
@click.option("--workers", type=click.IntRange(1), default=1, help="Processes; more than one needs PostgreSQL.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
def serve(config_path: str, listen: str | None, workers: int, log_level: str) -> None:
    """Serve."""
    if workers > 1:
        raise click.UsageError("several workers need a store that they can share; a SQLite store serves one")
    from gateway.serving import run

    sys.exit(run(_load(config_path, listen=listen), log_level))


@main.command()
@CONFIG
@click.option("--no-secrets", is_flag=True, help="Do not look for the secrets that the file refers to.")
def check(config_path: str, no_secrets: bool) -> None:
    """Check a configuration: every problem at once, each with its path and a suggestion."""
    from gateway.checking import warnings

    config = _load(config_path, secrets=not no_secrets)
    for warning in warnings(config):
        click.echo(f"{config_path}: warning: {warning}", err=True)
    count = f"{len(config.inbounds)} inbound, {len(config.upstreams)} upstreams, {len(config.routes)} routes"
    click.echo(f"{config_path}: good: {count}")


def _dialect(name: str) -> Any:
    from gateway.registry import dialects

    if name not in dialects():
        raise click.UsageError(f"no dialect {name!r}; there are {', '.join(dialects())}")
    return dialects()[name]


@main.command()
@click.option("--from", "origin", required=True, metavar="DIALECT", help="The dialect of the request.")
@click.option("--to", "target", metavar="DIALECT", help="The dialect of the upstream.")
@click.option("--operation", default="create", metavar="OPERATION", help="What the request asks for.")
@click.option("--config", "config_path", type=click.Path(), help="A configuration whose upstream is meant.")
@click.option("--upstream", "upstream_name", help="The upstream in that configuration.")
@click.argument("file", type=click.File("rb"), default="-")
def translate(
    origin: str, target: str | None, operation: str, config_path: str | None, upstream_name: str | None, file: Any
) -> None:
    """Show what an upstream would be sent for a request body, without any network."""
    from gateway.canonical import Operation
    from gateway.errors import Problem
    from gateway.inbound.limits import decode
    from gateway.rehearsal import command_in, rehearse

    dialect = _dialect(origin)
    upstream = _upstream(target, config_path, upstream_name)
    if operation not in list(Operation):
        raise click.UsageError(f"no operation {operation!r}; there are {', '.join(Operation)}")
    try:
        asked = command_in(dialect, Operation(operation), decode(file.read()))
        _print_json(rehearse(asked, dialect, upstream).as_json())
    except Problem as problem:
        import msgspec

        click.echo(msgspec.json.encode(dialect.problem(problem).body), err=True)
        sys.exit(1)


def _upstream(target: str | None, config_path: str | None, name: str | None) -> Any:
    from gateway.rehearsal import destination_of

    if config_path is None:
        if target is None:
            raise click.UsageError("say --to DIALECT, or --config FILE with --upstream NAME")
        return destination_of(_dialect(target))
    upstreams = _load(config_path, secrets=False).upstreams
    fitting = [one for one in upstreams.values() if name in (None, one.name) and target in (None, one.dialect.name)]
    if len(fitting) != 1:
        raise click.UsageError(f"say which with --upstream: {', '.join(upstreams)}")
    return fitting[0]


@main.command()
@JSON
def dialects(as_json: bool) -> None:
    """List the dialects, the operations each accepts and sends, and its paths."""
    from gateway.documents import dialect_rows
    from gateway.registry import dialects as all_dialects

    rows = dialect_rows(all_dialects().values())
    if as_json:
        _print_json(rows)
        return

    def plain() -> None:
        for row in rows:
            click.echo(f"{row['dialect']}: {row['title']}")
            click.echo(f"  accepts {', '.join(row['accepts'])}; sends {', '.join(row['sends'])}")
            for path in row["paths"]:
                click.echo(f"  {path}")

    cells = [
        [row["dialect"], row["title"], ", ".join(row["accepts"]), ", ".join(row["sends"]), "\n".join(row["paths"])]
        for row in rows
    ]
    _table(["dialect", "vendor", "accepts", "sends", "paths"], cells, plain)


# --- the outbox ----------------------------------------------------------------------------------------------


def _with_store(config_path: str, work: Callable[[Tx], Any], *, writes: bool) -> Any:
    """Runs something in the store of a configuration, beside the gateway that may be serving from it."""
    from gateway.errors import StoreError
    from gateway.operating import NotAsAsked
    from gateway.store.sqlite import SqliteStore

    config = _load(config_path, secrets=False)
    if not Path(config.store).exists():
        raise click.ClickException(f"there is no store at {config.store} yet")

    async def run() -> Any:
        async with SqliteStore(config.store, exclusive=False) as store:
            return await (store.write(work) if writes else store.read(work))

    try:
        return asyncio.run(run())
    except (StoreError, NotAsAsked) as error:
        raise click.ClickException(str(error)) from None


def _now() -> int:
    import time

    return time.time_ns() // 1_000_000


@main.command()
@CONFIG
@click.option("--state", type=click.Choice(["waiting", "delivered", "dead", "merged", "void"]))
@click.option("--alert", "alert_name", metavar="ID", help="Only those of one alert, by any id anybody used for it.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="The most to list.")
@JSON
def deliveries(config_path: str, state: str | None, alert_name: str | None, limit: int, as_json: bool) -> None:
    """List the outbox, newest first."""
    import msgspec

    from gateway.operating import of_alert
    from gateway.store import DeliveryFilter

    def work(tx: Tx) -> list[DeliveryRow] | None:
        alert = of_alert(tx, alert_name) if alert_name else None
        if alert_name and alert is None:
            return None
        return tx.deliveries(DeliveryFilter(state=state, alert=alert, limit=limit))

    rows = _with_store(config_path, work, writes=False)
    if rows is None:
        raise click.ClickException(f"nobody knows an alert by {alert_name!r}")
    if as_json:
        _print_json(msgspec.to_builtins(rows))
        return

    def plain() -> None:
        for row in rows:
            click.echo("\t".join(_cells(row)))

    _table(
        ["delivery", "state", "upstream", "operation", "alert", "attempts", "reason"], [_cells(r) for r in rows], plain
    )


def _cells(row: DeliveryRow) -> list[str]:
    alert = "" if row.alert is None else str(row.alert)
    return [str(row.id), row.state, row.upstream, row.operation, alert, str(row.attempts), row.reason]


@main.command()
@CONFIG
@click.argument("ids", nargs=-1, type=int)
@click.option("--dead", is_flag=True, help="Every dead delivery.")
@click.option("--upstream", "upstream_name", help="Every dead delivery of this upstream.")
@click.option("--force", is_flag=True, help="Even where the lane has delivered something newer since.")
def retry(config_path: str, ids: tuple[int, ...], dead: bool, upstream_name: str | None, force: bool) -> None:
    """Send dead deliveries again, in their old order."""
    from gateway.operating import chosen, send_again

    def work(tx: Tx) -> tuple[list[int], list[str]]:
        return send_again(tx, chosen(tx, ids, dead=dead, upstream=upstream_name), _now(), force=force)

    done, refused = _with_store(config_path, work, writes=True)
    _say_what_came(done, refused, "will be sent again")


@main.command()
@CONFIG
@click.argument("ids", nargs=-1, type=int)
@click.option("--dead", is_flag=True, help="Every dead delivery.")
@click.option("--upstream", "upstream_name", help="Every dead delivery of this upstream.")
@click.option("--because", required=True, metavar="TEXT", help="Why; it is kept with the delivery.")
def drop(config_path: str, ids: tuple[int, ...], dead: bool, upstream_name: str | None, because: str) -> None:
    """Take deliveries out of the outbox for good."""
    from gateway import operating

    def work(tx: Tx) -> tuple[list[int], list[str]]:
        return operating.drop(tx, operating.chosen(tx, ids, dead=dead, upstream=upstream_name), because, _now())

    done, refused = _with_store(config_path, work, writes=True)
    _say_what_came(done, refused, "dropped")


def _say_what_came(done: list[int], refused: list[str], what: str) -> None:
    for one in done:
        click.echo(f"{one}: {what}")
    for text in refused:
        click.echo(text, err=True)
    if not done and not refused:
        click.echo("nothing to do")
    if refused:
        sys.exit(1)


if __name__ == "__main__":
    main()
