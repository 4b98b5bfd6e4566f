"""Opsgenie's Alert API v2: occurrences, addressed by alias, with everything that people do to them.

Source: https://docs.opsgenie.com/docs/alert-api. Operations that the canonical alert does not have (snooze, assign,
escalate and the like) change the record and are sent as a comment, or unchanged to an upstream that speaks Opsgenie
too. Rows are in `alert`; callers' requests in `routes`, `asked`, `beside`, `lists` and `query`; answers in `words` and
`bodies`; calls to upstreams in `calls` and `steps`. It must not know what stands behind the gateway.
"""

from __future__ import annotations

from gateway.canonical import Operation
from gateway.dialect import Dialect, Outbound
from gateway.outcome import Request
from mappings.opsgenie.alert import ALERT, NAME, fitted_key
from mappings.opsgenie.calls import SEND, authorise, read_one
from mappings.opsgenie.routes import PAGE, ROUTES, credentials
from mappings.opsgenie.steps import MOVED
from mappings.opsgenie.words import number_of, problem, reason, shown_id

DIALECT = Dialect(
    name=NAME,
    title="Opsgenie",
    source=PAGE,
    kind="occurrence",
    mapping=ALERT,
    routes=ROUTES,
    outbound=Outbound(
        addressed_by="key",
        calls=SEND,
        authorise=authorise,
        reason=reason,
        read=read_one,
        kin={NAME: MOVED | {"assignee"}, "jsm_ops": MOVED},
        notes=frozenset({Operation.ACKNOWLEDGE, Operation.RESOLVE}),
        probe=Request(method="GET", path="/v2/alerts", query={"limit": "1"}),
    ),
    credentials=credentials,
    problem=problem,
    shown_id=shown_id,
    same_key=fitted_key,
    request_of=number_of,
    tells_types=True,
    url="https://api.opsgenie.com",
    client_setting="the host `https://api.opsgenie.com` (or `https://api.atlassian.com`) → `http://gateway/opsgenie`",
    remark=(
        "An upstream's `key` is an API key, such as that of an API integration; accounts in the EU have "
        "`https://api.eu.opsgenie.com` as their `url`. Jira Service Management's integration events API is the same "
        "upstream with another base URL: `https://api.atlassian.com/jsm/ops/integration`, one host for all regions, "
        "with the key of an API integration. It creates, acknowledges, closes and takes notes; a change of a field, "
        "for which it has no call, is sent as a create with the same alias, a delete as a close, and what else it has "
        "no call for (snooze, assign) as a note. Its callers are served at its own paths as well "
        "(`/jsm/ops/integration/v2/alerts`), so that only their host changes. Pings of heartbeats are passed on if a "
        "caller's first upstream is Opsgenie too, and else refused with 404: before you move away, have them monitored "
        "elsewhere. A caller's key may also be the password of Basic authentication, or `apiKey` in the query. "
        "Of the payloads that other tools post to an integration's own address, Netdata's is accepted; others "
        "(`/v1/json/cloudwatch?apiKey=…`) are refused with 404."
    ),
)
