"""Grafana's webhook, version 1, both ways: groups of alerts that are identified by their fingerprints.

Source: https://grafana.com/docs/grafana/latest/alerting/configure-notifications/manage-contact-points/integrations/webhook-notifier/.
Its body is a variant of that in `mappings.alertmanager.webhook`; rows are in `alert`, refusals and the check of
signatures in `words`. It must not know what stands behind the gateway.
"""

from __future__ import annotations

from gateway.asked import Answer, Batch, Incoming, Reply
from gateway.canonical import Operation
from gateway.dialect import Dialect, Outbound, Route
from gateway.mapping.wire import Wire
from mappings.alertmanager.calls import authorise
from mappings.alertmanager.webhook import BESIDE, Telling, Told, group_of, notification, notified, reason, teller
from mappings.grafana.alert import ALERT, BESIDES, NAME, Alert, Notification, without_private
from mappings.grafana.words import PAGE, Settings, credentials, problem, refuse_others, verify

TOLD = Told(rows=ALERT, alert=Alert, beside={**BESIDE, **BESIDES})
EMPTY: Wire = {
    "labels": {},
    "annotations": {},
    "startsAt": "",
    "endsAt": "",
    "generatorURL": "",
    "fingerprint": "",
    "silenceURL": "",
    "dashboardURL": "",
    "panelURL": "",
    "values": None,
    "valueString": "",
}
"""The fields that every alert of the vendor's has, with their values where nothing is said."""


def _notified(incoming: Incoming) -> Batch:
    return notified(refuse_others(incoming.body), TOLD, incoming.now)


def _envelope(telling: Telling) -> Wire:
    """Returns the body as Grafana posts it. Title and message, which its users' templates make there, say what is
    wrong."""
    notes = telling.alert.get("annotations", {})
    word = "RESOLVED" if telling.is_over else "FIRING:1"
    headline = notes.get("summary") or telling.identity.get("alertname", "")
    own = {
        "orgId": telling.alert.get("orgId", 1),
        "title": f"[{word}] {headline}",
        "message": notes.get("description") or headline,
    }
    body = notification(telling, "1", {**EMPTY, **telling.alert})
    common = body["commonAnnotations"]  # a caller's own words for the group were never checked
    shared = without_private(common) if isinstance(common, dict) else {}
    state = "ok" if body["status"] == "resolved" else "alerting"
    return {**own, **body, "state": state, "commonAnnotations": shared}


def _route(method: str, path: str) -> Route:
    return Route(
        method=method,
        path=path,
        operations=(Operation.CREATE, Operation.UPDATE, Operation.RESOLVE),
        read=_notified,
        answer=_done,
        summary="Post a notification of a group of alerts",
        source=PAGE,
        body=Notification,
        at_root=False,
    )


def _done(answer: Answer) -> Reply:
    """Any 2xx is success; nobody reads the body."""
    return Reply(200)


DIALECT = Dialect(
    name=NAME,
    title="Grafana",
    source=PAGE,
    kind="occurrence",
    mapping=ALERT,
    routes=tuple(_route(method, path) for path in ("/webhook", "/") for method in ("POST", "PUT")),
    outbound=Outbound(
        addressed_by="key",
        calls=teller(_envelope),
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
    inbound_settings=Settings,
    verify=verify,
    url="http://receiver.example.com/webhook",
    client_setting="the URL of a webhook contact point → `http://gateway/grafana/webhook`",
    remark=(
        "A caller's key is the credential of any Authorization scheme, or `user:password` of Basic authentication. "
        "With `hmac` in `[inbound.grafana]` every request must also be signed with that secret; if the contact point "
        "names a header for the timestamp, set `hmac_timestamp_header` to it: requests signed more than five minutes "
        "ago are refused. A contact point with a custom payload is refused, and the answer begins with what to change. "
        "An upstream's `url` is the whole address of a receiver of Grafana's webhook, which gets one alert with each "
        "request; its `key`, if it asks for one, is a bearer token or `user:password`."
    ),
)
