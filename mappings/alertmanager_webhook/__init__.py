"""Alertmanager's webhook, version 4, as a dialect of its own: for upstreams that take it, and callers that send it.

Source: https://prometheus.io/docs/alerting/latest/configuration/#webhook_config. The body is that of
`mappings.alertmanager.webhook`, and alerts are identified by their labels as there. It must not know what stands behind
the gateway.
"""

from __future__ import annotations

from gateway.asked import Batch, Incoming
from gateway.canonical import Operation
from gateway.dialect import Dialect, Outbound, Route
from gateway.mapping.rows import Dropped
from gateway.mapping.table import Mapping
from mappings.alertmanager.alert import SEVERITY, SOURCE, STARTED, said_by
from mappings.alertmanager.calls import authorise
from mappings.alertmanager.webhook import (
    BESIDE,
    KEPT,
    WEBHOOK,
    Kept,
    Notification,
    Notified,
    Told,
    group_of,
    notified,
    reason,
    refuse_others,
    teller,
    told_in_version_4,
)
from mappings.alertmanager.words import credentials, done, problem

NAME = "alertmanager_webhook"
ALERT = Mapping(
    NAME,
    "occurrence",
    Kept,
    rows=(
        Dropped("status", why="selects the operation; not part of the alert", control=True),
        said_by(SEVERITY),
        STARTED,
        Dropped("endsAt", why="only says whether the alert has ended"),
        SOURCE,
        Dropped("fingerprint", why="computed from the labels", control=True),
        KEPT,
    ),
    container="annotations",
    free="custom",
    details="annotations.description",
    holds_text=True,
)
TOLD = Told(rows=ALERT, alert=Notified, beside=BESIDE)


def _notified(incoming: Incoming) -> Batch:
    return notified(refuse_others(incoming.body), TOLD, incoming.now)


def _route(path: str) -> Route:
    return Route(
        method="POST",
        path=path,
        operations=(Operation.CREATE, Operation.UPDATE, Operation.RESOLVE),
        read=_notified,
        answer=done,
        summary="Post a notification of a group of alerts",
        source=WEBHOOK,
        body=Notification,
        at_root=False,
    )


DIALECT = Dialect(
    name=NAME,
    title="Alertmanager webhook",
    source=WEBHOOK,
    kind="occurrence",
    mapping=ALERT,
    routes=(_route("/webhook"), _route("/")),
    outbound=Outbound(
        addressed_by="key",
        calls=teller(told_in_version_4),
        nearest={Operation.DELETE: Operation.RESOLVE},
        authorise=authorise,
        needs_key=False,
        reopens_anew=True,
        whole_url=True,
        reason=reason,
        group=group_of,
    ),
    credentials=credentials,
    problem=problem,
    shown_id=str,
    url="http://receiver.example.com/webhook",
    client_setting="`url` of `webhook_configs:` → `http://gateway/alertmanager_webhook/webhook`",
    remark=(
        "An upstream's `url` is the whole address of a receiver of Alertmanager's webhook. It gets one alert with each "
        "request, firing and then resolved, with the labels as first sent. Its `key`, if it asks for one, is a bearer "
        "token, or `user:password` of Basic authentication. At an upstream of the same dialect the caller's own group "
        "(`groupKey`, `commonLabels` and the rest) is kept around each of its alerts, unless that made more than 4 MiB "
        "of one request."
    ),
)
