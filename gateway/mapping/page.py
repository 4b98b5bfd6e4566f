"""The details of a page: the sender's text, and lines with what a responder wants to know and the target has no field
for. It must not know any vendor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from gateway.canonical import Flat, Link
from gateway.mapping.remembering import Remembered
from gateway.mapping.saying import Saying
from gateway.mapping.values import iso_seconds

RUNBOOK = "runbook_url"
LONGEST_LABELS = 500
MOST_LINES = 6
"""Lines below the sender's text on a page. What the sender said has precedence over the link to the gateway's trace."""
SEVERITY_NAMES = ("emergency", "alert", "critical", "error", "warning", "notice", "informational", "debug")


def page_text(saying: Saying, inexact: frozenset[str], hush: str, public_url: str = "") -> tuple[str, tuple[int, int]]:
    """The details of a page: the late note, the sender's text, then at most six lines of what has no field.

    Returns the text, and the start and end of the sender's own part of it.
    """
    before = [line for line in (saying.late, f"This wakes nobody: {hush}." if hush else "") if line]
    own = saying.flat.get("details") or ""
    lines = [f"{name}: {value}" for name, value in _facts(saying.flat, inexact)][: MOST_LINES - 1]
    if public_url and saying.id is not None and len(lines) < MOST_LINES - 1:
        lines.append(f"trace: {public_url}/-/alerts/{saying.id}")
    when = f", {iso_seconds(saying.at)}" if saying.at else ""
    lines.append(f"via: {saying.origin}/{saying.caller}{when}")
    start = "".join(f"{line}\n\n" for line in before)
    apart = "\n" * max(0, 2 - (len(own) - len(own.rstrip("\n")))) if own else ""
    text = start + own + apart + "\n".join(lines)
    return text, (len(start), len(start) + len(own))


def _facts(flat: Flat, inexact: frozenset[str]) -> Iterable[tuple[str, str]]:
    """What a responder wants to know and the target has no field for, each with its name and as a single line."""
    for name, told in _wanted[inexact,]:
        value = told(flat)
        text = " ".join(str(value).split()) if value is not None else ""
        if text:
            yield name, text


def _facts_about(inexact: frozenset[str]) -> Sequence[tuple[str, Callable[[Flat], str | None]]]:
    """The facts that need a line where these paths are not shown in full."""
    return [(name, told) for name, (paths, told) in FACTS.items() if not inexact.isdisjoint(paths)]


_wanted = Remembered(_facts_about)


def _labels(flat: Flat) -> str | None:
    """The labels whose values are not on the page already: for some senders only they tell one alert from another."""
    told = {str(flat.get(path)) for path in ("summary", "team", "resource", "source")}
    labels = {name: value for name, value in (flat.get("labels") or {}).items() if value not in told}
    return ", ".join(f"{name}={value}" for name, value in labels.items() if name != RUNBOOK)[:LONGEST_LABELS] or None


def _runbook(flat: Flat) -> str | None:
    """The address of the runbook, which some senders give as a label, some as a custom field."""
    return (flat.get("labels") or {}).get(RUNBOOK) or (flat.get("custom") or {}).get(RUNBOOK)


def _link(flat: Flat) -> str | None:
    """The first link, with its text and the number of further ones."""
    links: Sequence[Link] = flat.get("links") or ()
    if not links:
        return None
    first = links[0]
    called = f" ({first.text})" if first.text and first.text != first.href else ""
    return f"{first.href}{called}" + (f", and {len(links) - 1} more" if links[1:] else "")


def _severity(flat: Flat) -> str | None:
    """A severity as its sender gave it, with the name that RFC 5424 has for it."""
    severity = flat.get("severity")
    return None if severity is None else f"{severity} ({SEVERITY_NAMES[severity]})"


def _whereabouts(flat: Flat) -> str | None:
    """Resource and source: for some vendors the one is a part of a machine, and the other is the machine."""
    named = dict.fromkeys(str(flat[path]) for path in ("resource", "source") if flat.get(path))
    return " on ".join(named) or None


FACTS: Mapping[str, tuple[tuple[str, ...], Callable[[Flat], str | None]]] = {
    "severity": (("severity",), _severity),
    "team": (("team",), lambda flat: flat.get("team")),
    "resource": (("resource", "source"), _whereabouts),
    "runbook": (("labels", "custom"), _runbook),
    "link": (("links",), _link),
    "labels": (("labels",), _labels),
}
"""The lines of a page by name, each with its paths and its text; a line is left out where the target shows all of its
paths."""
OF_FACTS = frozenset(path for paths, _ in FACTS.values() for path in paths)
"""The paths of all these lines."""
