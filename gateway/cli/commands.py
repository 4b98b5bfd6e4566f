"""The command line: `alert-gateway`. Each command imports what it needs itself, so that none waits for unused modules.

It must not know any vendor; what a command does is elsewhere, here are only its options and output.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import click

from gateway import __version__
from gateway.cli.check import COMMANDS as CHECKING
from gateway.cli.outbox import COMMANDS
from gateway.cli.showing import CONFIG, JSON, load_config, print_anything, print_json, stand_in, table
from gateway.cli.trace import COMMANDS as TRACING


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="alert-gateway")
def main() -> None:
    """A translation proxy between alerting vendors."""
    stand_in()
    print_anything()


@main.command()
@click.option("--from", "origin", metavar="DIALECT", help="Only alerts of this dialect.")
@click.option("--to", "target", metavar="DIALECT", help="Only to this dialect.")
@click.option("--serve", "stay", is_flag=True, help="Keep running afterwards, to try it out.")
@JSON
def demo(origin: str | None, target: str | None, stay: bool, as_json: bool) -> None:
    """Send all vendors' documented examples to all vendors. This goes over real HTTP, to sandboxes on this machine."""
    from gateway.cli.demo import run

    for name in (origin, target):
        _dialect(name) if name else None
    sys.exit(asyncio.run(run(origin, target, stay=stay, as_json=as_json)))


@main.command()
@CONFIG
@click.option("--listen", metavar="HOST:PORT", help="Listen here instead of at the configured address.")
@click.option(
    "--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes; more than one needs PostgreSQL."
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="The least serious lines of the log.",
)
@click.option("--fd", type=int, hidden=True, help="A listening socket that was handed down.")
@click.option("--admin-fd", type=int, hidden=True, help="The operators', likewise.")
def serve(
    config_path: str, listen: str | None, workers: int, log_level: str, fd: int | None, admin_fd: int | None
) -> None:
    """Serve callers under a configuration. Logs go to standard error."""
    # Blocked until they are handled: a SIGHUP for a reload would end the process while it starts, and the first process
    # of a container never gets a SIGTERM that it has no handler for yet.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGTERM})
    from gateway.process.lean import spare

    spare()
    from gateway.config.loading import load
    from gateway.logs import configure
    from gateway.process.serving import begun, run
    from gateway.process.workers import supervise

    configure(log_level)
    config = load_config(config_path, listen=listen)
    if workers > 1:
        if not config.is_shared:
            raise click.UsageError("several workers need a PostgreSQL store; a SQLite store serves one process")
        arguments = ["serve", "--config", config_path, "--log-level", log_level]
        try:
            addresses = {"--fd": config.listen, **({"--admin-fd": config.admin} if config.admin else {})}
            arguments += ["--listen", listen] if listen else []
            sys.exit(supervise(arguments, workers, addresses, begun(config)))
        except OSError as error:
            raise click.ClickException(f"cannot listen: {error}") from None
    sys.exit(run(config, lambda: load(config_path, listen=listen), fd, admin_fd))


def _dialect(name: str, config: Any = None) -> Any:
    from gateway.registry import dialects

    known = {**dialects(), **(config.own if config else {})}
    if name not in known:
        raise click.UsageError(f"no dialect {name!r}; there are {', '.join(known)}")
    return known[name]


@main.command()
@click.option("--from", "origin", required=True, metavar="DIALECT", help="The dialect of the request.")
@click.option("--to", "target", metavar="DIALECT", help="The dialect of the upstream.")
@click.option(
    "--operation", default="create", show_default=True, metavar="OPERATION", help="What the request asks for."
)
@click.option("--config", "config_path", type=click.Path(), help="The configuration that has the upstream.")
@click.option("--upstream", "upstream_name", help="The upstream in that configuration.")
@click.argument("file", type=click.File("rb"), default="-")
def translate(
    origin: str, target: str | None, operation: str, config_path: str | None, upstream_name: str | None, file: Any
) -> None:
    """Show what an upstream would be sent for a request body. Nothing is sent."""
    from gateway.canonical import Operation
    from gateway.errors import Problem
    from gateway.inbound.limits import decode
    from gateway.rehearsal import command_in, rehearse

    config = load_config(config_path, secrets=False) if config_path is not None else None
    dialect = _dialect(origin, config)
    upstream = _upstream(target, config, upstream_name)
    if operation not in list(Operation):
        raise click.UsageError(f"no operation {operation!r}; there are {', '.join(Operation)}")
    try:
        asked = command_in(dialect, Operation(operation), decode(file.read()))
        print_json(rehearse(asked, dialect, upstream).as_json())
    except Problem as problem:
        import msgspec

        click.echo(msgspec.json.encode(dialect.problem(problem).body), err=True)
        sys.exit(1)


def _upstream(target: str | None, config: Any, name: str | None) -> Any:
    from gateway.rehearsal import bare_upstream

    if config is None and (target is None or name is not None):
        raise click.UsageError("give --to DIALECT, or --config FILE with --upstream NAME")
    upstreams = config.upstreams if config else {}
    fitting = [one for one in upstreams.values() if target in (None, one.dialect.name)]
    if name is not None:
        return _named_upstream(upstreams, fitting, name)
    if target is not None and not fitting:
        return bare_upstream(_dialect(target, config))
    if len(fitting) != 1:
        raise click.UsageError(f"choose one with --upstream; there are {', '.join(upstreams) or 'none'}")
    return fitting[0]


def _named_upstream(upstreams: Any, fitting: list[Any], name: str) -> Any:
    """The upstream of this name, which must be one of the `fitting` ones."""
    from gateway.config.problems import near

    if name not in upstreams:
        hint = near(name, upstreams) or f"; there are {', '.join(upstreams) or 'none'}"
        raise click.UsageError(f"no upstream {name!r}{hint}")
    if upstreams[name] not in fitting:
        raise click.UsageError(f"--to: upstream {name!r} speaks {upstreams[name].dialect.name}")
    return upstreams[name]


@main.command()
@click.option("--config", "config_path", type=click.Path(), help="A configuration, to list its own dialects too.")
@JSON
def dialects(config_path: str | None, as_json: bool) -> None:
    """List the dialects, with their operations and paths."""
    from gateway.documents import dialect_rows
    from gateway.registry import dialects as all_dialects

    own = load_config(config_path, secrets=False).own if config_path is not None else {}
    rows = dialect_rows([*all_dialects().values(), *own.values()])
    if as_json:
        print_json(rows)
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
    table(["dialect", "vendor", "accepts", "sends", "paths"], cells, plain)


def _end_tidily() -> None:
    """Makes SIGTERM, by which a timer or a cluster ends a command, act like Ctrl-C, so that unfinished files are
    removed: they would fill the disk."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@main.command()
@CONFIG
@click.argument("file", type=click.Path())
def backup(config_path: str, file: str) -> None:
    """Copy the store to a new FILE while a gateway serves. The copy is consistent and whole."""
    from pathlib import Path

    from gateway.errors import StoreError
    from gateway.store.copying import copy_store

    _end_tidily()
    config = load_config(config_path, secrets=False)
    if config.is_shared:
        raise click.ClickException(
            f"the store is in PostgreSQL; use its own backup: pg_dump --format=custom --file={file} DATABASE"
        )
    try:
        copied = copy_store(config.store, Path(file))
    except StoreError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{file}: {copied.size:,} bytes, {copied.waiting:,} deliveries wait in it")


@main.command()
@CONFIG
@click.option(
    "--to",
    "target",
    metavar="URL",
    help="The target: postgresql://user@host/name or sqlite:///absolute/path, or env:NAME or file:PATH with one.",
)
@click.option("--undo", is_flag=True, help="Let a gateway serve again from a store that was moved.")
def move(config_path: str, target: str | None, undo: bool) -> None:
    """Move everything in the store to one of the other engine. That must be empty, and no gateway may serve from
    either.

    Ids, open alerts, what waits and the statistics of callers are moved too. The old store stays as it is, marked so
    that no gateway serves from it any more.
    """
    import logging

    from gateway.admin import moving
    from gateway.errors import StoreError

    _end_tidily()
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # a lost connection is reported once, in our words
    if (target is None) == (not undo):
        raise click.UsageError("give --to URL, or --undo")
    config = load_config(config_path, secrets=False)
    try:
        if target is None:
            done = moving.undo(config.store)
            click.echo(
                f"a gateway may serve from {done.origin} again, and none may from {done.to}; what {done.to} has sent "
                "since the move is sent again"
            )
            return
        outcome = moving.move(config.store, target, lambda text: click.echo(text, err=True))
    except moving.NotAPlace as error:
        raise click.UsageError(f"--to: {error}") from None
    except StoreError as error:
        raise click.ClickException(str(error)) from None
    for name, count in outcome.rows.items():
        click.echo(f"{name}: {count:,}")
    moved = outcome.move
    when = f"everything was moved there at {moved.day} already" if outcome.is_repeated else "everything is there"
    click.echo(f"{moved.to}: {when}, {outcome.waiting:,} deliveries wait in it; let `store` name it, and start")


# --- before it wakes anybody, and the outbox -----------------------------------------------------------------


for _command in (*CHECKING, *COMMANDS, *TRACING):
    main.add_command(_command)
