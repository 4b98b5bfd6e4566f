"""Calls to PagerDuty: events and change events within its limits, and the outcomes of its answers.

Sources: https://developer.pagerduty.com/docs/events-api-v2/trigger-events/ for keys of at most 255 characters, and
https://developer.pagerduty.com/docs/events-api-v2/overview/ for bodies of at most 512 KB. It must not know who calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from gateway.canonical import Operation
from gateway.mapping.table import CARRIED
from gateway.mapping.values import cut_key
from gateway.mapping.wire import copied, get
from gateway.outcome import Call, Delivered, Held, Json, Rejected, Request, Sending
from mappings.pagerduty.words import is_about_the_key, reason

CHANGE = "change"
"""The `event_action` that marks a change event among a caller's own words; PagerDuty has a path for it instead."""
LONGEST_KEY = 255
LONGEST_SUMMARY = 1024
LARGEST = 512_000 - 1_000
"""Bytes of an event before its routing key is added. The page says 512 KB; other senders stop at 512,000 as well."""
NEVER_CUT = ("event_action", "dedup_key", "routing_key", "payload.summary", "payload.severity")
CUT = "…"
MOST_CUT = 16
"""How many fields are cut one by one, the largest first."""
WHY_CUT = f"cut: the event is larger than {LARGEST} bytes"
DETAILS = "payload.custom_details"
MEANS = {
    "payload.custom_details": "custom",
    "payload.custom_details.details": "details",
    "payload.source": "source",
    "payload.component": "resource",
    "payload.class": "category",
    "links": "links",
    "images": "images",
}
"""The canonical paths of what may be cut; everything else is PagerDuty's alone."""


def fitted_key(key: str) -> str:
    """Returns a key that PagerDuty accepts: a longer one is cut."""
    return key if len(key) <= LONGEST_KEY else cut_key(key, LONGEST_KEY)


def with_address(links: Any) -> Any:
    """Leaves out links with a blank address: PagerDuty refuses the whole event for one, with 400
    (https://github.com/prometheus/alertmanager/pull/2379)."""
    return [link for link in links if str(link.get("href")).strip()]


def https_only(images: Any) -> Any:
    """Leaves out images that are not served via HTTPS."""
    return [image for image in images if str(image.get("src")).lower().startswith("https://")]


# --- limits ------------------------------------------------------------------------------------------------


def within_limits(event: dict[str, Json]) -> tuple[dict[str, Json], dict[str, str]]:
    """Returns the event, its largest fields cut until PagerDuty accepts it, and the canonical paths of what was cut."""
    if _size(event) <= LARGEST:
        return event, {}
    event = copied(event)
    details = get(event, "payload.custom_details")
    # What is carried goes first: what the page says matters more.
    carried = details.pop(CARRIED, None) if isinstance(details, dict) else None
    lost = carried.get("fields") if isinstance(carried, dict) else None
    cut: dict[str, str] = dict.fromkeys(lost, WHY_CUT) if isinstance(lost, dict) else {}
    by_size = sorted(_fields(event), key=lambda field: _size(field[0][field[1]]), reverse=True)
    for holder, name, path in by_size[:MOST_CUT]:
        excess = _size(event) - LARGEST
        if excess <= 0:
            break
        _cut(holder, name, excess)
        cut[_meaning(path)] = WHY_CUT
    if _size(event) > LARGEST:
        cut |= {_meaning(path): WHY_CUT for _, _, path in by_size}
        event = _barest(event)
    return event, cut


def _barest(event: dict[str, Json]) -> dict[str, Json]:
    """Returns only what an event must have, for one that is too large by the number of its fields."""
    payload = event.get("payload")
    said = payload if isinstance(payload, dict) else {}
    least = {name: said[name] for name in ("summary", "source", "severity") if name in said}
    if isinstance(least.get("source"), str):
        least["source"] = least["source"][:1024]
    control: dict[str, Json] = {
        name: event[name] for name in ("routing_key", "event_action", "dedup_key") if name in event
    }
    return {**control, "payload": least}


def _fields(event: dict[str, Json]) -> Iterator[tuple[dict[str, Json], str, str]]:
    """Yields every field that may be cut: the object that holds it, its name there, and its path."""
    holders = {"": event, "payload.": event.get("payload"), "payload.custom_details.": get(event, DETAILS)}
    for prefix, holder in holders.items():
        for name in holder if isinstance(holder, dict) else ():
            path = prefix + name
            if path not in (*NEVER_CUT, "payload", DETAILS) and holder[name] != CUT:
                yield holder, name, path


def _cut(holder: dict[str, Json], name: str, excess: int) -> None:
    """Shortens a text by `excess` characters, each at least a byte, and marks the cut; empties a list; replaces
    anything else by the mark."""
    value = holder[name]
    left = len(value) - excess - len(CUT.encode()) if isinstance(value, str) else 0
    holder[name] = value[: max(0, left)] + CUT if isinstance(value, str) else [] if isinstance(value, list) else CUT


def _meaning(path: str) -> str:
    if path in MEANS:
        return MEANS[path]
    return "custom" if path.startswith(DETAILS) else f"extensions.pagerduty.{path}"


def _size(value: Json) -> int:
    return len(msgspec.json.encode(value))


# --- calls -------------------------------------------------------------------------------------------------


def _post(path: str, event: dict[str, Json], sending: Sending) -> Call:
    """Posts an event. A routing key that the route sets takes precedence over the upstream's own."""
    altered: dict[str, str] = {}
    own_key = sending.replaced.get("routing_key")
    if own_key:
        event = {"routing_key": own_key, **event}
        altered["routing_key"] = "set by the route"
    event, cut = within_limits(event)
    answer = yield Request(method="POST", path=path, body=event, accepts=frozenset({400}))
    if answer.status != 400:
        return Delivered(altered={**altered, **cut})
    why = f"400 {reason(answer)}".strip()
    if is_about_the_key(answer) and not own_key:
        return Held(reason=why, status=400)
    return Rejected(reason=why)


def _event(action: str, sending: Sending, fields: Mapping[str, Json]) -> Call:
    key = {"dedup_key": fitted_key(sending.key)} if sending.key is not None else {}
    return (yield from _post("/v2/enqueue", {**fields, "event_action": action, **key}, sending))


def _trigger(sending: Sending) -> Call:
    if sending.body.get("event_action") == CHANGE:
        return (yield from _change(sending))
    return (yield from _event("trigger", sending, sending.body))


def _change(sending: Sending) -> Call:
    """Sends a caller's change event as one, without the severity, class and key that it has as an alert only."""
    event = {name: value for name, value in sending.body.items() if name not in ("event_action", "dedup_key")}
    payload = event.get("payload")
    if isinstance(payload, dict):
        event["payload"] = {name: value for name, value in payload.items() if name not in ("severity", "class")}
    return (yield from _post("/v2/change/enqueue", event, sending))


def _fitted(words: Mapping[str, Json]) -> dict[str, Json]:
    """Returns what a caller says beside an acknowledgement or a resolve, without what PagerDuty would refuse: a trigger
    was made to fit, and what the same sender says at its end must not keep the incident open."""
    fitted: dict[str, Json] = copied(dict(words))
    for name, fit in (("links", with_address), ("images", https_only)):
        if isinstance(fitted.get(name), list):
            fitted[name] = fit([one for one in fitted[name] if isinstance(one, dict)])
    summary = get(fitted, "payload.summary")
    if isinstance(summary, str) and len(summary) > LONGEST_SUMMARY:
        fitted["payload"]["summary"] = summary[: LONGEST_SUMMARY - len(CUT)] + CUT
    return fitted


def _acknowledge(sending: Sending) -> Call:
    return (yield from _event("acknowledge", sending, _fitted(sending.verbatim or {})))


def _resolve(sending: Sending) -> Call:
    if sending.body.get("event_action") == CHANGE:  # it has no key there, and nothing to resolve
        return Delivered()
    return (yield from _event("resolve", sending, _fitted(sending.verbatim or {})))


SEND: dict[Operation, Callable[[Sending], Call]] = {
    Operation.CREATE: _trigger,
    Operation.UPDATE: _trigger,
    Operation.REOPEN: _trigger,
    Operation.ACKNOWLEDGE: _acknowledge,
    Operation.RESOLVE: _resolve,
}


def authorise(request: Request, credential: str) -> Request:
    """Adds the routing key, which is a field of the body."""
    return request.with_fields({"routing_key": credential})
