"""Problem codes: one stable word for every reason why an attempt failed, why a delivery is dead, void or held, and why
a caller was refused. They appear in the report header, in `trace`, beside deliveries and in metrics, and each is a
heading in the README's runbook. For refused callers the codes are the kinds of `Problem`.

A code never changes its meaning; the text beside it, which says what happened this time, may. It must not know any
vendor.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from gateway.errors import ProblemKind


class Code(StrEnum):
    """Codes of attempts and deliveries; a dead delivery may also have a kind of `Problem`, such as `refused`."""

    UNREACHABLE = "unreachable"
    NO_ANSWER = "no-answer"
    UNAVAILABLE = "unavailable"
    THROTTLED = "throttled"
    WEB_PAGE = "web-page"
    NO_ID = "no-id"
    NO_TOKEN = "no-token"  # noqa: S105
    UNCONFIRMED = "unconfirmed"
    GONE_THERE = "gone-there"
    KEY_REFUSED = "key-refused"
    NO_KEY = "no-key"
    BAD_CERTIFICATE = "bad-certificate"
    PROXY_REFUSED = "proxy-refused"
    GIVEN_UP = "given-up"
    RULES_REFUSED = "rules_refused"
    LOOP = "loop"
    NOT_NEEDED = "not-needed"
    STANDING_BY = "standing-by"
    FOLDED = "folded"
    PASSED_ON = "passed-on"
    ENDED_THERE = "ended-there"
    NEVER_THERE = "never-there"
    NO_UPSTREAM = "no-upstream"
    NOT_OFFERED = "not-offered"
    ID_UNKNOWN = "id-unknown"
    GONE_HERE = "gone-here"
    SUPERSEDED = "superseded"
    DROPPED = "dropped"
    TAKEN_OVER = "taken-over"


class Why(NamedTuple):
    """Why nothing is sent: a code, and a line for people."""

    code: Code
    text: str


MEANINGS: Mapping[str, str] = {
    # an attempt failed, the delivery waits for the next one
    Code.UNREACHABLE: "no connection to the upstream: check its host name, its port and the network",
    Code.NO_ANSWER: "the request was sent and no answer came: the upstream may have taken it",
    Code.UNAVAILABLE: "the upstream is temporarily unavailable: it answered 408, 425 or 5xx",
    Code.THROTTLED: "the upstream's rate limit is exceeded: it answered 429",
    Code.WEB_PAGE: "a web page, a redirect, or a 404 or 405 without JSON: not an answer of the upstream's API",
    Code.NO_ID: "the upstream accepted the alert, but returned no id for it",
    Code.NO_TOKEN: "the identity service issued no token for the key",
    Code.UNCONFIRMED: "the upstream accepted the request, but has not confirmed it yet",
    Code.GONE_THERE: "the upstream no longer has the alert: it is created there again",
    # the whole upstream is held, the delivery waits
    Code.KEY_REFUSED: "the upstream refuses the gateway's key",
    Code.NO_KEY: "no key is configured for this upstream, or for this entry of its `keys`",
    Code.BAD_CERTIFICATE: "the upstream's certificate cannot be verified, or the upstream refuses the gateway's",
    Code.PROXY_REFUSED: "the proxy before the upstream asks for credentials",
    # the delivery is dead
    Code.GIVEN_UP: "an attempt failed, and the delivery was older than `retry.max_age`",
    Code.RULES_REFUSED: 'the upstream takes no rules: rules = "refuse"',
    # the delivery is void: nothing had to be sent
    Code.LOOP: "loop: this command already passed through this gateway; not forwarded again",
    Code.NOT_NEEDED: "the fallback was not needed",
    Code.STANDING_BY: "the upstream is a fallback whose turn has not come",
    Code.FOLDED: "the alert ended before it could be sent",
    Code.PASSED_ON: "another alert has the key there by now: this would have changed or ended that one",
    Code.ENDED_THERE: "the alert has already ended there",
    Code.NEVER_THERE: "the alert never reached the upstream, so there is nothing to change or end",
    Code.NO_UPSTREAM: "the upstream is not in the configuration; the delivery is sent once it is there again",
    Code.NOT_OFFERED: "the vendor has no such operation",
    Code.ID_UNKNOWN: "the upstream gave no id for the alert, so it cannot be changed or ended there",
    Code.GONE_HERE: "its command or its alert was removed from the store",
    Code.SUPERSEDED: "a later command sent the same, or ended the alert",
    Code.DROPPED: "an operator dropped it",
    Code.TAKEN_OVER: "another replica or an operator took the delivery meanwhile",
    # a caller is refused
    ProblemKind.MALFORMED: "the request cannot be read",
    ProblemKind.INVALID: "a field or a header of the request is not acceptable",
    ProblemKind.UNMET: "an upstream requires what the alert does not have",
    ProblemKind.UNROUTED: "no entry of `routes` matches the alert",
    ProblemKind.REFUSED: "the upstream refuses the content",
    ProblemKind.UNAUTHORIZED: "the caller's credential is missing or unknown",
    ProblemKind.NOT_FOUND: "there is no such alert in the caller's scope",
    ProblemKind.NO_SUCH_PATH: "nothing is served at this path",
    ProblemKind.METHOD_NOT_ALLOWED: "the path does not allow this method",
    ProblemKind.TIMEOUT: "the request did not arrive in time",
    ProblemKind.CONFLICT: "the alert was changed meanwhile",
    ProblemKind.TOO_LARGE: "the body is larger than `max_body`",
    ProblemKind.MEDIA_TYPE: "the vendor's API takes no body of this content type",
    ProblemKind.HEADERS_TOO_LARGE: "the headers are larger than 32 KiB",
    ProblemKind.NAME_TAKEN: "another alert has the unique name",
    ProblemKind.KEY_REUSED: "the idempotency key was used by another request",
    ProblemKind.IN_PROGRESS: "the first request under the idempotency key is not answered yet",
    ProblemKind.RATE_LIMITED: "the caller sends too many requests",
    ProblemKind.OVERLOADED: "the outbox or disk is full, too many requests are under way, or the store cannot commit",
    ProblemKind.INTERNAL: "internal error of the gateway",
}
"""Every code, and what it means in one line."""

HELD_UNTIL: Mapping[str, str] = {
    Code.KEY_REFUSED: "held until the key is changed or the upstream accepts it; probed once a minute",
    Code.NO_KEY: "held until a key is configured",
    Code.BAD_CERTIFICATE: "held until the certificate can be verified; probed once a minute",
    Code.PROXY_REFUSED: "held until the proxy's credentials are changed or accepted; probed once a minute",
}
"""The codes for which an upstream or a key is held, and until when."""
