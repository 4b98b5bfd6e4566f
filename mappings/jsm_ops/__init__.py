"""Jira Service Management's Ops REST API, Opsgenie's successor: the same occurrences under a user's own credentials.

Source: https://developer.atlassian.com/cloud/jira/service-desk-ops/rest/v2/api-group-alerts/. It shares Opsgenie's
rows, words and steps; what differs is here: rows in `alert`, what callers ask in `routes`, answers in `words`, and what
is sent in `calls`. It must not know what stands behind the gateway.
"""

from __future__ import annotations

from gateway.canonical import Operation
from gateway.dialect import Dialect, Outbound
from gateway.outcome import Request
from mappings.jsm_ops.alert import ALERT, NAME
from mappings.jsm_ops.calls import SEND, read_many, read_one
from mappings.jsm_ops.routes import PAGE, ROUTES, credentials
from mappings.opsgenie.alert import fitted_key
from mappings.opsgenie.steps import MOVED
from mappings.opsgenie.words import number_of, problem, reason, shown_id

DIALECT = Dialect(
    name=NAME,
    title="Jira Service Management",
    source=PAGE,
    kind="occurrence",
    mapping=ALERT,
    routes=ROUTES,
    outbound=Outbound(
        addressed_by="key",
        calls=SEND,
        nearest={Operation.DELETE: Operation.RESOLVE},
        authorise=Request.with_basic,
        reason=reason,
        read=read_one,
        kin={NAME: MOVED | {"assignee"}, "opsgenie": MOVED},
        list=read_many,
        probe=Request(method="GET", path="/alerts", query={"size": "1"}),
    ),
    credentials=credentials,
    problem=problem,
    shown_id=shown_id,
    same_key=fitted_key,
    request_of=number_of,
    url="https://api.atlassian.com/jsm/ops/api/<cloudId>/v1",
    client_setting=(
        "the base URL `https://api.atlassian.com/jsm/ops/api/<cloudId>`, if need be with the `/v1` behind it, → "
        "`http://gateway/jsm_ops`"
    ),
    remark=(
        "The `key` is a user's email and API token, `jane@example.com:token`, as the Basic scheme has them; the "
        "`cloudId` is shown at `https://<site>.atlassian.net/_edge/tenant_info`. The integration events API of the "
        "same product, which takes the key of an integration, is `opsgenie`, for upstreams and for callers. Responders "
        "can be named by id only, and an API token may not delete: an alert is closed instead, and removed tags "
        "stay. Changing or deleting a note, and files, are refused with 404."
    ),
)
