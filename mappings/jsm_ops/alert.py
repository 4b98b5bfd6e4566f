"""Jira Service Management's alert: Opsgenie's rows, except for the fields that have other names here.

Source: https://developer.atlassian.com/cloud/jira/service-desk-ops/rest/v2/api-group-alerts/. Extensions that both APIs
have are kept under Opsgenie's name, so that neither loses the other's. It must not know who calls, nor what is sent
when.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType

from gateway.mapping.rows import Extension, row
from gateway.mapping.table import Mapping
from mappings.opsgenie.alert import MOST_DETAILS, RESPONDERS, VISIBLE_TO, AlertFields, rows

NAME = "jsm_ops"
EXTRA = "extraProperties"
CALLED = "by id only; responders without an id are left out"
SHOWN = "by id only; teams and users without an id are left out"


class Alert(AlertFields, kw_only=True):
    """An alert of this API."""

    extraProperties: dict[str, Any] | UnsetType = UNSET
    integrationType: str | UnsetType = UNSET
    integrationName: str | UnsetType = UNSET


def by_id(people: Any) -> Any:
    """Returns those teams, users and the like that have an id: this API does not find them by name."""
    if not isinstance(people, list):
        return people
    return [one for one in people if isinstance(one, dict) and isinstance(one.get("id"), str) and one["id"]]


ALERT = Mapping(
    NAME,
    "occurrence",
    Alert,
    rows=(
        *rows(
            EXTRA,
            row("responders", RESPONDERS, fit=by_id, why=CALLED),
            row("visibleTo", VISIBLE_TO, side="request", fit=by_id, why=SHOWN),
        ),
        Extension("integrationType", side="reply"),
        Extension("integrationName", side="reply"),
    ),
    container=EXTRA,
    details="description",
    holds_text=True,
    room=MOST_DETAILS,
)
