"""`trace`: the whole road of the alerts that anybody knows by an id, a key or some words, to be read at night on a
narrow screen. The search is in `gateway.admin.tracing`; here are only options and output. It must not know any vendor.
"""

from __future__ import annotations

import contextlib
import sys
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from gateway.cli.place import Place, placed
from gateway.cli.showing import JSON, print_json

if TYPE_CHECKING:
    from gateway.admin.remote import Remote
    from gateway.admin.tracing import Sent, There, Traced, Tried
    from gateway.config.config import Config
    from gateway.store import Tx

TROUBLE = 2
"""The exit status where the question could not be asked; 1 means that nobody knows such an alert."""
NARROWEST, WIDEST = 40, 100
FEW = 6
"""Attempts of a delivery that are printed; `--json` has more."""
_COLOURS = {"dead": "red", "waiting": "yellow", "again": "yellow", "standby": "yellow", "delivered": "green"}


class _Unasked(click.ClickException):
    exit_code = TROUBLE


@click.command()
@placed
@click.argument("name", metavar="X")
@JSON
def trace(place: Place, name: str, as_json: bool) -> None:
    """Show the full history of every alert known as X. X is any id or key, or words of the summary; newest first, at
    most twenty. Exit 1 only if there is none."""
    import msgspec

    from gateway.admin.tracing import NOTHING, SEARCHED, Traced

    with _trouble():
        found = place.ask(lambda remote: _there(remote, name), lambda tx, config, now: _here(tx, config, name))
    if as_json:
        print_json(found)
    else:
        roads = msgspec.convert(found["alerts"], list[Traced])
        for number, road in enumerate(roads):
            click.echo("\n".join(([""] if number else []) + lines(road, _width())))
        if not roads:
            click.echo(NOTHING.format(name), err=True)
    if found["is_cut_short"]:
        click.echo(f"only the newest {SEARCHED:,} alerts were searched for these words", err=True)
    if not found["alerts"]:
        sys.exit(1)


@contextlib.contextmanager
def _trouble() -> Iterator[None]:
    """Turns failures to ask into exit status 2, as 1 means that there is no such alert."""
    try:
        yield
    except click.UsageError:
        raise
    except click.ClickException as error:
        raise _Unasked(error.message) from None
    except SystemExit:
        sys.exit(TROUBLE)


def _there(remote: Remote, name: str) -> Any:
    from gateway.admin.operating import NotAsAsked

    # A name of dots alone would be taken for a relative path segment.
    segment = quote(name, safe="", errors="replace").replace(".", "%2E")
    try:
        return remote.get(f"/-/alerts/{segment}")
    except NotAsAsked as refused:
        if refused.answer is not None and refused.answer.get("alerts") == []:
            return refused.answer
        raise


def _here(tx: Tx, config: Config, name: str) -> Any:
    from gateway.admin.tracing import Search, as_json, spoken, traced

    search = Search(name, spoken(config))
    while search.look(tx):
        pass
    roads = [traced(tx, alert, search.found[alert]) for alert in search.newest_first()]
    return as_json([road for road in roads if road is not None], search)


# --- for people ----------------------------------------------------------------------------------------------


def _width() -> int:
    import shutil

    return max(NARROWEST, min(WIDEST, shutil.get_terminal_size((80, 24)).columns))


def lines(road: Traced, width: int) -> list[str]:
    """A road as lines of `width` characters at most, except for words that are longer. Times are UTC."""
    day = road.opened[:10]
    said = [*_wrapped(road.summary or "(no summary)", 0, width), *_about(road, width), *_ids(road, width), "received"]
    if road.earlier:
        said.append(f"  … {road.earlier} earlier commands …")
    for one in road.received:
        by = f"{one.dialect}/{one.caller}" + (f" via {len(one.via)} gateways" if one.via else "")
        said += _wrapped(f"{_clock(one.at, day)} {one.operation} by {by}, request {one.request}", 2, width)
        said += _wrapped(f'"{one.comment}"', 4, width) if one.comment else []
        said += _wrapped(f"taken back: {one.refused}", 4, width) if one.refused else []
    for route in road.routes:
        said += _wrapped(f"route {route.route}: {route.why}", 0, width)
    for there in road.upstreams:
        said += _at_upstream(there, day, width)
    if not road.upstreams:
        said.append("goes to no upstream")
    return said


def _about(road: Traced, width: int) -> list[str]:
    from gateway.mapping.page import SEVERITY_NAMES

    severity = "" if road.severity is None else f", severity {road.severity} ({SEVERITY_NAMES[road.severity]})"
    status = "deleted" if road.is_deleted else road.status
    head = f"{status}{severity}, from {road.dialect}/{road.caller}"
    return _wrapped(f"{head}, opened {road.opened[:19].replace('T', ' ')}Z", 0, width)


def _ids(road: Traced, width: int) -> list[str]:
    """All ids of the alert, each once."""
    names = ([f"alert {road.alert}"] if road.alert is not None else []) + ([f"key {road.key}"] if road.key else [])
    names += [f"caller's id {road.shown}"] if road.shown not in ("", str(road.alert)) else []
    names += [f"{party} {' '.join(theirs)}" for party, theirs in road.ids.items() if theirs != [road.shown]]
    return _wrapped("; ".join(names), 0, width)


def _at_upstream(there: There, day: str, width: int) -> list[str]:
    names = ([f"key {there.key}"] if there.key else []) + [f"{kind} {name}" for kind, name in there.ids.items()]
    names += [f"instead of {', '.join(there.instead_of)}"] if there.instead_of else []
    head = f"{there.upstream}: {there.state}" + (f", {', '.join(names)}" if names else "")
    said = _coloured(_wrapped(head, 0, width), there.state)
    for one in there.deliveries:
        said += _delivery(one, day, width)
    return said


def _delivery(one: Sent, day: str, width: int) -> list[str]:
    told = f"{_clock(one.at, day)} {one.operation}: {one.state}" + (f", {one.code}" if one.code else "")
    told += f", next try {_clock(one.due, day)}" if one.due else ""
    told += f", {one.waits_for}" if one.waits_for else ""
    said = _coloured(_wrapped(f"{told} (delivery {one.delivery})", 2, width), one.state)
    last = one.tried[-1].reason if one.tried else ""
    said += _wrapped(one.reason, 4, width) if one.reason and one.reason != last else []
    shown = one.tried if len(one.tried) <= FEW else [one.tried[0], *one.tried[1 - FEW :]]
    left_out = max(one.attempts, len(one.tried)) - len(shown)  # receipts are told beside their attempts
    reason = ""
    for number, attempt in enumerate(shown):
        if number == 1 and left_out > 0:
            said.append(f"    … {left_out} more …")
        said += _attempt(attempt, day, width, says_why=attempt.reason != reason)
        reason = attempt.reason
    for word, fields in (("approximated", one.approximated), ("kept here alone", one.kept)):
        told = "; ".join(f"{name} ({why})" if why else name for name, why in fields.items())
        said += _wrapped(f"{word}: {told}", 4, width) if fields else []
    return said


def _attempt(one: Tried, day: str, width: int, *, says_why: bool) -> list[str]:
    """The lines of an attempt; the reason is left out where it is that of the attempt before."""
    took = f"{one.took_ms} ms" if one.took_ms < 1000 else f"{one.took_ms / 1000:.1f} s"
    status = str(one.status) if one.status is not None else "no status"
    ended = one.code or one.outcome
    text = f"#{one.number} {_clock(one.at, day)} {status} in {took}: {ended}"
    return _wrapped(text + (f", {one.reason}" if one.reason and says_why else ""), 4, width)


def _clock(at: str | None, day: str) -> str:
    """The time of day, with the date where that differs from the alert's."""
    assert at is not None
    return at[11:19] if at[:10] == day else f"{at[:10]} {at[11:19]}"


def _coloured(said: list[str], state: str) -> list[str]:
    """The lines with the state in its colour, on a terminal."""
    if not sys.stdout.isatty():
        return said
    return [said[0].replace(f": {state}", f": {click.style(state, fg=_COLOURS.get(state))}", 1), *said[1:]]


def _wrapped(text: str, indent: int, width: int) -> list[str]:
    """Wraps text, without control characters, which would move the cursor or colour the screen."""
    clean = "".join(char if char.isprintable() else " " for char in text)
    return textwrap.wrap(
        clean,
        width,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 2),
        break_long_words=False,
        break_on_hyphens=False,
    )


COMMANDS = (trace,)
