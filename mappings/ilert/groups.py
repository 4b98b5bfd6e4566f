"""The webhook of Alertmanager or Grafana at the address of an ilert integration: a group of alerts.

At ilert a group is one alert: alerts that join or leave the group update it, and it is resolved when the group is.
Sources: https://docs.ilert.com/inbound-integrations/prometheus for that and for the labels that are read, and
https://prometheus.io/docs/alerting/latest/configuration/#webhook_config for the body. It must not know what stands
behind the gateway.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec
from msgspec import Struct

from gateway.errors import from_validation, invalid
from gateway.outcome import Json

SEVERITIES = {"critical": 1, "page": 1, "error": 2, "warning": 3, "info": 5}
"""ilert's severity for the usual values of the label `severity`."""
ROUTING_KEY = "ilert_routingkey"
CREDENTIALS = ("apiKey", "integrationKey")
"""Where the key may be besides the path, as in every event."""
SAID = ("status", "message", "commonLabels", "commonAnnotations", *CREDENTIALS)
"""Fields of a group that the event has elsewhere, or that are a credential; all others are kept as custom details."""
USED = ("status", "groupKey")
"""Fields of a group that is over which have a meaning here."""
OVER = "at ilert a group that is over is ended, and nothing else"


class Told(Struct, kw_only=True):
    """One alert of the group. Grafana may have an image of it."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] | None = None
    generatorURL: str | None = None
    imageURL: str | None = None

    @property
    def text(self) -> str:
        """The text of the rule: its description, message or summary, else the alert's name."""
        notes = self.annotations or {}
        said = (notes.get(name) for name in ("description", "message", "summary"))
        return next((text for text in said if text), self.labels.get("alertname", ""))


class Group(Struct, kw_only=True):
    """The group. Grafana writes a title and a message as well, by its users' templates."""

    groupKey: str | int
    status: Literal["firing", "resolved"]
    alerts: list[Told]
    commonLabels: dict[str, str] | None = None
    commonAnnotations: dict[str, str] | None = None
    title: str | None = None
    message: str | None = None


def is_group(body: dict[str, Json]) -> bool:
    """Whether a body is such a webhook."""
    return "groupKey" in body and "alerts" in body


def event(body: dict[str, Json]) -> dict[str, Json]:
    """Returns the ilert event for a group. Its key is a hash, as group keys may differ in case alone, which alert keys
    may not."""
    try:
        group = msgspec.convert(body, Group)
    except msgspec.ValidationError as error:
        raise from_validation(error) from None
    if not group.groupKey:
        raise invalid("groupKey", "is required")
    key = hashlib.sha256(str(group.groupKey).encode("utf8", "surrogatepass")).hexdigest()
    if group.status == "resolved":
        return {"eventType": "RESOLVE", "alertKey": key}
    kept = {name: value for name, value in body.items() if name not in SAID}
    said = {**_said(group), "customDetails": {**(group.commonAnnotations or {}), **kept}}
    return {"eventType": "ALERT", "alertKey": key, **{name: value for name, value in said.items() if value}}


def unread(body: dict[str, Json]) -> tuple[tuple[str, str], ...]:
    """Returns the fields of a group that its event does not contain, each with the reason."""
    if body.get("status") != "resolved":
        return tuple((name, "a credential") for name in CREDENTIALS if name in body)
    return tuple((name, OVER) for name in body if name not in USED)


def _said(group: Group) -> dict[str, Json]:
    """The event's fields for the alerts of the group that fire."""
    firing = [one for one in group.alerts if one.status == "firing"]
    words = (SEVERITIES.get(one.labels.get("severity", "").lower()) for one in firing)
    return {
        "summary": _summary(group, firing),
        "details": group.message or "\n".join(_line(one, group.commonLabels or {}) for one in firing),
        "severity": min((word for word in words if word), default=None),
        "labels": group.commonLabels,
        "routingKey": next((one.labels[ROUTING_KEY] for one in group.alerts if one.labels.get(ROUTING_KEY)), None),
        "links": _links(firing),
        "images": [{"src": one.imageURL} for one in firing if one.imageURL],
    }


def _summary(group: Group, firing: list[Told]) -> str:
    """The summary: the common one, else the alerts' names and their number."""
    notes = group.commonAnnotations or (firing[0].annotations if len(firing) == 1 else None) or {}
    if found := notes.get("summary") or group.title:
        return found
    names = list(dict.fromkeys(one.labels.get("alertname", "") for one in firing)) or [""]
    named = ", ".join(name for name in names if name) or str(group.groupKey)
    return f"{named} ({len(firing)} alerts)" if len(firing) > 1 else named


def _line(told: Told, common: dict[str, str]) -> str:
    """One alert of the group, after the labels that distinguish it from the others."""
    apart = ", ".join(f"{name}={value}" for name, value in sorted(told.labels.items()) if common.get(name) != value)
    return ": ".join(text for text in (apart, told.text) if text)


def _links(firing: list[Told]) -> list[Json]:
    """The link in the labels, and the one to the sender."""
    named = next((one.labels for one in firing if one.labels.get("url")), {})
    links: list[Json] = []
    if "url" in named:
        links.append({"href": named["url"], "text": named.get("urlLabel") or named["url"]})
    source = next((one.generatorURL for one in firing if one.generatorURL), None)
    return [*links, {"href": source, "text": "Source"}] if source else links
