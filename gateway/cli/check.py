"""The commands that try a configuration before it wakes anybody: `check`, `explain` and `drill`.

What they do is in `gateway.cli.checking`, `gateway.cli.trying`, `gateway.cli.connecting`, `gateway.cli.explaining` and
`gateway.cli.drilling`; here are only their options and output. It must not know any vendor.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.showing import CONFIG, JSON, load_config, print_json, printable

if TYPE_CHECKING:
    from gateway.cli.explaining import Explained, Reached
    from gateway.config.config import Config, Inbound


@click.command()
@CONFIG
@click.option("--no-secrets", is_flag=True, help="Do not resolve the secrets that the file refers to.")
@click.option("--connect", is_flag=True, help="Prove address, TLS and key of each upstream; nothing is created.")
def check(config_path: str, no_secrets: bool, connect: bool) -> None:
    """List every problem of a configuration, and run its tests. Shows too what each caller's alerts become."""
    from gateway.cli.checking import ladders, warnings
    from gateway.cli.trying import failures

    if connect and no_secrets:
        raise click.UsageError("--connect needs the secrets: leave --no-secrets out")
    config = load_config(config_path, secrets=not no_secrets)
    for line in ladders(config):
        click.echo(line)
    for warning in warnings(config):
        click.echo(f"{config_path}: warning: {warning}", err=True)
    failed = list(failures(config))
    for failure in failed:
        click.echo(f"{config_path}: {failure}", err=True)
    is_proved = _connect(config) if connect else True
    if failed or not is_proved:
        sys.exit(1)
    numbers = {"inbound": config.inbounds, "upstream": config.upstreams, "route": config.routes}
    counts = [_count(len(found), name) for name, found in numbers.items()]
    counts += [f"{_count(len(config.tests), 'test')} passed"] if config.tests else []
    click.echo(f"{config_path}: good: {', '.join(counts)}")


def _count(number: int, name: str) -> str:
    return f"{number} {name}" + ("s" if number != 1 else "")


def _connect(config: Config) -> bool:
    from gateway.cli.connecting import prove

    proofs = asyncio.run(prove(config.upstreams.values()))
    for proof in proofs:
        click.echo(printable(f"upstreams.{proof.as_line()}"), err=proof.is_good is False)
    return all(proof.is_good is not False for proof in proofs)


@click.command()
@CONFIG
@click.option("--from", "origin", required=True, metavar="DIALECT", help="The dialect of the request.")
@click.option("--caller", metavar="NAME", help="The caller that sends it; not needed if there is only one.")
@click.argument("file", type=click.File("rb"), default="-")
@JSON
def explain(config_path: str, origin: str, caller: str | None, file: Any, as_json: bool) -> None:
    """Show what becomes of a request; nothing is sent. Lists the alert, the route and why, the request for each
    upstream, and who would be woken."""
    from gateway.cli.explaining import explain as explained_by
    from gateway.errors import Problem
    from gateway.inbound.limits import decode

    config = _configured(config_path)
    inbound = config.inbounds.get(origin)
    if inbound is None:
        raise click.UsageError(f"no [inbound.{origin}]; there are {', '.join(config.inbounds)}")
    who = _known(inbound, caller) if caller else _usual(inbound)
    try:
        found = explained_by(config, inbound, who, decode(file.read()))
    except Problem as problem:
        raise click.ClickException(problem.message) from None
    if as_json:
        print_json(found.as_json())
    else:
        for line in _lines(found):
            click.echo(line)
    if found.refused or any(one.refused for one in found.reached[:1]):
        sys.exit(1)


def _configured(path: str) -> Config:
    """The configuration with its secrets, so that callers and keys are known; without them if they cannot be read."""
    from gateway.config.loading import load
    from gateway.errors import ConfigurationError

    try:
        return load(path)
    except ConfigurationError:
        return load_config(path, secrets=False)


def _known(inbound: Inbound, caller: str) -> str:
    """Checks that the inbound has this caller, and returns it: a misspelt name would be explained like a real one."""
    names = sorted({*inbound.callers, *inbound.keyring.names()})
    if names and caller not in names and not (inbound.anonymous and caller == "anonymous"):
        raise _nobody(f"{inbound.dialect.name} has no caller", caller, names)
    return caller


def _known_somewhere(config: Config, caller: str) -> None:
    """Refuses a caller that no inbound has: a drill under an unknown name could be routed differently from the one that
    is meant."""
    inbounds = config.inbounds.values()
    names = sorted({name for one in inbounds for name in (*one.callers, *one.keyring.names())})
    if names and caller not in names and not (caller == "anonymous" and any(one.anonymous for one in inbounds)):
        raise _nobody("there is no caller", caller, names)


def _nobody(said: str, caller: str, names: list[str]) -> click.UsageError:
    from gateway.config.problems import near, some

    return click.UsageError(f"{said} {caller!r}{near(caller, names) or f'; there are {some(names)}'}")


def _usual(inbound: Inbound) -> str:
    from gateway.cli.explaining import usual_caller
    from gateway.config.problems import some

    who = usual_caller(inbound)
    if who is None:
        raise click.UsageError(f"choose one with --caller; there are {some(inbound.keyring.names())}")
    return who


def _lines(found: Explained) -> list[str]:
    lines = [f"from {found.dialect}/{found.caller}" + (f": {found.operation}" if found.operation else "")]
    lines += [f"  {path}: {_short(value)}" for path, value in found.as_json()["alert"].items()]
    lines += [f"route {name}: {why}" for name, why in found.why]
    lines += [f"refused: {found.refused}"] if found.refused else []
    for one in found.reached:
        lines += _reached(one)
    if found.operation and not found.refused and not found.reached:
        lines.append("goes to no upstream")
    return lines


def _reached(one: Reached) -> list[str]:
    late = f", after {one.choice.after:g} s if not taken by then" if one.choice.after is not None else ""
    lines = [f"→ {one.choice.upstream} (route {one.choice.route}{late})"]
    if one.refused:
        return [*lines, f"  refused: {one.refused}"]
    if one.sent:
        lines += [f"  {request.as_line()}" for request in one.sent.requests]
        lines += [
            f"  {fate.field}: {fate.fate}"
            + (f" → {fate.to}" if fate.to else "")
            + (f" ({fate.why})" if fate.why else "")
            for fate in one.sent.report
        ]
    return [*lines, f"  {one.says}"]


def _short(value: Any) -> str:
    import msgspec

    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 200 else text[:199] + "…"


@click.command()
@CONFIG
@click.argument("route_name", metavar="ROUTE")
@click.option("--wake", is_flag=True, help="Send it with the severity of a page; without this it wakes nobody.")
@click.option("--caller", metavar="NAME", help="The caller in whose name it is sent; routes may depend on it.")
@click.option("--within", default="30s", show_default=True, metavar="DURATION", help="How long to wait for delivery.")
def drill(config_path: str, route_name: str, wake: bool, caller: str | None, within: str) -> None:
    """Send a marked alert through a route, and resolve it. It goes to the real upstreams; their answers are awaited.
    Exit 1 if one did not take it."""
    from gateway.cli.drilling import drill as drilled_by
    from gateway.config.values import some_time
    from gateway.errors import Problem
    from gateway.logs import configure

    configure("critical")
    config = load_config(config_path)
    route = next((one for one in config.routes if one.name == route_name), None)
    if route is None:
        raise click.UsageError(f"no route {route_name!r}; there are {', '.join(one.name for one in config.routes)}")
    if caller:
        _known_somewhere(config, caller)
    try:
        seconds = some_time(within)
    except ValueError as error:
        raise click.UsageError(f"--within: {error}") from None
    click.echo(f"waiting for the upstreams, for {within} at most, and then for the end of the drill", err=True)
    try:
        found = asyncio.run(drilled_by(config, route, caller or "drill", wake=wake, within=seconds))
    except Problem as problem:
        raise click.ClickException(problem.message) from None
    except asyncio.CancelledError:
        raise click.Abort from None
    for one in found:
        for line in one.lines():
            click.echo(printable(line))
    if any(one.row.state not in ("delivered", "merged") for one in found):
        sys.exit(1)


COMMANDS = (check, explain, drill)
