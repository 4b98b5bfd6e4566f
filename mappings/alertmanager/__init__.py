"""Prometheus' Alertmanager, API v2: occurrences that are identified by their labels and posted again while they last.

Source: https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml. Rows are in `alert`, callers' requests
in `routes` and `matchers`, answers in `words`, and requests to an upstream in `calls`. It must not know what stands
behind the gateway.
"""

from __future__ import annotations

from gateway.canonical import Operation
from gateway.dialect import Dialect, Outbound
from gateway.outcome import Request
from mappings.alertmanager.alert import ALERT, NAME
from mappings.alertmanager.calls import SEND, authorise, list_all
from mappings.alertmanager.routes import API, ROUTES, muted_by, refuse_other_types
from mappings.alertmanager.words import credentials, problem, reason

DIALECT = Dialect(
    name=NAME,
    title="Alertmanager",
    source=API,
    kind="occurrence",
    mapping=ALERT,
    routes=ROUTES,
    outbound=Outbound(
        addressed_by="key",
        calls=SEND,
        nearest={Operation.DELETE: Operation.RESOLVE},
        authorise=authorise,
        needs_key=False,
        reopens_anew=True,
        is_repeated=True,
        notes=frozenset({Operation.ACKNOWLEDGE}),
        reason=reason,
        list=list_all,
        probe=Request(method="GET", path="/api/v2/status"),
    ),
    credentials=credentials,
    problem=problem,
    browsers=("GET", "HEAD", "POST"),  # as an Alertmanager of 0.25 answers; karma posts silences from the browser
    shown_id=str,
    url="http://alertmanager:9093",
    client_setting=(
        "the target of `alertmanagers:` in Prometheus (`path_prefix: /alertmanager`), `--alertmanager.url` of amtool → "
        "`http://gateway/alertmanager`"
    ),
    muted_by=muted_by,
    admits=refuse_other_types,
    remark=(
        "A caller's key is a bearer token, or `user:password` of Basic authentication; so is an upstream's `key`, "
        "which may be left out: only a proxy before an Alertmanager asks for one. Repeats from Prometheus are neither "
        "recorded nor forwarded; an alert that it no longer reports ends at its own `endsAt`, or after an outage of "
        "the gateway, ten minutes after that at the earliest. The webhook of another Alertmanager is received at "
        "`/alertmanager/webhook`. A silence keeps matching alerts from being forwarded, and acknowledges those that "
        "are open. Alerts that are still repeated when the silence ends, and that nobody else acknowledged here, are "
        "ended and opened again at the upstreams that got this acknowledgement, as no vendor wakes anybody for an "
        "acknowledged alert. An acknowledgement arriving for an Alertmanager becomes a silence that ends with the "
        "alert. An alert that always fires (`Watchdog`) is forwarded once, and repeated only to an Alertmanager: a "
        "dead man's switch, which takes its repetition for a sign of life, must get it without the gateway. Its "
        "`severity` is `none`, which like any word that is not in the scale stays a label: a target that requires a "
        "severity gets its own default, which may page. A route with `to = []` throws such alerts away."
    ),
)
